"""The way of pdb's `s` from `model(x)` into the array code of the first convolution of ResNet-20."""

from __future__ import annotations

import re
import subprocess
import sys

SCRIPT = """
import numpy as np, minires as mr
model = mr.models.create("resnet20", width=4)
x = mr.tensor(np.zeros((2, 3, 8, 8), np.float32))
with mr.backend("reference"):
    breakpoint()
    model(x)
"""
GOAL = "backends/reference/conv2d.py"
LIMIT = 450


def test_s_leads_from_the_model_into_array_code(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = "s\n" * LIMIT + "q\n"
    done = subprocess.run([sys.executable, str(script)], input=words, capture_output=True, text=True, timeout=300)
    files = re.findall(r"^(?:\(Pdb\) )?> (.*)\(\d+\)", done.stdout, flags=re.M)
    steps = next((number for number, file in enumerate(files) if file.endswith(GOAL)), None)
    assert steps, f"no stop in {GOAL} within {LIMIT} steps: {done.stderr[-1000:]}"
    visited = files[: steps + 1]
    print(*(f"{visited.count(name):5}  {name}" for name in dict.fromkeys(visited)), sep="\n")
    assert 4 <= len(set(visited)) <= 13
