"""Malformed calls of the whole public face: `python -m tests.malformed --help`, from the repository's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's `pythonpath` has it: `malformed.good` is found there
