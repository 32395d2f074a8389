"""A checkpoint of a training run, seen as a weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minires.training import Checkpoint, CheckpointError, find_checkpoint, load_checkpoint
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
    return WeightFile(
        found,
        FORMAT,
        arrays,
        {name: str(array.dtype) for name, array in arrays.items()},
        metadata.encode(config.network, told, preprocessing(checkpoint), checkpoint.classes),
    )


def preprocessing(checkpoint: Checkpoint) -> dict[str, Any]:
    """What brings a picture into the form of the images that the network was trained on.

    A picture of a folder keeps a margin, which the centre crop cuts off; those of the other sets have none.
    """
    C, size, _ = checkpoint.input_shape
    resize = round(size * 256 / 224) if checkpoint.config.data == "folder" else size
    return {"resize": resize, "crop": size, "mean": checkpoint.mean, "std": [1.0] * C, "grey": C == 1}
