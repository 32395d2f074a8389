"""Recognises the network in a weight file by the names and shapes of its arrays: `recognise`.

The names are translated into torchvision's by the table that fits most of them.  The first layer, the blocks and the
last layer then reveal the network and its options.  Hints add the remaining options.  The `Match` lists all differences
between the file and the network.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

from minires import models
from minires._checks import choice, instance
from minires.arrays import Array
from minires.weights import hints
from minires.weights.hints import Hints, Outline
from minires.weights.weight_file import WeightFile, WeightsError, plain, quoted

Shapes = Mapping[str, tuple[int, ...]]  # by torchvision's name

CHOICES = {"stride_in": ("1x1", "3x3"), "zero_channels": ("end", "both")}
STRIDE_IN = (
    "names and shapes do not reveal which convolution of its bottlenecks has the stride: pass stride_in (--stride-in) "
    '"3x3" for weights of torchvision and timm, "1x1" for the paper\'s and its Caffe weights'
)
LISTED = 3  # differences of a kind that a message lists


class WeightsMismatch(ValueError):
    """A readable weight file does not fit any network of minires, or not the requested one."""


@dataclass(frozen=True)
class Match:
    """A network of minires, and the differences between it and a weight file.

    network         one of `models.names()`
    options         the known options of `models.create`
    convention      the program that gave the file's names, e.g. "torchvision"
    names           name in the network's state dict -> name in the file
    missing         names of the network that the file lacks
    left_over       names in the file that the network lacks, except counters of batches and, in minires' checkpoints,
                    the state of the optimiser
    undecided       "stride_in", "zero_channels", "network": not revealed by names, shapes or hints.  `load` needs the
                    first; for the others `options` and `network` hold the usual value
    preprocessing   resize, crop, mean, std, interpolation, grey: those that the file specifies
    prefix          common prefix of the names in the file, such as "module."; "" without a prefix
    different       other differences, each in a line
    classes         names of the classes, if the file holds them
    notes           reasons for assumptions, each in a line
    hint            the unsupported kind of network that the file appears to hold, if known
    """

    network: str
    options: dict[str, Any]
    convention: str
    names: dict[str, str]
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    different: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""

    @property
    def complete(self) -> bool:
        """Whether the file holds exactly this network."""
        return not (self.missing or self.left_over or self.different)

    def __repr__(self) -> str:
        usual = models.options(self.network)
        chosen = "".join(f", {k}={v!r}" for k, v in self.options.items() if k not in usual or usual[k] != v)
        fit = "complete" if self.complete else self.differences()
        undecided = f"; undecided: {', '.join(self.undecided)}" if self.undecided else ""
        return f"<{self.network}{chosen}: {len(self.names)} arrays in the names of {self.convention}, {fit}{undecided}>"

    def differences(self) -> str:
        """The first few differences of each kind, in one line."""
        parts = []
        for lines, one, several in (
            (self.different, "difference", "differences"),
            (self.missing, "missing name", "missing names"),
            (self.left_over, "name left over", "names left over"),
        ):
            listed = ", ".join(map(plain, lines[:LISTED])) + (", …" if len(lines) > LISTED else "")
            parts += [f"{len(lines)} {one if len(lines) == 1 else several}: {listed}"] if lines else []
        return "; ".join(parts) + (f" ({self.hint})" if self.hint else "")

    def state_dict(self, file: WeightFile) -> dict[str, Array]:
        """The arrays of the file (not copied) with the network's names and shapes."""
        instance(file, "file", WeightFile)
        arrays = {ours: file.arrays[theirs] for ours, theirs in self.names.items()}
        return {name: array.reshape(_flattened(name, array.shape)) for name, array in arrays.items()}


