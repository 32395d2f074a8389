"""Hints about a weight file's network that its names and shapes don't reveal.

They come from the metadata that minires writes into safetensors files, and from the configurations that Hugging Face's
hub stores beside its weight files: config.json and preprocessor_config.json.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minires import models
from minires._checks import iterable, mapping
from minires._repr import shown
from minires.weights.weight_file import WeightsError, quoted


@dataclass(frozen=True)
class Hints:
    source: str = ""  # "its metadata" or "config.json"
    network: str | None = None  # one of `models.names()`; None if the source doesn't name it
    options: dict[str, Any] = field(default_factory=dict)  # options of `models.create`
    preprocessing: dict[str, Any] = field(default_factory=dict)  # resize, crop, mean, std, interpolation, grey
    classes: tuple[str, ...] | None = None  # names of the classes in the order of the outputs
    unsupported: str = ""  # reason why minires lacks this network even if its names and shapes fit
    notes: tuple[str, ...] = ()  # notes for the user, each in a line


class Outline(NamedTuple):
    """What a file's shapes reveal of its network."""

    nearest: str  # the most similar network of `models.names()`
    kind: str  # "basic", "bottleneck" or "convolution"
    counts: tuple[int, ...]  # blocks in each stage; () without blocks
    width: int  # filters of the first convolution
    outputs: int  # of the last layer; 0 where it is missing


# Metadata of minires in a safetensors file, each entry a text
#
#     minires         version of this layout
#     network         "resnet50"
#     options         all options of `models.create`, as JSON
#     preprocessing   as JSON; a mean image as base64 of float32, little-endian
#     classes         names of the classes, as JSON
#     assumed         "network" and options that `convert` assumed, as JSON; missing in older files

VERSION = "1"
LARGEST_METADATA = 3 << 20  # characters; the reader takes headers of 4 MiB


def encode(
    network: str,
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    assumed: Sequence[str] = (),
) -> dict[str, str]:
    """The metadata of a file.  Options that are not given are written with their defaults.

    Raises ValueError or TypeError for arguments that `models.create` rejects or that are too large for a header.
    """
    defaults = models.options(network)
    for name in mapping(options, "options", "names to values"):
        if name not in defaults:
            raise ValueError(f"options: {network} has no option {shown(name)}; it has {', '.join(defaults)}")
    options = defaults | dict(options)
    # transformers reads no safetensors file without "format"
    metadata = {"format": "pt", "minires": VERSION, "network": network, "options": json.dumps(options)}
    if preprocessing is not None and mapping(preprocessing, "preprocessing", "names to values"):
        metadata["preprocessing"] = json.dumps({name: _as_json(value) for name, value in preprocessing.items()})
    if classes is not None:
        classes = iterable(classes, "classes", "names")
        if len(classes) != options["num_classes"]:
            raise ValueError(f"classes names {len(classes):,}, options have {options['num_classes']}")
        metadata["classes"] = json.dumps(classes)
    if assumed:
        metadata["assumed"] = json.dumps(list(assumed))
    if sum(map(len, metadata.values())) > LARGEST_METADATA:
        raise ValueError(
            "preprocessing and classes take more than a safetensors header can hold: a mean image of 512×512?"
        )
    return metadata


def decode(metadata: Mapping[str, str]) -> Hints | None:
    """The hints in a file's metadata; None for a file that minires did not write.

    Leaves out options that `convert` assumed: `recognise` assumes them again unless the caller passes them.
    Raises WeightsError for an invalid layout.
    """
    if "minires" not in metadata:
        return None
    if metadata["minires"] != VERSION:
        version = quoted(metadata["minires"])
        raise WeightsError(f"its metadata have version {version} of minires' layout; this minires reads {VERSION!r}")
    network = metadata.get("network")
    if network not in models.names():
        raise WeightsError(f"its metadata name the network {quoted(network)}; known are {', '.join(models.names())}")
    options = _from_json(metadata, "options", dict) or {}
    for name in options:
        if name not in models.options(network):
            raise WeightsError(f"its metadata name an option {quoted(name)}, which {network} does not have")
    classes = _from_json(metadata, "classes", list)
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise WeightsError("its metadata: classes must be text")
    assumed = _from_json(metadata, "assumed", list) or []
    if not all(name in ("network", *options) for name in assumed):
        raise WeightsError('its metadata: assumed must hold "network" or names of its options')
    pictures = _from_json(metadata, "preprocessing", dict) or {}
    pictures = {name: _mean_image(value) if isinstance(value, dict) else value for name, value in pictures.items()}
    known = {name: value for name, value in options.items() if name not in assumed}
    names = None if classes is None else tuple(classes)
    return Hints("its metadata", None if "network" in assumed else network, known, pictures, names)


