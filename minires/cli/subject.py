"""The network and the images that `step` and `trace` look into."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires.cli.words import (
    BACKEND_HELP,
    WORDS,
    UsageError,
    checkpoint,
    computing_on,
    is_run,
    known_network,
    say,
    weight_file,
)

if TYPE_CHECKING:
    import minires as mr

PHOTO_LABEL = 652  # "military uniform": what ImageNet calls the photograph that comes with matplotlib


@dataclass(frozen=True)
class Subject:
    """A network, images (N, C, H, W) that want a gradient, labels (N,), and a line that says what they are."""

    model: mr.nn.Module
    images: mr.Tensor
    labels: Any
    told: str

    def run(self) -> None:
        """One forward and backward."""
        from minires import functional as F

        F.cross_entropy(self.model(self.images), self.labels).backward()


def add_subject(parser: argparse.ArgumentParser, backend: bool = True) -> None:
    images = parser.add_argument_group("the images", "default: digits for the CIFAR family, else a photograph")
    images.add_argument("--data", metavar="NAME", help="digits, fashion-mnist, cifar10 or folder: its test images")
    images.add_argument("--data-dir", metavar="DIR", help="look for the data here first")
    images.add_argument("--index", type=int, metavar="N", help="the first test image (default: 0)")
    images.add_argument("--batch", type=int, metavar="N", help="how many from there on (default: 8)")
    images.add_argument("--image", metavar="FILE", help="a picture: scaled, centre crop (as the run does)")
    images.add_argument("--label", type=int, metavar="N", help="class of the picture (default: 0)")
    network = parser.add_argument_group("the network")
    network.add_argument("--weights", metavar="FILE", help="a run, or a weight file (default: initialised)")
    network.add_argument("--seed", type=int, metavar="N", help="of the initialisation (default: 0)")
    network.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    network.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    network.add_argument("--zero-channels", metavar="end|both", help="where option A's zeros are (default: end)")
    network.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    network.add_argument("--eval", action="store_true", help="running statistics, no dropout (default: with --weights)")
    if backend:
        parser.add_argument("--backend", metavar="NAME", help=BACKEND_HELP)
    else:
        parser.set_defaults(backend=None)


@contextlib.contextmanager
def subject(network: str, arguments: argparse.Namespace) -> Iterator[Subject]:
    """The subject that the flags describe; within it its backend is the active one."""
    known_network(network)
    with computing_on(arguments.backend):
        yield _make(network, arguments)


def _make(network: str, arguments: argparse.Namespace) -> Subject:
    import minires as mr
    from minires.models import input_shape

    if arguments.image is not None and arguments.data is not None:
        raise UsageError("--image and --data cannot be given together")
    if (arguments.index or 0) < 0:
        raise UsageError(f"--index must be at least 0, got {arguments.index}")
    if arguments.batch is not None and arguments.batch < 1:
        raise UsageError(f"--batch must be at least 1, got {arguments.batch}")

    trained = None
    if arguments.weights is not None:
        trained = _restored(network, arguments)
    config = None if trained is None else trained.config
    data = arguments.data
    if data is None and arguments.image is None:
        small = input_shape(network)[1] == 32 and trained is None
        data = config.data if config is not None else "digits" if small else None
    what = "one picture (--data chooses others)" if data is None else f"the test images of {data}"
    for flag in ("index", "batch", "data_dir") if data is None else ("label",):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag.replace('_', '-')} says nothing about {what}")
    if data is not None:
        mean = None if trained is None else trained.mean
        options = {} if config is None else {"size": config.size}
        if config is not None and config.data == data:
            options |= {"test_fraction": config.test_fraction, "seed": config.seed}
        x, labels, classes, told = _test_images(data, arguments, mean, options)
    else:
        x, told = _picture(arguments.image, network, trained)
        labels, classes = [arguments.label if arguments.label is not None else 0], None
        if arguments.image is None:
            usual = 0 if trained is not None and _outputs(trained.model, x) <= PHOTO_LABEL else PHOTO_LABEL
            labels = [usual if arguments.label is None else arguments.label]

    if trained is not None:
        model = trained.model
        if trained.input_shape not in (None, x.shape[1:]):
            raise UsageError(f"{told} has shape {x.shape[1:]}; the network takes {trained.input_shape}")
    else:
        try:
            mr.manual_seed(0 if arguments.seed is None else arguments.seed)
        except ValueError as error:
            raise UsageError(f"--{error}") from None
        chosen = {name: getattr(arguments, name) for name in ("shortcut", "stride_in", "zero_channels", "width")}
        options = {name: value for name, value in chosen.items() if value is not None} | {"in_channels": x.shape[1]}
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
            f"batch norm in training needs more than the one value per channel that one image of shape {x.shape[1:]} "
            "leaves: --batch takes more images, --eval uses the running statistics"
        )
    outputs = _outputs(model, x)
    for label in labels:
        if not 0 <= label < outputs:
            raise UsageError(f"--label must lie in [0, {outputs}), got {label}")
    from minires.training.evaluation import on_device

    images = mr.tensor(on_device(model, x), requires_grad=True)
    return Subject(model, images, _like(images, labels), f"{network}, {told}")


def _normalised_alone(model: Any, x: Any) -> bool:
    """Whether a batch norm would be given a single value per channel."""
    rows = _summary(model, x).rows
    return len(x) == 1 and any(row.operation == "BatchNorm" and math.prod(row.output_shape[1:]) == 1 for row in rows)


def _outputs(model: Any, x: Any) -> int:
    """How many classes the network tells apart; the images must fit it."""
    outputs: int = _summary(model, x).rows[-1].output_shape[0]
    return outputs


def _summary(model: Any, x: Any) -> Any:
    from minires.inspect import summary

    try:
        return summary(model, x.shape[1:])
    except (TypeError, ValueError) as error:
        raise UsageError(f"images of shape {x.shape[1:]} do not fit the network: {error}") from None


def _like(images: Any, labels: Any) -> Any:
    import numpy as np

    from minires.arrays import array_module

    return array_module(images.data).asarray(np.asarray(labels, np.int64))


@dataclass(frozen=True)
class _Trained:
    """The network of --weights: of a run, which has its data and their mean image, or of another program's file."""

    model: mr.nn.Module
    preprocessing: Any
    config: Any = None
    mean: Any = None
    input_shape: tuple[int, int, int] | None = None


