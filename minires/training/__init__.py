"""Training: the loop, the history, checkpoints."""

from minires._lazy import directory
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.checkpoint import find as find_checkpoint
from minires.training.checkpoint import load as load_checkpoint
from minires.training.config import Config, ConfigError
from minires.training.divergence import Diverged
from minires.training.evaluation import Evaluation, evaluate
from minires.training.history import Row
from minires.training.lock import RunFolderError
from minires.training.loop import Interrupted, Result, train
from minires.training.recipes import RECIPES, recipe
from minires.training.restore import Trained, evaluate_run, restore
from minires.training.run import RunFolder, resume_config

__all__ = [
    "RECIPES",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Diverged",
    "Evaluation",
    "Interrupted",
    "Result",
    "Row",
    "RunFolder",
    "RunFolderError",
    "Trained",
    "evaluate",
    "evaluate_run",
    "find_checkpoint",
    "load_checkpoint",
    "recipe",
    "restore",
    "resume_config",
    "train",
]
__dir__ = directory(globals())