def recognise(
    file: WeightFile, *, network: str | None = None, stride_in: str | None = None, zero_channels: str | None = None
) -> Match:
    """Finds the network of minires that a weight file holds, or the most similar one.

    network         name of the network; needed if names and shapes fit two networks: ResNet-20 with shortcuts of
                    option A has exactly the parameters of plain-20
    stride_in       "1x1" or "3x3": the convolution of a bottleneck with the stride; names and shapes don't reveal it
    zero_channels   "end" or "both": place of option A's zero channels

    The defaults come from metadata that minires wrote, from the configurations of transformers and timm beside the
    file, and from the file's names.  The returned `Match` lists differences between file and network; they raise no
    error.
    Raises WeightsMismatch for a file that does not look like a network of minires, and for an argument that contradicts
    the file or does not apply to its network.  Raises WeightsError for broken metadata or configurations, and
    ValueError for an invalid argument.
    """
    given = {"stride_in": stride_in, "zero_channels": zero_channels}
    given = {name: choice(value, name, CHOICES[name]) for name, value in given.items() if value is not None}
    if network is not None:
        models.options(network)  # raises ValueError for an unknown name
    instance(file, "file", WeightFile)

    # What names, shapes and hints reveal
    names = list(file.arrays)
    if "input.mean" in names:  # a checkpoint of minires, with the state of its optimiser
        names = [name for name in names if name != "input.mean" and not name.startswith("velocity.")]
    translation = _translation(file, names)
    shapes = {
        ours: _flattened(ours, file.arrays[theirs].shape)
        for ours, theirs in translation.names.items()
        if not ours.endswith("num_batches_tracked")
    }
    outline = _outline(shapes)
    hinted = _hints(file, translation.convention, outline)

    # The network and its options
    if network is not None and hinted.network not in (None, network):
        raise WeightsMismatch(f"network is {network!r}, but {file.path} has {hinted.network!r} in {hinted.source}")
    name = network or hinted.network or outline.nearest
    options = _options(name, shapes)
    options |= {key: value for key, value in hinted.options.items() if key in (*CHOICES, "dropout")}
    options = {key: value for key, value in options.items() if key in models.options(name)}
    outputs = options.get("num_classes")
    if hinted.classes is not None and len(hinted.classes) != outputs:
        classes = len(hinted.classes)
        raise WeightsError(f"{file.path}: {hinted.source} name {classes:,} classes; the network has {outputs} outputs")
    for key, value in given.items():
        if key not in models.options(name) or (key == "zero_channels" and options.get("shortcut") != "A"):
            what = "bottlenecks" if key == "stride_in" else "shortcuts of option A"
            raise WeightsMismatch(f"{key} does not apply to the {name} in {file.path}: it has no {what}")
        if options.setdefault(key, value) != value:
            raise WeightsMismatch(f"{key} is {value!r}, but {file.path} has {quoted(options[key])} in {hinted.source}")
    named = network is not None or hinted.network is not None
    options, undecided, notes = _assumptions(name, options, translation, named)

    # The differences
    wanted = _wanted(file, name, options, shapes)
    different = _different(name, outline, shapes, wanted, translation)
    different += [hinted.unsupported] if hinted.unsupported else []
    missing = tuple(key for key in wanted if key not in shapes)
    left_over = [translation.names[key] for key in shapes if key not in wanted] + list(translation.others)
    left_over = [theirs for theirs in left_over if not theirs.endswith("num_batches_tracked")]
    return Match(
        name,
        options,
        _convention(file, translation, hinted),
        {key: translation.names[key] for key in wanted if key in shapes},
        missing,
        tuple(left_over),
        undecided,
        hinted.preprocessing,
        translation.prefix,
        tuple(different),
        hinted.classes,
        (*hinted.notes, *notes),
        _kind_of_network(file.arrays, shapes, wanted) if different or missing or left_over else "",
    )


def _hints(file: WeightFile, convention: str, outline: Outline) -> Hints:
    """The hints in the file's metadata, or else in a configuration beside the file."""
    try:
        found = hints.decode(file.metadata)
        if found is None and convention.startswith("Hugging Face"):
            found = hints.from_transformers(file.path, outline)
        elif found is None and convention in ("torchvision", "timm"):
            found = hints.from_timm(file.path, outline)
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from None
    return Hints() if found is None else found


def _assumptions(
    network: str, options: dict[str, Any], translation: Translation, named: bool
) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    """The options completed by the usual values, the names of the undecided options, and notes with the reasons."""
    options, undecided, notes = dict(options), [], []
    if "stride_in" in models.options(network) and "stride_in" not in options:
        undecided.append("stride_in")
        notes.append(STRIDE_IN)
    if options.get("shortcut") != "A" or not network.startswith("resnet"):
        return options, tuple(undecided), notes
    repository = translation.names.get("fc.weight", "").endswith("linear.weight")
    plain_network = network.replace("resnet", "plain")
    if not named and not repository and plain_network in models.names():
        undecided.append("network")
        notes.append(
            f"{plain_network} has the same names and shapes: assumed to be the residual network, as most files are; "
            f"pass network (--network) {plain_network} for the plain one"
        )
    if "zero_channels" not in options and repository:
        options["zero_channels"] = "both"
        notes.append(
            "residual, with option A's zero channels on both sides, as in the public CIFAR repository that names its "
            "head linear (akamaster/pytorch_resnet_cifar10)"
        )
    elif "zero_channels" not in options:
        options["zero_channels"] = "end"
        undecided.append("zero_channels")
        notes.append(
            "option A's zero channels are assumed to be at the end, as in the paper; "
            'pass zero_channels (--zero-channels) "both" for one half on each side'
        )
    return options, tuple(undecided), notes


