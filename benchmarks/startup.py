"""The time of `import minires` beside `import numpy` alone, and the slowest modules.

    python -m benchmarks.startup

Each time is the median of several new interpreters, as `python -X importtime` measures it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 7
SHOWN = 12  # of the slowest modules


def import_times(module: str) -> dict[str, tuple[int, int]]:
    """Module -> (its own time, with its imports) in microseconds, in one new interpreter that imports `module`."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    rows = (line.removeprefix("import time:").split("|") for line in lines[1:] if line.startswith("import time:"))
    return {name.strip(): (int(own), int(total)) for own, total, name in rows}


def main() -> None:
    whole: dict[str, list[float]] = {"numpy": [], "minires": []}
    for _ in range(RUNS):
        for module, times in whole.items():
            last = import_times(module)
            times.append(last[module][1] / 1000)
    for module, times in whole.items():
        print(
            f"import {module:8} {statistics.median(times):7.1f} ms  (of {RUNS}: {min(times):.1f} to {max(times):.1f})"
        )
    print(f"\nthe {SHOWN} modules of the last import of minires that took the longest by themselves")
    for name, (own, _) in sorted(last.items(), key=lambda row: -row[1][0])[:SHOWN]:
        print(f"{own / 1000:9.1f} ms  {name}")


if __name__ == "__main__":
    main()
