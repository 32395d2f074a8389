"""A checkpoint of a training run, seen as a weight file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from minires.training import CheckpointError, find_checkpoint, load_checkpoint
from minires.training.restore import preprocessing
from minires.weights import metadata
from minires.weights.file import WeightFile, WeightsError

FORMAT = "minires checkpoint"


def read_checkpoint(path: Path) -> WeightFile:
    """The newest checkpoint of a run folder, or the one that a file belongs to.

    Raises FileNotFoundError where there is none and WeightsError where it is broken.
    """
    found = find_checkpoint(path)
    try:
        checkpoint = load_checkpoint(found)
    except CheckpointError as error:
        raise WeightsError(str(error)) from None
    config = checkpoint.config
    arrays = {f"model.{name}": array for name, array in checkpoint.model.items()}
    arrays |= dict(checkpoint.velocity) | {"input.mean": checkpoint.mean}
    told = {"num_classes": len(checkpoint.classes), "in_channels": checkpoint.input_shape[0]}
    told |= config.network_options()
    pictures = asdict(preprocessing(checkpoint))
    return WeightFile(
        found,
        FORMAT,
        arrays,
        {name: str(array.dtype) for name, array in arrays.items()},
        metadata.encode(config.network, told, pictures, checkpoint.classes),
    )
