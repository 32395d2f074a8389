"""Bugs planted in the rooms outside the kernels, as data: `python -m tests.mutants --help`, from the repository's root.

`Mutation` in minires.verify.planted exchanges the code of one function.  The bugs here also stand in defaults,
constants and class bodies, and pytest must catch them.  So each is edited into its module's source as a fresh process
imports it (planting/sitecustomize.py), and the working tree stays as it is.  mutmut and cosmic-ray flip every operator
of a file and run all tests for each; they take no list of chosen bugs such as a lost copy or swapped axes.
"""

from __future__ import annotations

from . import core, data, inspect, paper, prediction, training
from .bug import Bug

ROOMS: dict[str, tuple[Bug, ...]] = {
    "data": data.BUGS,
    "training": training.BUGS,
    "inspect": inspect.BUGS,
    "paper": paper.BUGS,
    "prediction": prediction.BUGS,
    "core": core.BUGS,
}
