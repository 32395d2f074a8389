"""Training; what outlasts kills and power failures: `python -m tests.training.kills` and `tests.training.power`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's `pythonpath` has it: `training.disk` is found there
