"""Planted bugs, as data: `python -m tests.mutants --help`, from the repository's root.

Each room lists bugs and the tests that must catch them.  A bug of a Python file is edited into the module's source as a
fresh process imports it (planting/sitecustomize.py), so it may stand in defaults, constants and class bodies.
`Mutation` in minires.verify.planted exchanges the code of one function.  The bugs of the rooms "cuda" and "cpu", the
kernels in csrc, are compiled together (`kernels`).  Either way the working tree stays as it is.

mutmut and cosmic-ray flip every operator of a file and run all tests for each; they take no list of chosen bugs such as
a lost copy or swapped axes.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from .bug import Bug

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's `pythonpath` has it: `agreement` is found there

KERNELS = ("cuda", "cpu")
ROOMS = ("data", "training", "inspect", "paper", "prediction", "core", *KERNELS)


def bugs(room: str) -> tuple[Bug, ...]:
    """Imports the room's list only now: a kernel's list names functions, and they import minires."""
    return importlib.import_module(f".{room}", __package__).BUGS