def _wanted(file: WeightFile, network: str, options: Mapping[str, Any], shapes: Shapes) -> Shapes:
    """The shapes of the network.  Raises WeightsMismatch if the network needs far more memory than the file."""
    width = options.get("width", 1)
    last = width * (8 if len(models.stages(network)[1]) > 3 else 4)
    elements = sum(math.prod(shape) for shape in shapes.values())
    if 9 * last * last > 16 * elements:
        raise WeightsMismatch(
            f"{file.path} does not fit {network}: its first convolution has {width:,} filters, but the whole file "
            f"{elements:,} numbers"
        )
    try:
        return models.shapes(network, **options)
    except (TypeError, ValueError) as error:
        raise WeightsMismatch(f"{file.path} does not fit {network}: {error}") from None


def _different(network: str, outline: Outline, shapes: Shapes, wanted: Shapes, translation: Translation) -> list[str]:
    lines = []
    found, ours = (outline.kind, outline.counts), models.stages(network)
    if found != ours:
        lines.append(f"{_blocks(*found)}, {network} has {_blocks(*ours)}")
    for name, shape in wanted.items():
        if name in shapes and shapes[name] != shape:
            lines.append(f"{quoted(translation.names[name])} is {shapes[name]}, {network} has {shape}")
    return lines


def _blocks(kind: str, counts: tuple[int, ...]) -> str:
    words = {"basic": "building blocks", "bottleneck": "bottlenecks", "convolution": "convolutions"}
    return f"{', '.join(map(str, counts[:8])) or 'no'} {words[kind]}"


def _convention(file: WeightFile, translation: Translation, hinted: Hints) -> str:
    if "input.mean" in file.arrays:
        return "minires checkpoint"
    if "minires" in file.metadata:
        return "minires"
    timm = hinted.source == "config.json" and translation.convention == "torchvision"
    return "timm" if timm else translation.convention


# Names: the tables of the programs that write weights of these networks

# Rules rename the parts of a network.  {s} stands for a number, {s1} for the number after it.
_TORCHVISION = tuple(
    (name, name)
    for name in ("conv1", "bn1", "layer{s}.{b}.conv{k}", "layer{s}.{b}.bn{k}", "layer{s}.{b}.downsample.{i}", "fc")
)
_VGG = (("features.{i}", "features.{i}"),)
_TRANSFORMERS = (
    ("embedder.embedder.convolution", "conv1"),
    ("embedder.embedder.normalization", "bn1"),
    ("encoder.stages.{s}.layers.{b}.layer.{k}.convolution", "layer{s1}.{b}.conv{k1}"),
    ("encoder.stages.{s}.layers.{b}.layer.{k}.normalization", "layer{s1}.{b}.bn{k1}"),
    ("encoder.stages.{s}.layers.{b}.shortcut.convolution", "layer{s1}.{b}.downsample.0"),
    ("encoder.stages.{s}.layers.{b}.shortcut.normalization", "layer{s1}.{b}.downsample.1"),
)
CONVENTIONS = {
    # Also of timm's residual networks.
    "torchvision": (*_TORCHVISION, *_VGG, ("classifier.{i}", "classifier.{i}")),
    # akamaster/pytorch_resnet_cifar10, kuangliu/pytorch-cifar
    "CIFAR, head named linear": (
        ("linear", "fc"), ("layer{s}.{b}.shortcut.{i}", "layer{s}.{b}.downsample.{i}"), *_TORCHVISION
    ),
    "timm": (
        *_VGG, ("pre_logits.fc1", "classifier.0"), ("pre_logits.fc2", "classifier.3"), ("head.fc", "classifier.6")
    ),
    "Hugging Face transformers": (
        *((f"resnet.{theirs}", ours) for theirs, ours in _TRANSFORMERS), ("classifier.1", "fc")
    ),
    "Hugging Face transformers, without its classifier": _TRANSFORMERS,
}  # fmt: skip

# What follows a prefix such as "module." (DataParallel), "_orig_mod." (torch.compile) or "backbone.".
_PREFIX = re.compile(
    r"((?:[^.]+\.)*?)(?:conv1|bn1|layer\d+\.\d+|fc|linear|features\.\d+|pre_logits|resnet\.(?:embedder|encoder)"
    r"|embedder|encoder\.stages|classifier\.\d+)\."
)


