"""The way of pdb's `s` from `model(x)` into the array code of the first convolution of ResNet-20."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_s_leads_from_the_model_into_array_code():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("stops.py")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    steps, files, hops = map(int, re.match(r"(\d+) steps, (\d+) files and (\d+) hops", done.stdout).groups())
    print(done.stdout)
    assert 0 < steps <= 139
    assert 4 <= files <= 12
    assert 4 <= hops <= 8
