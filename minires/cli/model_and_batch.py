"""The network and the images of `step`, `trace` and `lockstep`."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
from minires import data as sets
from minires import prediction
from minires.arrays import array_module
from minires.cli.common import UsageError, computing_on, say
from minires.cli.parser import OPTIONS, Parser, Whole, add, given, not_with
from minires.cli.runs import checkpoint, is_run, weight_file
from minires.data import FolderImages, Preprocessing, Transform
from minires.data.preprocess import margin
from minires.functional import cross_entropy
from minires.inspect import summary
from minires.models import input_shape
from minires.training.evaluation import on_device
from minires.training.restore import restore

# A photograph that is part of matplotlib; finding it does not import matplotlib.
PHOTO = Path(getattr(find_spec("matplotlib"), "origin", "")).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
PHOTO_LABEL = 652  # "military uniform": ImageNet's class of that photograph


@dataclass(frozen=True)
class ModelAndBatch:
    """A network, images (N, C, H, W) that require a gradient, labels (N,), and a line that describes them."""

    model: mr.nn.Module
    images: mr.Tensor
    labels: Any
    title: str

    def run(self) -> None:
        """One forward and backward."""
        cross_entropy(self.model(self.images), self.labels).backward()


def add_flags(parser: Parser, backend: bool = True) -> None:
    images = parser.add_argument_group("The images", "default: digits for CIFAR networks, otherwise a photograph")
    add(images, "--data", help="data set whose test images are used: digits, fashion-mnist, cifar10 or folder")
    add(images, "--data-dir")
    images.add_argument("--index", type=Whole(0), metavar="N", help="index of the first test image (default: 0)")
    add(images, "--batch-size", help="number of test images (default: 8)")
    images.add_argument("--image", metavar="FILE", help="picture, preprocessed as for evaluation (default: none)")
    images.add_argument(
        "--label",
        type=int,
        metavar="N",
        help="index of the class that the loss takes as right (default: 0; the built-in photograph: its class)",
    )
    network = parser.add_argument_group("The network")
    add(network, "--weights --seed --shortcut --stride-in --zero-channels --width")
    add(network, "--eval", help="evaluation mode: running statistics, no dropout (default: only with --weights)")
    if backend:
        add(parser, "--backend")


@contextlib.contextmanager
def model_and_batch(network: str, arguments: argparse.Namespace) -> Iterator[ModelAndBatch]:
    """The network and images of the flags; within it the backend of --backend is the active one."""
    with computing_on(getattr(arguments, "backend", None)):
        yield _make(network, arguments)


def _make(network: str, arguments: argparse.Namespace) -> ModelAndBatch:
    if arguments.image is not None and arguments.data is not None:
        raise UsageError("--image and --data cannot be given together")
    trained = None if arguments.weights is None else _restored(network, arguments)
    config = None if trained is None else trained.config
    data = arguments.data
    if data is None and arguments.image is None:
        small = input_shape(network)[1] == 32 and trained is None
        data = config.data if config is not None else "digits" if small else None
    if data is None:
        not_with(
            arguments,
            ("index", "batch_size", "data_dir"),
            "does not apply to a single picture; --data selects test images",
        )
    else:
        not_with(arguments, ("label",), f"does not apply to the test images of {data}")
    if data is not None:
        mean = None if trained is None else trained.mean
        options = {} if config is None else {"size": config.size}
        if config is not None and config.data == data:
            options |= {"test_fraction": config.test_fraction, "seed": config.seed}
        x, labels, classes, description = _test_images(data, arguments, mean, options)
    else:
        x, description = _picture(arguments.image, network, trained)
        labels, classes = [arguments.label if arguments.label is not None else 0], None
        if arguments.image is None:
            usual = 0 if trained is not None and _outputs(trained.model, x) <= PHOTO_LABEL else PHOTO_LABEL
            labels = [usual if arguments.label is None else arguments.label]

    if trained is not None:
        model = trained.model
        if trained.input_shape not in (None, x.shape[1:]):
            raise UsageError(f"{description} has shape {x.shape[1:]}; the network takes {trained.input_shape}")
    else:
        mr.manual_seed(arguments.seed or 0)
        options = given(arguments, OPTIONS) | {"in_channels": x.shape[1]}
        options |= {} if classes is None else {"num_classes": classes}
        try:
            model = mr.models.create(network, **options)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from None
    if mr.backends.on_gpu():
        model.to("cuda")
    model.train(not (arguments.eval or trained is not None))
    if model.training and _normalised_alone(model, x):
        raise UsageError(
            f"--batch-size must be at least 2: one image of shape {x.shape[1:]} leaves batch norm a single value per "
            "channel to normalise; or pass --eval, which uses the running statistics"
        )
    outputs = _outputs(model, x)
    for label in labels:
        if not 0 <= label < outputs:
            raise UsageError(f"--label must lie in [0, {outputs}), got {label}")
    images = mr.tensor(on_device(model, x), requires_grad=True)
    labels = array_module(images.data).asarray(np.asarray(labels, np.int64))
    return ModelAndBatch(model, images, labels, f"{network}, {description}")


def _normalised_alone(model: Any, x: Any) -> bool:
    """Whether a batch norm would normalise a single value per channel."""
    rows = _summary(model, x).rows
    return len(x) == 1 and any(row.operation == "BatchNorm" and math.prod(row.output_shape[1:]) == 1 for row in rows)


def _outputs(model: Any, x: Any) -> int:
    """The number of classes; raises UsageError if the images do not fit the network."""
    outputs: int = _summary(model, x).rows[-1].output_shape[0]
    return outputs


def _summary(model: Any, x: Any) -> Any:
    try:
        return summary(model, x.shape[1:])
    except (TypeError, ValueError) as error:
        raise UsageError(f"images of shape {x.shape[1:]} do not fit the network: {error}") from None


@dataclass(frozen=True)
class _Trained:
    """The network of --weights.  If it comes from a run, `config`, `mean` and `input_shape` are the run's."""

    model: mr.nn.Module
    preprocessing: Any
    config: Any = None
    mean: Any = None
    input_shape: tuple[int, int, int] | None = None