def _from_json(metadata: Mapping[str, str], key: str, kind: type) -> Any:
    if key not in metadata:
        return None
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise WeightsError(f"its metadata: {key} must be {'an object' if kind is dict else 'a list'} in JSON")
    return value


def _as_json(value: Any) -> Any:
    """A list for one number per channel, {"shape": ..., "float32": base64} for a mean image."""
    array = np.asarray(value)
    if array.ndim < 2:
        return array.tolist()
    content = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(content).decode()}


def _mean_image(value: Mapping[str, Any]) -> Any:
    try:
        shape = [int(n) for n in value["shape"]]
        content = base64.b64decode(value["float32"], validate=True)
        if len(shape) != 3 or min(shape) < 1 or len(content) != 4 * math.prod(shape):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        raise WeightsError("its metadata: malformed mean image") from None
    return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)


# Configurations of Hugging Face's hub

LARGEST_CONFIG = 16 << 20  # bytes; the names of 21,841 classes take one or two million
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def from_transformers(path: Path, outline: Outline) -> Hints | None:
    """The hints in the config.json of a ResNet of Hugging Face transformers; None without such a file.

    Ignores a configuration that does not fit the weight file's network, and adds a note.
    Raises WeightsError for invalid JSON.
    """
    config = _read(path.with_name("config.json"))
    if config is None or config.get("model_type") != "resnet":
        return None
    bottleneck = outline.kind == "bottleneck"
    sizes = [outline.width * 2**stage * (4 if bottleneck else 1) for stage in range(len(outline.counts))]
    for key, default, found in (
        ("layer_type", "bottleneck", outline.kind),
        ("depths", [3, 4, 6, 3], list(outline.counts)),
        ("embedding_size", 64, outline.width),
        ("hidden_sizes", [256, 512, 1024, 2048], sizes),
    ):
        if (described := config.get(key, default)) != found:
            described, found = quoted(described), quoted(found)
            note = f"config.json is ignored: it has {key} {described}, the file holds {found}"
            return Hints("config.json", notes=(note,))
    for key, default, ours in (("downsample_in_first_stage", False, "none"), ("hidden_act", "relu", "'relu'")):
        if config.get(key, default) != default:
            reason = f"config.json has {key} {quoted(config[key])}; minires has {ours}"
            return Hints("config.json", unsupported=reason)
    stride_in = "1x1" if config.get("downsample_in_bottleneck", False) else "3x3"
    pictures, notes = _convnext_pictures(_read(path.with_name("preprocessor_config.json")))
    labels = config.get("id2label")
    names = [labels.get(str(n)) for n in range(len(labels))] if isinstance(labels, dict) else None
    if names == [f"LABEL_{n}" for n in range(outline.outputs)]:  # transformers' placeholders
        names = None
    options = {"stride_in": stride_in} if bottleneck else {}
    return Hints("config.json", None, options, pictures, _class_names(names, outline), notes=notes)


