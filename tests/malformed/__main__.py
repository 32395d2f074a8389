"""`python -m tests.malformed --calls N`: malformed calls of the whole public face, on every backend that is here.

Each call ends in an error that names the argument or in the right answer, or is accepted where the answer is nothing to
compare.  Anything else is a finding: another exception, a message that names nothing, a wrong number, NaN from finite
numbers, an argument that was written into, a crash or a hang.  Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from malformed.good import FACTORIES
from minires import backends

BACKENDS = ("reference", "native", "emulated")
COLUMNS = ("calls", "ValueError", "TypeError", "other errors", "right answers", "accepted", "findings")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.malformed", description="malformed calls of the public face")
    parser.add_argument("--calls", type=int, default=10_000, help="in all, shared by the backends (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="default: all that are here")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as functional.conv2d (default: all)")
    arguments = parser.parse_args()
    chosen = arguments.backends or [name for name in BACKENDS if not backends.available()[name]]
    for name in arguments.names:
        if name not in FACTORIES:
            parser.error(f"unknown name {name!r}; known are {', '.join(FACTORIES)}")
    print(f"{'backend':12}" + "".join(f"{column:>15}" for column in COLUMNS))
    found = 0
    for backend in chosen:
        counts, findings = thrown(backend, -(-arguments.calls // len(chosen)), arguments.seed, arguments.names)
        print(row(backend, counts), flush=True)
        for finding in findings:
            print(f"  {finding}")
        found += len(findings)
    return 1 if found else 0


def thrown(backend: str, calls: int, seed: int = 0, names: list[str] | None = None) -> tuple[Counter[str], list[str]]:
    """The counts, by what the calls ended in, and the findings."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        worker = subprocess.run(
            [sys.executable, "-m", "tests.malformed.worker", backend, str(calls), str(seed), folder, *(names or ())],
            cwd=root, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        message = Path(folder, "counts.json")
        if worker.returncode == 0 and message.exists():
            result = json.loads(message.read_text())
            return Counter(result["counts"]), result["findings"]
        last = Path(folder, "call")
        call = last.read_text(errors="replace") if last.exists() else "before the first call"
        return Counter(findings=1), [f"{call}\n    ended the process with {worker.returncode}: {worker.stderr[-3000:]}"]


def row(backend: str, counts: Counter[str]) -> str:
    message = {name: counts[name] for name in ("calls", "ValueError", "TypeError", "accepted", "findings")}
    message |= {"right answers": counts["right"]}
    message["other errors"] = counts["calls"] - sum(message[name] for name in message if name != "calls")
    return f"{backend:12}" + "".join(f"{message[column]:>15,}" for column in COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
