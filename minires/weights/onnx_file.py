"""Exports a network as an ONNX file that computes exactly the same.

Padding is explicit where readers may round sizes differently.  Batch norm stays a separate node, which readers such as
onnxruntime fold; to fold it in the file, call `model.fuse()` before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import minires
from minires._checks import LARGEST_SIZE, instance, integer, mapping
from minires._repr import shown
from minires.nn import Module
from minires.weights.onnx_trace import IMAGES, Source, Step, Trace, trace

OPSET = 17
IR_VERSION = 8  # matches the opset; onnx's default is newer, which older readers reject


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
    """Exports the model in evaluation mode, for images of `shape` (C, H, W); returns the bytes of an ONNX file.

    batch      number of images in a call of the file; None: any number
    name       name of the graph
    metadata   further text entries of the file

    The file's input is "images" (batch, C, H, W), its output "logits"; the weights have their state-dict names.
    Raises OnnxMissing without the package onnx.  Raises ValueError for an operation that cannot be exported; the
    message names the operation and its module.
    """
    instance(model, "model", Module)
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shown(shape)}")
    C, H, W = (integer(n, "shape", 1, LARGEST_SIZE) for n in shape)
    batch = None if batch is None else integer(batch, "batch", 1, LARGEST_SIZE)
    instance(name, "name", str)
    metadata = {} if metadata is None else mapping(metadata, "metadata", "names to text")
    if not all(isinstance(text, str) for text in metadata.values()):
        raise TypeError(f"metadata must map names to text, got {shown(metadata)}")
    try:
        import onnx  # optional: the extra `export`
    except ImportError:
        raise OnnxMissing from None

    traced = trace(model, (C, H, W))
    graph = Graph(traced, onnx)
    logits = graph.translate()
    dtype = onnx.helper.np_dtype_to_tensor_dtype(traced.dtype)
    axis = "batch" if batch is None else batch
    one, two = traced.shapes_of(traced.output)
    sizes = [a if a == b else axis if (a, b) == (1, 2) else None for a, b in zip(one, two, strict=True)]
    content = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            name,
            [onnx.helper.make_tensor_value_info("images", dtype, (axis, C, H, W))],
            [onnx.helper.make_tensor_value_info(logits, dtype, sizes)],
            graph.arrays,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minires",
        producer_version=minires.__version__,
    )
    onnx.helper.set_model_props(content, dict(metadata))
    serialized: bytes = content.SerializeToString()
    onnx.checker.check_model(serialized, full_check=True)
    return serialized


class Graph:
    """The nodes of the file in the order of computation, and their constant arrays."""

    def __init__(self, traced: Trace, onnx: Any) -> None:
        self.trace, self.onnx, self.dtype = traced, onnx, traced.dtype
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.values: dict[int | str, str] = {IMAGES: "images"}  # source -> name in the file
        self.taken = {"images", "logits"}
        self.scope = ""  # the prefix of names in the translation of one step

    def translate(self) -> str:
        """Adds the operations that the output depends on; returns the output's name."""
        needed, waiting = set(), [self.trace.output]
        while waiting:
            number = waiting.pop()
            if number != IMAGES and number not in needed:
                needed.add(number)
                waiting += [source for source in self.trace.steps[number].sources if isinstance(source, int)]
        for number in sorted(needed):
            step = self.trace.steps[number]
            kind, module = step.node.name, step.node.module
            if kind not in TRANSLATIONS:
                raise step.refuse("it has no translation into ONNX")
            self.scope = f"{module}/{kind}" if module else kind
            self.values[number] = TRANSLATIONS[kind](step, self)
        self.scope = "logits"
        last = self.values[self.trace.output]
        if not self.nodes or last != self.nodes[-1].output[0]:
            self.node("Identity", [last])
        self.nodes[-1].output[0] = "logits"
        return "logits"

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        output = self._unique(self.scope)
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def inputs(self, step: Step) -> list[str]:
        """The names of an operation's inputs, without absent ones at the end."""
        return [self.value(source) for source in step.sources if source is not None]

    def value(self, source: Source) -> str:
        if not isinstance(source, int | str):
            return self.constant("constant", source)
        if isinstance(source, str) and source not in self.values:
            self.values[source] = self._array(source, self.trace.state[source])
        return self.values[source]

    def statistic(self, array: Any) -> str:
        """The name of a running statistic, which is an option of its operation rather than an input."""
        return self.value(next((name for name, own in self.trace.state.items() if own is array), array))

    def constant(self, label: str, array: Any) -> str:
        """Adds an array for the operation that is being translated; returns its name."""
        return self._array(self._unique(f"{self.scope}/{label}"), array)

    def integers(self, label: str, numbers: Any) -> str:
        return self.constant(label, np.array(numbers, np.int64))

    def shape(self, step: Step) -> tuple[int, ...]:
        """The shape of the operation's first input for one image."""
        return self.trace.shapes_of(step.sources[0])[0]

    def _array(self, name: str, array: Any) -> str:
        self.arrays.append(self.onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found


# Translations: each takes a step and the graph, adds nodes to the graph, and returns the name of the result

TO_THE_END = 2**63 - 1  # as the end of a slice


def conv2d(step: Step, graph: Graph) -> str:
    node = step.node
    geometry = {"strides": node.stride, "pads": [*node.padding, *node.padding], "dilations": node.dilation}
    return graph.node("Conv", graph.inputs(step), **geometry, group=node.groups)


def batch_norm(step: Step, graph: Graph) -> str:
    node = step.node
    if node.training:
        raise step.refuse("it computes with the batch's own statistics: export a network in evaluation mode")
    x, weight, bias = step.sources
    assert x is not None
    mean, var = (graph.statistic(array) for array in (node.running_mean, node.running_var))
    ones = np.ones(node.running_mean.shape, graph.dtype)
    gamma = graph.constant("ones", ones) if weight is None else graph.value(weight)
    beta = graph.constant("zeros", 0 * ones) if bias is None else graph.value(bias)
    return graph.node("BatchNormalization", [graph.value(x), gamma, beta, mean, var], epsilon=node.eps)


def linear(step: Step, graph: Graph) -> str:
    inputs = graph.inputs(step)
    if len(graph.shape(step)) == 2:
        return graph.node("Gemm", inputs, transB=1)
    x, weight, *bias = inputs
    y = graph.node("MatMul", [x, graph.node("Transpose", [weight], perm=[1, 0])])
    return graph.node("Add", [y, *bias]) if bias else y


def overhang(size: int, output: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The number of elements by which the last window extends beyond the padding."""
    return max((output - 1) * stride + dilation * (kernel - 1) + 1 - size - 2 * padding, 0)


def padded(graph: Graph, x: str, before: Any, after: Any, value: float) -> str:
    """Adds a Pad node; `before` and `after` hold the number of elements added to each axis."""
    pads, constant = graph.integers("pads", [*before, *after]), np.array(value, graph.dtype)
    return graph.node("Pad", [x, pads, graph.constant("value", constant)], mode="constant")


def max_pool(step: Step, graph: Graph) -> str:
    node, (x,) = step.node, graph.inputs(step)
    size, output = graph.shape(step)[2:], step.shapes[0][2:]
    over = list(map(overhang, size, output, node.kernel, node.stride, node.padding, node.dilation))
    pads = [*node.padding, *node.padding]
    if any(over) or any(p >= k for p, k in zip(node.padding, node.kernel, strict=True)):
        after = [p + more for p, more in zip(node.padding, over, strict=True)]
        x, pads = padded(graph, x, (0, 0, *node.padding), (0, 0, *after), -math.inf), [0] * 4
    window = {"kernel_shape": node.kernel, "strides": node.stride, "dilations": node.dilation}
    return graph.node("MaxPool", [x], pads=pads, **window)


def average_pool(step: Step, graph: Graph) -> str:
    node, (x,) = step.node, graph.inputs(step)
    geometry = list(zip(graph.shape(step)[2:], step.shapes[0][2:], node.kernel, node.stride, node.padding, strict=True))
    over = [overhang(*axis) for axis in geometry]
    window = {"kernel_shape": node.kernel, "strides": node.stride}
    if not any(over):
        pads = [*node.padding, *node.padding]
        return graph.node("AveragePool", [x], pads=pads, count_include_pad=int(node.count_include_pad), **window)
    after = [p + more for p, more in zip(node.padding, over, strict=True)]
    y = graph.node("AveragePool", [padded(graph, x, (0, 0, *node.padding), (0, 0, *after), 0.0)], **window)
    counts: list[list[int]] = []  # the elements that count in each window, one list an axis
    for n, o, k, s, p in geometry:
        begin, end = (-p, n + p) if node.count_include_pad else (0, n)
        counts.append([min(i * s - p + k, end) - max(i * s - p, begin) for i in range(o)])
    factor = math.prod(node.kernel) / np.outer(counts[0], counts[1])  # the explicit padding made these means too small
    return graph.node("Mul", [y, graph.constant("factor", factor.astype(graph.dtype))])


def adaptive_average_pool(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    size, output = graph.shape(step)[2:], step.shapes[0][2:]
    if output == (1, 1):
        return graph.node("GlobalAveragePool", [x])
    if output == size:
        return graph.node("Identity", [x])
    if all(n % o == 0 for n, o in zip(size, output, strict=True)):
        window = [n // o for n, o in zip(size, output, strict=True)]
        return graph.node("AveragePool", [x], kernel_shape=window, strides=window)
    rows, columns = (bins(n, o).astype(graph.dtype) for n, o in zip(size, output, strict=True))
    y = graph.node("MatMul", [graph.constant("rows", rows), x])  # (OH, H) · (N, C, H, W)
    return graph.node("MatMul", [y, graph.constant("columns", columns.T)])  # · (W, OW)


def bins(n: int, o: int) -> Any:
    """A matrix (o, n) that computes the mean of n elements in each of o bins."""
    matrix = np.zeros((o, n))
    for i in range(o):
        begin, end = i * n // o, -(-(i + 1) * n // o)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def reshape(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    one, two = step.shapes
    sizes = [a if a == b else -1 for a, b in zip(one, two, strict=True)]
    if sizes.count(-1) > 1:
        raise step.refuse(f"more than one size depends on the number of images: {one} for one, {two} for two")
    if len(one) == 2 and graph.shape(step)[:1] == one[:1] and sizes[0] == -1:
        return graph.node("Flatten", [x], axis=1)
    return graph.node("Reshape", [x, graph.integers("shape", sizes)])


def slices(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    index = step.node.index if isinstance(step.node.index, tuple) else (step.node.index,)
    index = index if Ellipsis in index else (*index, Ellipsis)
    where = next(i for i, part in enumerate(index) if part is Ellipsis)
    missing = len(graph.shape(step)) - sum(part is not None and part is not Ellipsis for part in index)
    index = (*index[:where], *[slice(None)] * missing, *index[where + 1 :])
    cuts, dropped, added = [], [], []  # (axis, start, end, step), axes of x, axes of the result
    axis = kept = 0
    for part in index:
        if part is None:
            added.append(kept)
            kept += 1
            continue
        if isinstance(part, slice):
            stride = 1 if part.step is None else int(part.step)
            start = (0 if stride > 0 else TO_THE_END) if part.start is None else int(part.start)
            end = (TO_THE_END if stride > 0 else -TO_THE_END) if part.stop is None else int(part.stop)
            kept += 1
        else:
            start, stride = int(part), 1
            end = TO_THE_END if start == -1 else start + 1
            dropped.append(axis)
        if (start, end, stride) != (0, TO_THE_END, 1):
            cuts.append((axis, start, end, stride))
        axis += 1
    if cuts:
        columns = zip(("axes", "starts", "ends", "steps"), zip(*cuts, strict=True), strict=True)
        axes, starts, ends, steps = (graph.integers(name, numbers) for name, numbers in columns)
        x = graph.node("Slice", [x, starts, ends, axes, steps])
    for kind, numbers in (("Squeeze", dropped), ("Unsqueeze", added)):
        if numbers:
            x = graph.node(kind, [x, graph.integers("axes", numbers)])
    return x if cuts or dropped or added else graph.node("Identity", [x])


def pad(step: Step, graph: Graph) -> str:
    before, after = zip(*step.node.pad, strict=True) if step.node.pad else ((), ())
    return padded(graph, graph.inputs(step)[0], before, after, step.node.value)


def reduction(kind: str) -> Callable[[Step, Graph], str]:
    def reduce(step: Step, graph: Graph) -> str:
        inputs, axis, keepdims = graph.inputs(step), step.node.axis, int(step.node.keepdims)
        if not axis:
            return graph.node("Identity", inputs)
        if kind == "ReduceSum":  # the other reductions have an attribute `axes` in this opset
            return graph.node(kind, [*inputs, graph.integers("axes", axis)], keepdims=keepdims)
        return graph.node(kind, inputs, axes=axis, keepdims=keepdims)

    return reduce


def transpose(step: Step, graph: Graph) -> str:
    return graph.node("Transpose", graph.inputs(step), perm=step.node.axes)


def softmax(step: Step, graph: Graph) -> str:
    return graph.node(step.node.name, graph.inputs(step), axis=step.node.axis)


def elementwise(step: Step, graph: Graph) -> str:
    return graph.node("Relu" if step.node.name == "ReLU" else step.node.name, graph.inputs(step))


def refusal(problem: str) -> Callable[[Step, Graph], str]:
    def refuse(step: Step, graph: Graph) -> str:
        raise step.refuse(problem)

    return refuse


NO_FUSED = refusal("ONNX has no fused operations: call the plain ones (modules are exported in their plain form)")
NO_LOSS = refusal("a loss is not part of a network for inference")
TRANSLATIONS: dict[str, Callable[[Step, Graph], str]] = {
    **dict.fromkeys(("Add", "Div", "Exp", "Log", "MatMul", "Mul", "Neg", "Pow"), elementwise),
    **dict.fromkeys(("ReLU", "Sigmoid", "Sqrt", "Sub", "Tanh"), elementwise),
    **dict.fromkeys(("LogSoftmax", "Softmax"), softmax),
    **dict.fromkeys(("BatchNormAddReLU", "BatchNormReLU", "FusedConv2d"), NO_FUSED),
    **dict.fromkeys(("CrossEntropy", "NLLLoss"), NO_LOSS),
    "AdaptiveAvgPool2d": adaptive_average_pool,
    "AvgPool2d": average_pool,
    "BatchNorm": batch_norm,
    "Conv2d": conv2d,
    "Dropout": refusal("dropout draws at random: a network for inference must not"),
    "Linear": linear,
    "Max": reduction("ReduceMax"),
    "MaxPool2d": max_pool,
    "Mean": reduction("ReduceMean"),
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slices,
    "Sum": reduction("ReduceSum"),
    "SyncBatchNorm": refusal(
        "it computes with the statistics of several ranks' batches: export a network in evaluation mode"
    ),
    "Transpose": transpose,
}
