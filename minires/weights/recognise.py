"""`recognise`: whose names, which network, what fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from minires import models
from minires._checks import choice, instance, suggest
from minires._repr import shown
from minires.weights import beside, checkpoints, metadata, structure, variants
from minires.weights.conventions import Translation, translate
from minires.weights.file import WeightFile, WeightsError, plain, quoted
from minires.weights.match import STRIDE_IN, Match, WeightsMismatch
from minires.weights.structure import Shapes
from minires.weights.told import Told

WORDS = {"stride_in": ("1x1", "3x3"), "zero_channels": ("end", "both")}


def recognise(
    file: WeightFile,
    *,
    network: str | None = None,
    stride_in: str | None = None,
    zero_channels: str | None = None,
) -> Match:
    """The network of minires that a weight file holds, or comes nearest to; what differs is listed, not raised.

    network         a name that decides where names and shapes don't: ResNet-20 with shortcuts of option A has exactly
                    the parameters of plain-20
    stride_in       "1x1" or "3x3", of the bottlenecks: neither names nor shapes tell it
    zero_channels   "end" or "both", of option A

    What these leave open is taken from metadata that minires wrote (what was assumed there is assumed again), from the
    configurations of transformers and timm beside the file, and from whose names they are.
    Raises WeightsMismatch for a file that looks like no network of minires, or for a word that contradicts the file or
    says nothing about its network; WeightsError for metadata or configurations that are broken; ValueError for a word
    that is none.
    """
    given = {"stride_in": stride_in, "zero_channels": zero_channels}
    words = {name: choice(word, name, WORDS[name]) for name, word in given.items() if word is not None}
    if network is not None and (not isinstance(network, str) or network not in models.names()):
        known = ", ".join(models.names())
        raise ValueError(f"unknown network {shown(network)}; known are {known}.{suggest(network, models.names())}")
    instance(file, "file", WeightFile)
    translation, extra = _translation(file)
    shapes = _shapes(file, translation)
    try:
        told = _told(file, translation, shapes)
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from None
    if network is not None and told.network not in (None, network):
        raise WeightsMismatch(f"network is {network!r}, but {file.path} says {told.network!r} in {told.by}")
    name = network or told.network or structure.nearest(shapes)
    options = structure.options(name, shapes)
    options |= {key: told.options[key] for key in ("stride_in", "zero_channels", "dropout") if key in told.options}
    options = {key: value for key, value in options.items() if key in models.options(name)}
    notes = list(told.notes)
    if told.classes is not None and len(told.classes) != options.get("num_classes"):
        many = len(told.classes)
        raise WeightsError(f"{file.path}: {told.by} name {many:,} classes; it has {options.get('num_classes')} outputs")
    _heed(words, options, name, told, file)
    undecided = _undecided(name, options, translation, notes, network is not None or told.network is not None)
    wanted = _wanted(file, name, options, shapes)
    different = _different(name, shapes, wanted, translation)
    if told.refused:
        different.append(told.refused)
    ours = {key: value for key, value in translation.names.items() if not key.endswith("num_batches_tracked")}
    missing = tuple(key for key in wanted if key not in ours)
    over = [theirs for key, theirs in ours.items() if key not in wanted]
    over += [theirs for theirs in translation.others if theirs not in extra]
    over = [theirs for theirs in over if not theirs.endswith("num_batches_tracked")]
    complete = not (different or missing or over)
    return Match(
        name,
        options,
        _convention(file, translation, told),
        {key: ours[key] for key in wanted if key in ours},
        missing,
        tuple(over),
        undecided,
        told.preprocessing,
        translation.prefix,
        tuple(different),
        told.classes,
        tuple(notes),
        "" if complete else variants.variant(file.arrays, shapes, wanted) or "",
    )


def _translation(file: WeightFile) -> tuple[Translation, set[str]]:
    """The names in torchvision's, and those in the file that belong to no network but may stay."""
    extra = {name for name in file.arrays if name == "input.mean" or name.startswith("velocity.")}
    if "input.mean" not in extra:
        extra = set()  # only a checkpoint of minires has them
    names = [name for name in file.arrays if name not in extra]
    if reason := variants.transformed(names, {name: file.stored.get(name, "float32") for name in names}):
        raise WeightsMismatch(f"{file.path} does not fit any network of minires: {plain(reason)}")
    found = translate(names)
    firsts = {"conv1.weight", "features.0.weight"}
    if found is None or not firsts & found.names.keys() or 2 * len(found.names) < len(names):
        hint = variants.variant(names, {}, {})
        shown = ", ".join(quoted(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
        told = hint or "its names are none of torchvision's, timm's or transformers' for these"
        raise WeightsMismatch(f"{file.path} does not look like a network of minires: {told} ({shown})")
    return found, extra


def _shapes(file: WeightFile, translation: Translation) -> Shapes:
    shapes = {}
    for ours, theirs in translation.names.items():
        shape = file.arrays[theirs].shape
        flat = ours in translation.convention.flattened and len(shape) == 4
        shapes[ours] = (shape[0], math.prod(shape[1:])) if flat else shape
    return shapes


def _told(file: WeightFile, translation: Translation, shapes: Shapes) -> Told:
    """By the file itself, else by what lies beside it, else by whose names they are."""
    found = metadata.decode(file.metadata)
    if found is None and translation.convention.name.startswith("Hugging Face"):
        found = beside.transformers(file.path, shapes)
    elif found is None and translation.convention.name in ("torchvision", "timm"):
        found = beside.timm(file.path, shapes)
    return Told("") if found is None else found.known()


def _heed(words: Mapping[str, str], options: dict[str, Any], network: str, told: Told, file: WeightFile) -> None:
    """Puts the words of the caller among the options."""
    for key, word in words.items():
        if key not in models.options(network) or (key == "zero_channels" and options.get("shortcut") != "A"):
            what = "bottlenecks" if key == "stride_in" else "shortcuts of option A"
            raise WeightsMismatch(f"{key} says nothing about the {network} in {file.path}: it has no {what}")
        if options.get(key, word) != word:
            raise WeightsMismatch(f"{key} is {word!r}, but {file.path} says {quoted(options[key])} in {told.by}")
        options[key] = word


def _undecided(
    network: str, options: dict[str, Any], translation: Translation, notes: list[str], named: bool
) -> tuple[str, ...]:
    """What nothing tells; the usual values are put among the options, and the reasons among the notes."""
    undecided = []
    if "stride_in" in models.options(network) and "stride_in" not in options:
        undecided.append("stride_in")
        notes.append(STRIDE_IN)
    if options.get("shortcut") != "A" or not network.startswith("resnet"):
        return tuple(undecided)
    repository = translation.names.get("fc.weight", "").endswith("linear.weight")
    twin = network.replace("resnet", "plain")
    if not named and not repository and twin in models.names():
        undecided.append("network")
        notes.append(
            f"{twin} has the same names and shapes: taken for the residual network, which most files hold; "
            f"say network (--network) {twin} for the plain one"
        )
    if "zero_channels" not in options:
        if repository:
            options["zero_channels"] = "both"
            notes.append(
                "residual, with option A's zero channels on both sides: so are the networks of the public CIFAR "
                "repository that names its head linear (akamaster/pytorch_resnet_cifar10)"
            )
        else:
            options["zero_channels"] = "end"
            undecided.append("zero_channels")
            notes.append(
                "option A's zero channels are taken to stand at the end, as in the paper; "
                'say zero_channels (--zero-channels) "both" for one half on each side'
            )
    return tuple(undecided)


def _wanted(file: WeightFile, network: str, options: Mapping[str, Any], shapes: Shapes) -> Shapes:
    """The shapes of the network; refused where they would be far beyond those in the file."""
    width = options.get("width", 1)
    last = width * (8 if len(models.stages(network)[1]) > 3 else 4)
    elements = sum(math.prod(shape) for shape in shapes.values())
    if 9 * last * last > 16 * elements:
        raise WeightsMismatch(
            f"{file.path} does not fit {network}: its first convolution has {width:,} filters, but the whole file "
            f"{elements:,} numbers"
        )
    try:
        return structure.expected(network, options)
    except (TypeError, ValueError) as error:
        raise WeightsMismatch(f"{file.path} does not fit {network}: {error}") from None


def _different(network: str, shapes: Shapes, wanted: Shapes, translation: Translation) -> list[str]:
    lines = []
    kind, counts = structure.stages(shapes)
    theirs_kind, theirs = models.stages(network)
    if (kind, counts) != (theirs_kind, theirs):
        lines.append(f"{_stages(kind, counts)}, {network} has {_stages(theirs_kind, theirs)}")
    for name, shape in wanted.items():
        if name in shapes and shapes[name] != shape:
            lines.append(f"{quoted(translation.names[name])} is {shapes[name]}, {network} has {shape}")
    return lines


def _stages(kind: str, counts: tuple[int, ...]) -> str:
    words = {"basic": "building blocks", "bottleneck": "bottlenecks", "convolution": "convolutions"}
    return f"{', '.join(map(str, counts[:8])) or 'no'} {words[kind]}"


def _convention(file: WeightFile, translation: Translation, told: Told) -> str:
    if "input.mean" in file.arrays or file.format == checkpoints.FORMAT:
        return "minires checkpoint"
    if "minires" in file.metadata:
        return "minires"
    return (
        "timm"
        if told.by == "config.json" and translation.convention.name == "torchvision"
        else translation.convention.name
    )