def from_timm(path: Path, outline: Outline) -> Hints | None:
    """The hints in the config.json of a network of timm; None without such a file."""
    config = _read(path.with_name("config.json"))
    if config is None or not isinstance(config.get("architecture"), str):
        return None
    architecture = config["architecture"]
    known = re.fullmatch(r"(?:tv_)?(resnet(?:18|34|50|101|152)|vgg1[69])(?:_bn)?", architecture)
    if known is None:
        # resnetaa50 and resnetblur50 have the names and shapes of resnet50, but compute something else.
        reason = f"config.json describes timm's {quoted(architecture)}, which minires does not have"
        return Hints("config.json", unsupported=reason)
    if known[1] != outline.nearest:
        note = f"config.json is ignored: it describes a {architecture}, the file holds a {outline.nearest}"
        return Hints("config.json", notes=(note,))
    options = {"stride_in": "3x3"} if outline.kind == "bottleneck" else {}
    pretrained = config.get("pretrained_cfg")
    pretrained = pretrained if isinstance(pretrained, dict) else {}
    names = config.get("label_names", pretrained.get("label_names"))
    return Hints("config.json", None, options, _timm_pictures(pretrained), _class_names(names, outline))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if not path.is_file():
            return None
        if (size := path.stat().st_size) > LARGEST_CONFIG:
            raise WeightsError(f"{path.name} beside it has {size:,} bytes, at most {LARGEST_CONFIG:,} are read")
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise WeightsError(f"{path.name} beside it is not valid JSON") from None
    return value if isinstance(value, dict) else None


def _convnext_pictures(config: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The preprocessing of ConvNextImageProcessor, which transformers uses for ResNets, and notes.

    It scales the shorter side to size / crop_pct and crops size × size pixels from the centre.
    """
    if config is None:
        return {}, ()
    kind = config.get("image_processor_type", config.get("feature_extractor_type"))
    size = config.get("size")
    edge = _number(size.get("shortest_edge") if isinstance(size, dict) else size)
    crop = _number(config.get("crop_pct", 224 / 256))
    usual = isinstance(kind, str) and kind.startswith("ConvNext")
    usual = usual and all(config.get(f"do_{step}", True) is True for step in ("resize", "rescale", "normalize"))
    usual = usual and abs(_number(config.get("rescale_factor", 1 / 255)) - 1 / 255) < 1e-9
    # From size 384 on, the processor does not crop: it resizes the picture to a square.
    if not usual or not 1 <= edge < 384 or edge != int(edge) or not 0.01 <= crop <= 1:
        note = f"preprocessor_config.json is ignored: minires does not have its preprocessing, {quoted(kind)}"
        return {}, (note,)
    found: dict[str, Any] = {"resize": int(edge / crop), "crop": int(edge)}
    found |= _normalisation(config.get("image_mean"), config.get("image_std"))
    if isinstance(config.get("resample"), int) and config["resample"] in INTERPOLATIONS:
        found["interpolation"] = INTERPOLATIONS[config["resample"]]
    return found, ()


def _timm_pictures(config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's preprocessing: scales the shorter side to ⌊input_size / crop_pct⌋, crops input_size from the centre."""
    size, crop = config.get("input_size"), config.get("crop_pct", 0.875)
    found: dict[str, Any] = {}
    if isinstance(size, list) and len(size) == 3 and size[1] == size[2] and isinstance(size[1], int):
        if config.get("crop_mode", "center") == "center" and 0 < _number(crop) <= 1 and 0 < size[1] < 2**14:
            found = {"resize": math.floor(size[1] / crop), "crop": size[1]}
        if isinstance(config.get("interpolation"), str):
            found["interpolation"] = config["interpolation"]
    return found | _normalisation(config.get("mean"), config.get("std"))


def _normalisation(mean: Any, std: Any) -> dict[str, Any]:
    return {
        name: tuple(map(float, value))
        for name, value in {"mean": mean, "std": std}.items()
        if isinstance(value, list) and value and all(math.isfinite(_number(n)) for n in value)
    }


def _number(value: Any) -> float:
    """The value as a float; NaN if it is not a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if number else math.nan


def _class_names(names: Any, outline: Outline) -> tuple[str, ...] | None:
    valid = isinstance(names, list) and len(names) == outline.outputs and all(isinstance(name, str) for name in names)
    return tuple(names) if valid else None
