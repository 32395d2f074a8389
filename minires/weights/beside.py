"""config.json and preprocessor_config.json, which Hugging Face's hub has beside its weight files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.weights import structure
from minires.weights.file import WeightsError, quoted
from minires.weights.structure import Shapes
from minires.weights.told import Told

_LARGEST = 16 << 20  # bytes; the names of 21,841 classes take one or two million
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def transformers(path: Path, shapes: Shapes) -> Told | None:
    """What the configuration of a ResNet of Hugging Face transformers says; None where none is beside the file.

    One that describes another network than the file holds is passed over, with a note.
    Raises WeightsError for one that is broken.
    """
    config = _read(path.with_name("config.json"))
    if config is None or config.get("model_type") != "resnet":
        return None
    kind, counts = structure.stages(shapes)
    width = shapes.get("conv1.weight", (0,))[0]
    sizes = [width * 2**stage * (4 if kind == "bottleneck" else 1) for stage in range(len(counts))]
    for key, default, ours in (
        ("layer_type", "bottleneck", kind),
        ("depths", [3, 4, 6, 3], list(counts)),
        ("embedding_size", 64, width),
        ("hidden_sizes", [256, 512, 1024, 2048], sizes),
    ):
        theirs = config.get(key, default)
        if theirs != ours:
            note = (
                f"config.json says {key} {quoted(theirs)}, the file holds {quoted(ours)}: it describes another network"
            )
            return Told("config.json", notes=(note,))
    for key, default, theirs in (("downsample_in_first_stage", False, "none"), ("hidden_act", "relu", "'relu'")):
        if config.get(key, default) != default:
            return Told("config.json", refused=f"config.json says {key} {quoted(config[key])}; minires has {theirs}")
    stride_in = "1x1" if config.get("downsample_in_bottleneck", False) else "3x3"
    options = {"stride_in": stride_in} if kind == "bottleneck" else {}
    pictures, notes = _pictures(_read(path.with_name("preprocessor_config.json")))
    return Told("config.json", None, options, pictures, _classes(config.get("id2label"), shapes), notes=notes)


def timm(path: Path, shapes: Shapes) -> Told | None:
    """What the configuration of a network of timm says; None where none is beside the file."""
    config = _read(path.with_name("config.json"))
    if config is None or not isinstance(config.get("architecture"), str):
        return None
    architecture = config["architecture"]
    known = re.fullmatch(r"(?:tv_)?(resnet(?:18|34|50|101|152)|vgg1[69])(?:_bn)?", architecture)
    if known is None:
        # resnetaa50 and resnetblur50 have the names and shapes of resnet50, and compute something else.
        told = f"config.json says that it is timm's {quoted(architecture)}, which is no network of minires"
        return Told("config.json", refused=told)
    if known[1] != structure.nearest(shapes):
        note = f"config.json says that it is a {architecture}, the file holds a {structure.nearest(shapes)}"
        return Told("config.json", notes=(f"{note}: it describes another network",))
    options = {"stride_in": "3x3"} if structure.stages(shapes)[0] == "bottleneck" else {}
    said = config.get("pretrained_cfg")
    names = config.get("label_names", said.get("label_names") if isinstance(said, dict) else None)
    return Told(
        "config.json",
        None,
        options,
        _timm_pictures(said) if isinstance(said, dict) else {},
        _names(names, shapes) if isinstance(names, list) else None,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST:
            raise WeightsError(
                f"{path.name} beside it has {path.stat().st_size:,} bytes, at most {_LARGEST:,} are read"
            )
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise WeightsError(f"{path.name} beside it is no valid JSON") from None
    return value if isinstance(value, dict) else None


def _pictures(config: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Of ConvNextImageProcessor, which ResNets have there: the shorter side is scaled to size / crop_pct, then cut."""
    if config is None:
        return {}, ()
    kind = config.get("image_processor_type", config.get("feature_extractor_type"))
    size = config.get("size")
    edge = _number(size.get("shortest_edge") if isinstance(size, dict) else size)
    crop = _number(config.get("crop_pct", 224 / 256))
    usual = isinstance(kind, str) and kind.startswith("ConvNext")
    usual = usual and all(config.get(f"do_{step}", True) is True for step in ("resize", "rescale", "normalize"))
    usual = usual and abs(_number(config.get("rescale_factor", 1 / 255)) - 1 / 255) < 1e-9
    # From 384 on nothing is cut off, and the picture is squeezed into a square.
    if not usual or not 1 <= edge < 384 or edge != int(edge) or not 0.01 <= crop <= 1:
        told = f"preprocessor_config.json asks for a {quoted(kind)} that minires does not have: it is not followed"
        return {}, (told,)
    found: dict[str, Any] = {"resize": int(edge / crop), "crop": int(edge)}
    found |= _normalisation(config.get("image_mean"), config.get("image_std"))
    interpolation = _INTERPOLATIONS.get(config["resample"]) if isinstance(config.get("resample"), int) else None
    return found | ({"interpolation": interpolation} if interpolation else {}), ()


def _timm_pictures(config: Mapping[str, Any]) -> dict[str, Any]:
    """The shorter side is scaled to input_size / crop_pct, rounded down, and input_size cut from the centre."""
    size, crop = config.get("input_size"), config.get("crop_pct", 0.875)
    found: dict[str, Any] = {}
    if isinstance(size, list) and len(size) == 3 and size[1] == size[2] and isinstance(size[1], int):
        if config.get("crop_mode", "center") == "center" and 0 < _number(crop) <= 1 and 0 < size[1] < 2**14:
            found = {"resize": math.floor(size[1] / crop), "crop": size[1]}
        if isinstance(config.get("interpolation"), str):
            found["interpolation"] = config["interpolation"]
    return found | _normalisation(config.get("mean"), config.get("std"))


def _normalisation(mean: Any, std: Any) -> dict[str, Any]:
    given = {"mean": mean, "std": std}
    return {
        name: tuple(float(n) for n in value)
        for name, value in given.items()
        if isinstance(value, list) and value and all(math.isfinite(_number(n)) for n in value)
    }


def _number(value: Any) -> float:
    """NaN for what is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _classes(labels: Any, shapes: Shapes) -> tuple[str, ...] | None:
    """Of `id2label`; None for the numbers that transformers writes where there are no names."""
    if not isinstance(labels, dict):
        return None
    names = [labels.get(str(number)) for number in range(len(labels))]
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        return None
    return _names(names, shapes)


def _names(names: list[Any], shapes: Shapes) -> tuple[str, ...] | None:
    fits = len(names) == shapes.get("fc.weight", shapes.get("classifier.6.weight", (0,)))[0]
    return tuple(names) if fits and all(isinstance(name, str) for name in names) else None
