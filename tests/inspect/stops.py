"""How far it is, in a debugger, from `model(x)` to array code: `python tests/inspect/stops.py`.

A scripted session with pdb steps with `s` from `model(x)` into the first convolution of ResNet-20, until it stops in
the reference backend's file.  Prints how often pdb stops on the way, and in how many files, the last one included.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
import numpy as np, minires as mr
model = mr.models.create("resnet20", width=4)
x = mr.tensor(np.zeros((2, 3, 8, 8), np.float32))
with mr.backend("reference"):
    breakpoint()
    model(x)
"""
GOAL = "backends/reference/conv2d.py"
LIMIT = 1000


def stops() -> list[str]:
    """The file of each stop, from the line `model(x)` to the first one in the array code."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        words = "s\n" * LIMIT + "q\n"
        done = subprocess.run([sys.executable, str(script)], input=words, capture_output=True, text=True, timeout=300)
    files: list[str] = []
    for file in re.findall(r"^(?:\(Pdb\) )?> (.*)\(\d+\)", done.stdout, flags=re.M):
        files.append(file)
        if file.endswith(GOAL):
            return files
    raise RuntimeError(f"no stop in {GOAL} within {LIMIT}: {done.stderr[-1000:]}")


if __name__ == "__main__":
    visited = stops()
    print(f"{len(visited) - 1} steps and {len(set(visited))} files from model(x) to {GOAL}")
    for name in dict.fromkeys(visited):
        print(f"{visited.count(name):5}  {name}")
