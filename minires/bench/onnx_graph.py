"""A network as an ONNX file, for onnxruntime: the tape of one recorded forward, translated node by node.

Batch norm stays a node of its own: whoever reads the file may fold it, as onnxruntime does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires import backends
from minires.autograd import Function, enable_grad
from minires.nn import Module
from minires.nn.module import evaluating
from minires.tensor import Tensor

OPSET = 17


class _Graph:
    """Nodes in the order they are computed, and the arrays that they read."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names  # id of a leaf -> its name
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def array(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def output(self, parent: Function | Tensor | None) -> str:
        if isinstance(parent, Function):
            return f"{parent.name}_{parent.serial}"
        return self.names[id(parent)]

    def add(self, node: Function) -> None:
        from onnx import helper

        if node.name not in TRANSLATIONS:
            raise ValueError(f"{node!r} has no translation into ONNX")
        kind, more, attributes = TRANSLATIONS[node.name](node, self)
        inputs = [self.output(parent) for parent in node.parents if parent is not None]
        self.nodes.append(helper.make_node(kind, inputs + more, [self.output(node)], **attributes))


Translation = tuple[str, list[str], dict[str, Any]]  # operation, inputs beside the parents, attributes


def _conv2d(node: Any, graph: _Graph) -> Translation:
    pads = [*node.padding, *node.padding]
    return "Conv", [], {"strides": node.stride, "pads": pads, "dilations": node.dilation, "group": node.groups}


def _batch_norm(node: Any, graph: _Graph) -> Translation:
    statistics = [("mean", node.running_mean), ("var", node.running_var)]
    more = [graph.array(f"{graph.output(node)}_{name}", values) for name, values in statistics]
    return "BatchNormalization", more, {"epsilon": node.eps}


def _max_pool(node: Any, graph: _Graph) -> Translation:
    pads = [*node.padding, *node.padding]
    shape = {"kernel_shape": node.kernel, "strides": node.stride, "pads": pads, "dilations": node.dilation}
    return "MaxPool", [], shape | {"ceil_mode": int(node.ceil_mode)}


def _average(node: Any, graph: _Graph) -> Translation:
    output, whole = node.output_shape[2:], node.input_shapes[0][2:]
    if output == (1, 1):
        return "GlobalAveragePool", [], {}
    if output == whole:
        return "Identity", [], {}
    raise ValueError(f"{node!r} has no translation into ONNX")


def _reshape(node: Any, graph: _Graph) -> Translation:
    if len(node.output_shape) != 2 or node.output_shape[0] != node.input_shapes[0][0]:
        raise ValueError(f"{node!r} has no translation into ONNX")
    return "Flatten", [], {"axis": 1}


def _slice(node: Any, graph: _Graph) -> Translation:
    spans = [s.indices(size) for s, size in zip(node.index, node.input_shapes[0], strict=True)]
    begin, end, step = zip(*spans[1:], strict=True)  # the batch stays whole
    named = {"begin": begin, "end": end, "axes": range(1, len(spans)), "step": step}
    name = graph.output(node)
    return "Slice", [graph.array(f"{name}_{key}", np.array(v, np.int64)) for key, v in named.items()], {}


def _pad(node: Any, graph: _Graph) -> Translation:
    before, after = zip(*node.pad, strict=True)
    name = graph.output(node)
    pads = graph.array(f"{name}_pads", np.array([*before, *after], np.int64))
    return "Pad", [pads, graph.array(f"{name}_value", np.float32(node.value))], {"mode": "constant"}


TRANSLATIONS: dict[str, Callable[[Any, _Graph], Translation]] = {
    "Conv2d": _conv2d,
    "BatchNorm": _batch_norm,
    "ReLU": lambda node, graph: ("Relu", [], {}),
    "Add": lambda node, graph: ("Add", [], {}),
    "MaxPool2d": _max_pool,
    "AdaptiveAvgPool2d": _average,
    "Reshape": _reshape,
    "Linear": lambda node, graph: ("Gemm", [], {"transB": 1}),
    "Slice": _slice,
    "Pad": _pad,
}


def exported(model: Module, shape: tuple[int, int, int, int]) -> bytes:
    """The model in evaluation mode on images of `shape` (N, C, H, W), as the bytes of an ONNX file.

    Input "images", output "logits".  Raises ValueError for an operation that has no translation.
    """
    from onnx import TensorProto, helper

    images = Tensor(np.zeros((1, *shape[1:]), np.float32), requires_grad=True)
    with evaluating(model), backends.backend("reference"), enable_grad():
        logits = model(images)
    parameters = dict(model.named_parameters())
    graph = _Graph({id(images): "images"} | {id(p): name for name, p in parameters.items()})
    for node in _tape(logits.node):
        graph.add(node)
    for name, p in parameters.items():
        graph.array(name, p.data)
    assert logits.node is not None
    graph.nodes[-1].output[0] = "logits"
    made = helper.make_graph(
        graph.nodes,
        "minires",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], *logits.shape[1:]))],
        graph.arrays,
    )
    # The version of the file's form goes with the opset: a newer onnx would write one that onnxruntime can't read yet.
    opset = helper.make_opsetid("", OPSET)
    content: bytes = helper.make_model(made, opset_imports=[opset], ir_version=8).SerializeToString()
    return content


def _tape(last: Function | None) -> list[Function]:
    """Every node that the last one depends on, the oldest first."""
    found: dict[int, Function] = {}
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function) and node.serial not in found:
            found[node.serial] = node
            waiting.extend(node.parents)  # type: ignore[arg-type]
    return [found[serial] for serial in sorted(found)]
