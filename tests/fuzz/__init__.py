"""Fuzzing of everything that reads files from elsewhere: `python -m tests.fuzz --help`, from the repository's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's `pythonpath` has it: `weights.files` is found there