class Translation(NamedTuple):
    """A file's names, translated into torchvision's."""

    convention: str
    prefix: str  # common prefix of the names in the file, such as "module."; "" without a prefix
    names: dict[str, str]  # torchvision's name -> name in the file
    others: tuple[str, ...]  # names in the file that the convention lacks, or whose translation another name has


def translate(names: Iterable[str]) -> Translation | None:
    """Translates names by the convention that has most of them, after the most frequent prefix.

    Returns None if no convention has any of the names.
    """
    names = list(names)
    prefixes = Counter(match[1] for match in map(_PREFIX.match, names) if match)
    if not prefixes:
        return None
    prefix = prefixes.most_common(1)[0][0]
    # max takes the first of equals: torchvision
    found = max((_by(convention, prefix, names) for convention in CONVENTIONS), key=lambda found: len(found.names))
    return found if found.names else None


def _by(convention: str, prefix: str, names: list[str]) -> Translation:
    known: dict[str, str] = {}
    others = []
    for name in names:
        ours = torchvisions_name(name.removeprefix(prefix), convention) if name.startswith(prefix) else None
        if ours is None or ours in known:
            others.append(name)
        else:
            known[ours] = name
    return Translation(convention, prefix, known, tuple(others))


def torchvisions_name(name: str, convention: str) -> str | None:
    """The name of a weight, bias or statistic in torchvision's networks; None if no rule of the convention fits."""
    part, _, held = name.rpartition(".")
    if held not in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        return None
    for theirs, ours in CONVENTIONS[convention]:
        if match := _pattern(theirs).fullmatch(part):
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            after = {f"{key}1": number + 1 for key, number in numbers.items()}
            return f"{ours.format(**numbers, **after)}.{held}"
    return None


@cache
def _pattern(rule: str) -> re.Pattern[str]:
    # Up to four digits, without leading zeros: no block has more, and names stay unique.
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>0|[1-9][0-9]{0,3})", re.escape(rule)))


