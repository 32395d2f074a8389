"""How far it is, in a debugger, from `model(x)` to array code: `python tests/inspect/stops.py`.

A scripted session with pdb steps with `s` from `model(x)` into the first convolution of ResNet-20, until it stops in
the reference backend's file.  Prints how often pdb stops on the way, in how many files, the last one included, and the
hops: the calls that are open at the end.
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


def path() -> tuple[list[str], list[str]]:
    """The file of each stop from the line `model(x)` to the first one in the array code, and the calls open there."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        words = "s\n" * LIMIT + "q\n"
        done = subprocess.run([sys.executable, str(script)], input=words, capture_output=True, text=True, timeout=300)
    files: list[str] = []
    calls: list[str] = []
    stop = r"^(?:\(Pdb\) )?(?:--(Call|Return)--\n)?> (.*)\(\d+\)(\S+)\(\)"
    for event, file, function in re.findall(stop, done.stdout, flags=re.M):
        files.append(file)
        if event == "Call":
            calls.append(f"{Path(file).name}:{function}")
        elif event == "Return":
            calls.pop()
        if file.endswith(GOAL):
            return files, calls
    raise RuntimeError(f"no stop in {GOAL} within {LIMIT}: {done.stderr[-1000:]}")


if __name__ == "__main__":
    visited, entered = path()
    steps, files, hops = len(visited) - 1, len(set(visited)), len(entered)
    print(f"{steps} steps, {files} files and {hops} hops from model(x) to {GOAL}")
    print(" -> ".join(entered))
    for name in dict.fromkeys(visited):
        print(f"{visited.count(name):5}  {name}")
