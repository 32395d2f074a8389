"""`python -m tests.fuzz TARGET|all --seconds N`: the readers against mutated files.

A finding is an exception other than WeightsError and DataError, a second of time or 512 MB of memory for one input.
They are kept under build/fuzz/TARGET/findings, the inputs that reached new code under build/fuzz/TARGET/corpus: the
next run starts from those.  Needs Atheris; without it the command prints so and returns 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

BUILD = Path("build/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz the readers of files")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=30, help="in all, shared by the targets (default 30)")
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("skipped: Atheris is not installed (pip install atheris)")
        return 0
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    print(f"{'target':20} {'executions':>10} {'seconds':>8} {'findings':>8}")
    found = 0
    for name in names:
        executions, seconds, findings = _fuzz(name, TARGETS[name], max(1, arguments.seconds // len(names)))
        print(f"{name:20} {executions:>10,} {seconds:>8.0f} {len(findings):>8}", flush=True)
        for finding in findings:
            print(f"  {finding}")
        found += len(findings)
    return 1 if found else 0


def _fuzz(name: str, target: Target, seconds: int) -> tuple[int, float, list[Path]]:
    """Executions, seconds, and the files of the findings."""
    corpus, findings, words = BUILD / name / "corpus", BUILD / name / "findings", BUILD / name / "words"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for old in findings.iterdir():
        old.unlink()
    for i, seed in enumerate(target.seeds()):
        (corpus / f"seed-{i}").write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    start = time.monotonic()
    worker = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz.worker", name, findings, f"-max_total_time={seconds}", "-max_len=4096",
            "-timeout=5", "-rss_limit_mb=512", "-print_final_stats=1", f"-artifact_prefix={findings}/",
            f"-dict={words}", corpus,
        ],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    log = worker.stdout + worker.stderr
    (BUILD / name / "log").write_text(log)
    executions = re.findall(r"(?:number_of_executed_units: |^#)(\d+)", log, re.MULTILINE)
    if not executions:
        raise SystemExit(f"{name} did not start:\n{log[-2000:]}")
    kept = sorted(path for path in findings.iterdir() if path.suffix != ".txt")
    return max(map(int, executions)), time.monotonic() - start, kept


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
