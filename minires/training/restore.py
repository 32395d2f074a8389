"""Restores a trained network from its run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minires import _checks, backends
from minires.data import Preprocessing
from minires.data.preprocess import margin
from minires.nn import Module
from minires.nn.fusing import in_form
from minires.training import checkpoint as checkpoints
from minires.training.batches import evaluation_loader, images
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.config import ConfigError
from minires.training.evaluation import Evaluation, evaluate
from minires.training.network import check_shapes, make_model


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, with its checkpoint."""

    model: Module
    checkpoint: Checkpoint
    path: Path

    def __repr__(self) -> str:
        parameters = sum(p.size for p in self.model.parameters())
        config = self.checkpoint.config
        network = f"{config.network} on {config.data}, {parameters:,} parameters"
        return f"<{network}; {self.checkpoint.state()}; from {self.path}>"

    @property
    def preprocessing(self) -> Preprocessing:
        return preprocessing(self.checkpoint)


def preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    """The preprocessing of a picture for the network, as in the evaluation during training.

    Images of a folder have a margin, which the centre crop removes; the other data sets have none.
    """
    C, size, _ = checkpoint.input_shape
    resize = margin(size) if checkpoint.config.data == "folder" else size
    return Preprocessing(resize, size, checkpoint.mean, (1.0,) * C, grey=C == 1)


def restore(path: str | Path, **changes: Any) -> Trained:
    """The network of a run folder (its newest checkpoint) or of one checkpoint.

    changes   settings of `Config` to replace, such as backend="reference"

    Raises FileNotFoundError without a checkpoint, CheckpointError for a broken or foreign one.
    """
    found = checkpoints.find(_checks.path(path, "path"))
    checkpoint = checkpoints.load(found)
    check_shapes(checkpoint, found)
    if "batch_size" in changes:
        changes = {"micro_batch": None, **changes}  # batch_size images at a time
    if "data" in changes:
        changes = {"test_fraction": None, **changes}  # it belongs to the run's own data
    checkpoint = replace(checkpoint, config=replace(checkpoint.config, **changes))
    try:
        model, _ = make_model(checkpoint.config, len(checkpoint.classes), checkpoint.input_shape)
        model.load_state_dict(checkpoint.model)
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{found} does not fit {checkpoint.config.network}: {error}") from None
    return Trained(model.eval(), checkpoint, found)


def evaluate_run(
    path: str | Path, *, split: str = "test", download: bool = False, **changes: Any
) -> tuple[Trained, Evaluation]:
    """Restores a network and evaluates it on its own data, or on the data that `changes` name.

    changes   settings of `Config`: data, data_dir, batch_size, backend, threads, workers

    Raises the errors of `restore` and of `minires.data`, and ConfigError when the data don't fit the network.
    """
    trained = restore(path, **changes)
    config = trained.checkpoint.config
    dataset = images(config, split, download)
    for name, found, expected in (
        ("images of shape", dataset.shape, trained.checkpoint.input_shape),
        ("classes", dataset.classes, trained.checkpoint.classes),
    ):
        if tuple(found) != expected:
            raise ConfigError(f"{config.data} has {name} {found}; the network was trained for {expected}")
    if config.threads is not None:
        backends.set_num_threads(config.threads)
    with config.computing(), in_form(trained.model, config.fuse):
        batches = evaluation_loader(config, dataset, trained.checkpoint.mean).epoch()
        return trained, evaluate(trained.model, batches)