def _restored(network: str, arguments: argparse.Namespace) -> _Trained:
    run = is_run(arguments.weights)
    names = [name for name in (*OPTIONS, "seed") if run or name not in ("stride_in", "zero_channels")]
    not_with(arguments, names, f"cannot be given with --weights: the {'run' if run else 'file'} has its own")
    if not run:
        path = weight_file(arguments.weights)
        try:
            found = prediction.of_weights(path, network, arguments.stride_in, arguments.zero_channels)
        except ValueError as error:
            raise UsageError(str(error)) from None
        for note in found.notes:
            say(f"note: {note}", error=True)
        return _Trained(found.model, found.preprocessing)
    changes = {} if arguments.data_dir is None else {"data_dir": arguments.data_dir}
    trained = restore(checkpoint(arguments.weights, "--weights"), **changes)
    kept = trained.checkpoint
    if kept.config.network != network:
        raise UsageError(f"--weights: {arguments.weights} holds a {kept.config.network}, not a {network}")
    return _Trained(trained.model, trained.preprocessing, kept.config, kept.mean, kept.input_shape)


def _test_images(
    data: str, arguments: argparse.Namespace, mean: Any, options: dict[str, Any]
) -> tuple[Any, Any, int, str]:
    """x (N, C, H, W), labels (N,), number of classes and a description; `options` are those of `minires.data.load`."""
    try:
        dataset = sets.load(data, "test", arguments.data_dir, **options)
        if mean is None and data != "folder":
            mean = sets.pixel_mean(sets.load(data, "train", arguments.data_dir, **options))
    except ValueError as error:
        raise UsageError(str(error)) from None
    first = arguments.index or 0
    last = first + (arguments.batch_size or 8)
    if first >= len(dataset):
        raise UsageError(f"--index must be below {len(dataset):,}, the number of test images, got {first}")
    last = min(last, len(dataset))
    images: Any = dataset.images
    chosen = np.stack([images.read(i) for i in range(first, last)]) if isinstance(images, FolderImages) else None
    x = Transform(mean)(images[first:last] if chosen is None else chosen)
    names = dataset.classes[int(dataset.labels[first])]
    more = f" and {last - first - 1} more" if last - first > 1 else ""
    return x, dataset.labels[first:last], len(dataset.classes), f"{data} test image {first} (label {names}){more}"


def _picture(path: str | None, network: str, trained: Any) -> tuple[Any, str]:
    """x (1, C, H, W) of a picture, preprocessed for the network, and a description; None: matplotlib's photograph."""
    if path is None:
        file, description = str(PHOTO), "a photograph of Grace Hopper"
    else:
        file, description = path, Path(path).name
        if not Path(path).is_file():
            raise UsageError(f"--image: no file {path}")
    size = input_shape(network)[1]
    preprocessing = Preprocessing(margin(size), size) if trained is None else trained.preprocessing
    return preprocessing(Path(file))[None], description