def _restored(network: str, arguments: argparse.Namespace) -> _Trained:
    from minires import prediction
    from minires.training.restore import restore

    run = is_run(arguments.weights)
    for name in ("shortcut", "width", "seed", *(WORDS if run else ())):
        if getattr(arguments, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} cannot be given with --weights: the {'run' if run else 'file'} has its own"
            )
    if not run:
        path = weight_file(arguments.weights)
        try:
            found = prediction.of_weights(path, network, arguments.stride_in, arguments.zero_channels)
        except ValueError as error:  # of a word that is none
            raise UsageError(str(error)) from None
        for note in found.notes:
            say(f"minires: {note}", error=True)
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
    """x (N, C, H, W), labels (N,), how many classes, and what it is; `options` as for `minires.data.load`."""
    import numpy as np

    from minires import data as sets
    from minires.data import FolderImages, Transform

    try:
        dataset = sets.load(data, "test", arguments.data_dir, **options)
        if mean is None and data != "folder":
            mean = sets.pixel_mean(sets.load(data, "train", arguments.data_dir, **options))
    except ValueError as error:
        raise UsageError(str(error)) from None
    first, last = arguments.index or 0, (arguments.index or 0) + (arguments.batch or 8)
    if first >= len(dataset):
        raise UsageError(f"--index must be below {len(dataset):,}, the number of test images, got {first}")
    last = min(last, len(dataset))
    images: Any = dataset.images
    chosen = np.stack([images.read(i) for i in range(first, last)]) if isinstance(images, FolderImages) else None
    x = Transform(mean)(images[first:last] if chosen is None else chosen)
    names = dataset.classes[int(dataset.labels[first])]
    more = f" and {last - first - 1} more" if last - first > 1 else ""
    return x, dataset.labels[first:last], len(dataset.classes), f"{data} test image {first} ({names}){more}"


def _picture(path: str | None, network: str, trained: Any) -> tuple[Any, str]:
    """x (1, C, H, W) of a picture, or of the photograph that comes with matplotlib, as the network is used to."""
    from minires.data import Preprocessing
    from minires.data.preprocess import margin
    from minires.models import input_shape

    if path is None:
        from matplotlib.cbook import get_sample_data

        file, told = str(get_sample_data("grace_hopper.jpg", asfileobj=False)), "a photograph of Grace Hopper"
    else:
        file, told = path, Path(path).name
        if not Path(path).is_file():
            raise UsageError(f"--image: no file {path}")
    size = input_shape(network)[1]
    preprocessing = Preprocessing(margin(size), size) if trained is None else trained.preprocessing
    return preprocessing(Path(file))[None], told
