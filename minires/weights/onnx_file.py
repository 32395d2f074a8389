"""A network as an ONNX file.

Batch norm stays a node of its own: whoever reads the file may fold it, as onnxruntime does (or `model.fuse()` before).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minires._checks import LARGEST_SIZE, instance, integer, mapping
from minires._repr import shown
from minires.nn import Module
from minires.weights.recording import Constant, Named, Recording, Result, Source, Step, record

OPSET = 17
IR_VERSION = 8  # goes with the opset: a newer onnx would write one that an older reader does not know


class OnnxMissing(ImportError):
    """The package onnx is not installed."""

    def __init__(self) -> None:
        super().__init__("ONNX files need the package onnx: pip install 'minires[export]'")


def exported(
    model: Module,
    shape: tuple[int, int, int],
    batch: int | None = None,
    *,
    name: str = "network",
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The model in evaluation mode on images of `shape` (C, H, W), as the bytes of an ONNX file.

    batch      how many images the file takes at a time; None: any number
    name       of the graph
    metadata   what else the file says about itself

    Input "images" (batch, C, H, W), output "logits"; the weights have their state-dict names.
    Raises OnnxMissing, and ValueError that names the operation and the module where there is no translation.
    """
    instance(model, "model", Module)
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shown(shape)}")
    C, H, W = (integer(n, "shape", 1, LARGEST_SIZE) for n in shape)
    shape = (C, H, W)
    batch = None if batch is None else integer(batch, "batch", 1, LARGEST_SIZE)
    instance(name, "name", str)
    if metadata is not None and not all(
        isinstance(text, str) for pair in mapping(metadata, "metadata", "names to text").items() for text in pair
    ):
        raise TypeError(f"metadata must map names to text, got {shown(metadata)}")
    try:
        import onnx
    except ImportError:
        raise OnnxMissing from None
    from onnx import helper

    from minires import __version__

    recording = record(model, shape)
    graph = Graph(recording)
    logits = graph.translate()
    type_ = helper.np_dtype_to_tensor_dtype(recording.dtype)
    axis = "batch" if batch is None else batch
    place = recording.output.place
    one, two = recording.steps[place].shapes if place >= 0 else ((1, *shape), (2, *shape))
    sizes = [a if a == b else axis if (a, b) == (1, 2) else None for a, b in zip(one, two, strict=True)]
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info("images", type_, (axis, *shape))],
        [helper.make_tensor_value_info(logits, type_, sizes)],
        graph.arrays,
    )
    content = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minires",
        producer_version=__version__,
    )
    helper.set_model_props(content, dict(metadata or {}))
    serialized: bytes = content.SerializeToString()
    onnx.checker.check_model(serialized, full_check=True)
    return serialized


class Graph:
    """The nodes of the file in the order they are computed, and the arrays that they read."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.dtype = recording.dtype
        self.values: dict[Result | Named, str] = {Result(-1): "images"}
        self.taken = {"images", "logits"}
        self.scope = ""  # of the names of what is being translated

    def translate(self) -> str:
        """Every operation that the output depends on; returns the output's name."""
        from minires.weights.onnx_operations import TRANSLATIONS

        for place in sorted(self._needed()):
            step = self.recording.steps[place]
            if step.node.name not in TRANSLATIONS:
                raise step.refuse("it has no translation into ONNX")
            self.scope = f"{step.node.module}/{step.node.name}" if step.node.module else step.node.name
            self.values[Result(place)] = TRANSLATIONS[step.node.name](step, self)
        self.scope = "logits"
        last = self.values[self.recording.output]
        if not self.nodes or last != self.nodes[-1].output[0]:
            last = self.node("Identity", [last])
        self.nodes[-1].output[0] = "logits"
        return "logits"

    def _needed(self) -> set[int]:
        needed: set[int] = set()
        waiting = [self.recording.output.place]
        while waiting:
            place = waiting.pop()
            if place >= 0 and place not in needed:
                needed.add(place)
                sources = self.recording.steps[place].sources
                waiting.extend(source.place for source in sources if isinstance(source, Result))
        return needed

    def inputs(self, step: Step) -> list[str]:
        """The names of what an operation reads, those of absent inputs at the end left out."""
        return [self.value(source) for source in step.sources if source is not None]

    def value(self, source: Source) -> str:
        if isinstance(source, Constant):
            return self.constant("constant", source.array)
        if source not in self.values:
            assert isinstance(source, Named)
            self.values[source] = self._array(source.name, self.recording.state[source.name])
        return self.values[source]

    def statistic(self, array: Any) -> str:
        """A running statistic, which an operation has as an option."""
        names = (name for name, own in self.recording.state.items() if own is array)
        return self.value(next(map(Named, names), Constant(array)))

    def constant(self, label: str, array: Any) -> str:
        """An array that the operation being translated needs; returns its name."""
        return self._array(self._unique(f"{self.scope}/{label}"), array)

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """A node of the file, with one output, whose name is returned."""
        from onnx import helper

        output = self._unique(self.scope)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def shape(self, source: Source | None) -> tuple[int, ...]:
        """Of a result or an array, for one image."""
        assert source is not None
        if isinstance(source, Result):
            steps = self.recording.steps
            return steps[source.place].shapes[0] if source.place >= 0 else (1, *self.recording.shape)
        return self.recording.state[source.name].shape if isinstance(source, Named) else source.array.shape

    def _array(self, name: str, array: Any) -> str:
        from onnx import numpy_helper

        self.arrays.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found