def _translation(file: WeightFile, names: list[str]) -> Translation:
    """Translates the file's names.  Raises WeightsMismatch for transformed weights and for unknown names."""
    if reason := _transformed(names, {name: file.stored.get(name, "float32") for name in names}):
        raise WeightsMismatch(f"{file.path} does not fit any network of minires: {plain(reason)}")
    found = translate(names)
    firsts = {"conv1.weight", "features.0.weight"}
    if found is None or not firsts & found.names.keys() or 2 * len(found.names) < len(names):
        kind = _kind_of_network(names, {}, {}) or "its names are not those of torchvision, timm or transformers"
        listed = ", ".join(quoted(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
        raise WeightsMismatch(f"{file.path} does not look like a network of minires: {kind} ({listed})")
    return found


# Shapes: from shapes to a network and its options

_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:conv|bn|downsample)")


def _flattened(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The network's shape: timm's VGG holds linear layers as convolutions, (O, C, H, W) for (O, C·H·W)."""
    return (shape[0], math.prod(shape[1:])) if name.startswith("classifier.") and len(shape) == 4 else shape


def _outline(shapes: Shapes) -> Outline:
    if any(name.startswith("features.") for name in shapes):
        kind, counts = "convolution", _convolutions(shapes)
    else:
        kind = "bottleneck" if any(name.endswith(".conv3.weight") for name in shapes) else "basic"
        found = {(int(match[1]), int(match[2])) for match in map(_BLOCK.match, shapes) if match}
        blocks = Counter(stage for stage, _ in found)
        counts = tuple(blocks[stage] for stage in sorted(blocks))

    def distance(name: str) -> int:
        ours = models.stages(name)[1]
        return sum(abs(a - b) for a, b in zip_longest(counts, ours, fillvalue=0)) + abs(len(counts) - len(ours))

    alike = [name for name in models.names() if models.stages(name)[0] == kind and not name.startswith("plain")]
    last = shapes.get("fc.weight", shapes.get("classifier.6.weight", ()))
    width, outputs = ((*shape, 0)[0] for shape in (shapes.get("conv1.weight", ()), last))
    return Outline(min(alike, key=distance), kind, counts, width, outputs)


def _convolutions(shapes: Shapes) -> tuple[int, ...]:
    """The number of convolutions in each stage of a VGG.

    The numbers of two convolutions are further apart if a pooling layer, and so the end of a stage, lies between them.
    """
    numbers = sorted(
        int(name.split(".")[1])
        for name, shape in shapes.items()
        if name.startswith("features.") and name.endswith(".weight") and len(shape) == 4
    )
    gap = 3 if _vgg_has_batch_norm(shapes) else 2  # convolution, batch norm, ReLU
    counts = [1]
    for before, after in pairwise(numbers):
        if after - before > gap:
            counts.append(0)
        counts[-1] += 1
    return tuple(counts)


def _options(network: str, shapes: Shapes) -> dict[str, Any]:
    """The options of `network` that the shapes reveal."""
    first = shapes.get("conv1.weight", shapes.get("features.0.weight", ()))
    vgg = models.stages(network)[0] == "convolution"
    last = shapes.get("classifier.6.weight" if vgg else "fc.weight", ())
    hidden = shapes.get("classifier.0.weight", ())
    found: dict[str, Any] = {"in_channels": first[1], "width": first[0]} if len(first) == 4 else {}
    found |= {"num_classes": last[0]} if len(last) == 2 else {}
    found |= {"hidden": hidden[0]} if len(hidden) == 2 else {}
    found["batch_norm"] = _vgg_has_batch_norm(shapes) if vgg else any(name.startswith("bn1.") for name in shapes)
    # A: no block has a projection.  C: all blocks have one.  B: some have one, usually where dimensions increase.
    projected = {match[0] for name in shapes if (match := re.match(r"layer\d+\.\d+\.(?=downsample)", name))}
    blocks = sum(models.stages(network)[1])
    found["shortcut"] = "A" if not projected else "C" if len(projected) == blocks else "B"
    return {name: value for name, value in found.items() if name in models.options(network)}


def _vgg_has_batch_norm(shapes: Shapes) -> bool:
    return any(name.startswith("features.") and name.endswith(".running_mean") for name in shapes)


# Unsupported: other networks of similar names, and transformed weights

_TRANSFORMED = (
    (r"_packed_params|(^|[._])(zero_point|qweight|qzeros|absmax|quant_map|quant_state|weight_packed)\b",
     "its weights are quantised: minires reads floating-point ones"),
    (r"\.weight_[gv]$|\.parametrizations\.", "its weights are parametrised (weight norm): remove that before saving"),
    (r"\.weight_(orig|mask)$", "its weights are pruned: make that permanent before saving"),
    (r"\blora_[AB]\b", "it holds low-rank adapters (LoRA), not a network: merge them first"),
)  # fmt: skip
_OTHER_NETWORKS = (
    (r"layer\d+\.\d+\.se\.", "squeeze-and-excitation: an SENet"),
    (r"layer\d+\.\d+\.(attn|attention|ca|sa)\.", "attention in its blocks"),
    (r"conv1\.3\.weight$", "a stem of several convolutions: a ResNet-C or -D"),
    (r"layer\d+\.\d+\.downsample\.2\.", "average pooling before its projections: a ResNet-D"),
    (r"layer\d+\.\d+\.conv\d\.bias$", "biases in its convolutions: batch norms that were folded into them"),
    (r"layer\d+\.\d+\.residual_function\.", "blocks named residual_function, as in weiaicunzai/pytorch-cifar100"),
    (r"(^|\.)denseblock\d", "a DenseNet"),
    (r"(^|\.)blocks\.\d+\.attn\.|(^|\.)encoder\.layers?\.", "a transformer"),
)


def _first_match(names: Iterable[str], table: Sequence[tuple[str, str]]) -> str:
    return next((text for name in names for pattern, text in table if re.search(pattern, name)), "")


def _transformed(names: list[str], stored: Mapping[str, str]) -> str:
    """The reason why these are not plain weights, or ""; `stored` maps names to data types in the file."""
    if reason := _first_match(names, _TRANSFORMED):
        return reason
    for name, dtype in stored.items():
        if not dtype.startswith(("float", "bfloat")) and not name.endswith("num_batches_tracked"):
            return f"{name} is {dtype}: minires reads floating-point weights"
    return ""


def _kind_of_network(names: Iterable[str], shapes: Shapes, wanted: Shapes) -> str:
    """The unsupported kind of network that names and shapes suggest, or ""."""
    if kind := _first_match(names, _OTHER_NETWORKS):
        return kind
    for name, shape in shapes.items():
        ours = wanted.get(name, ())
        if name.endswith(".conv2.weight") and len(shape) == len(ours) == 4 and shape != ours:
            if shape[1] < min(shape[0], ours[1]):
                return "grouped convolutions: a ResNeXt"
            if shape[0] > ours[0] and name.replace("conv2", "conv3") in shapes:
                return "wider 3×3 convolutions within its bottlenecks: a wide ResNet"
    return ""
