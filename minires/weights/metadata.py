"""What minires writes into the metadata of a safetensors file, and reads out of it again.

minires         version of this layout
network         "resnet50"
options         all options of `models.create`, as JSON
preprocessing   what a picture goes through first, as JSON; a mean image as base64 of float32, little-endian
classes         their names, as JSON
assumed         "network" and options that nobody had said, but `convert` took for granted, as JSON.  Older files lack
                it, and hold such options as if they were known
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires import models
from minires._checks import iterable, mapping
from minires._repr import shown
from minires.weights.file import WeightsError, quoted
from minires.weights.told import Told

VERSION = "1"
# Of the text of a mean image; the reader takes headers of 4 MiB.
_LARGEST = 3 << 20


def encode(
    network: str,
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    assumed: Sequence[str] = (),
) -> dict[str, str]:
    """The metadata of a file.  Options that are not given are written with their defaults.

    assumed   "network" and names of options that are a guess, to be marked as such

    Raises ValueError or TypeError for what `models.create` would not take, or what is too large for a header.
    """
    allowed = models.options(network)
    if preprocessing is not None:
        mapping(preprocessing, "preprocessing", "names to values")
    classes = None if classes is None else iterable(classes, "classes", "names")
    for name in mapping(options, "options", "names to values"):
        if name not in allowed:
            raise ValueError(f"options: {network} has no option {shown(name)}; it has {', '.join(allowed)}")
    # transformers reads no safetensors file without "format"
    told = {"format": "pt", "minires": VERSION, "network": network, "options": json.dumps(allowed | dict(options))}
    if preprocessing:
        told["preprocessing"] = json.dumps({name: _plain(value) for name, value in preprocessing.items()})
    if classes is not None:
        if len(classes) != (allowed | dict(options))["num_classes"]:
            raise ValueError(f"classes names {len(classes):,}, options have {options.get('num_classes')}")
        told["classes"] = json.dumps(list(classes))
    if assumed:
        told["assumed"] = json.dumps(list(assumed))
    if sum(map(len, told.values())) > _LARGEST:
        raise ValueError(
            "preprocessing and classes take more than a safetensors header can hold: a mean image of 512×512?"
        )
    return told


def decode(metadata: Mapping[str, str]) -> Told | None:
    """None for a file that minires did not write.  Raises WeightsError where it did, but nothing like this."""
    if "minires" not in metadata:
        return None
    if metadata["minires"] != VERSION:
        version = quoted(metadata["minires"])
        raise WeightsError(f"its metadata have version {version} of minires' layout; this minires reads {VERSION!r}")
    network = metadata.get("network")
    if network not in models.names():
        raise WeightsError(f"its metadata name the network {quoted(network)}; known are {', '.join(models.names())}")
    options = _json(metadata, "options", dict) or {}
    for name in options:
        if name not in models.options(network):
            raise WeightsError(f"its metadata name an option {quoted(name)}, which {network} does not have")
    classes = _json(metadata, "classes", list)
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise WeightsError("its metadata name classes that are no text")
    assumed = _json(metadata, "assumed", list) or []
    if not all(name in ("network", *options) for name in assumed):
        raise WeightsError("its metadata hold assumed that names what is not in them")
    preprocessing = _json(metadata, "preprocessing", dict) or {}
    return Told(
        "its metadata",
        network,
        options,
        {name: _array(value) if isinstance(value, dict) else value for name, value in preprocessing.items()},
        None if classes is None else tuple(classes),
        assumed=tuple(assumed),
    )


def _json(metadata: Mapping[str, str], key: str, kind: type) -> Any:
    if key not in metadata:
        return None
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise WeightsError(f"its metadata hold {key} that is no {'object' if kind is dict else 'list'} in JSON")
    return value


def _plain(value: Any) -> Any:
    """Numbers of a channel each as a list, a mean image as {"shape": ..., "float32": base64}."""
    array = np.asarray(value)
    if array.ndim < 2:
        return array.tolist()
    content = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(content).decode()}


def _array(value: Mapping[str, Any]) -> Any:
    try:
        shape = [int(n) for n in value["shape"]]
        content = base64.b64decode(value["float32"], validate=True)
        if len(shape) != 3 or min(shape) < 1 or len(content) != 4 * math.prod(shape):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        raise WeightsError("its metadata hold a mean image that is none") from None
    return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)
