"""Each operation in ONNX's words, exactly: where a reader's rounding of sizes might differ, padding is written out.

A translation takes the recorded operation and the graph, adds nodes, and returns the name of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minires.weights.onnx_file import Graph
    from minires.weights.recording import Step

LARGEST = 2**63 - 1  # ONNX's word for "to the end"


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
    if len(graph.shape(step.sources[0])) == 2:
        return graph.node("Gemm", inputs, transB=1)
    x, weight, *bias = inputs
    y = graph.node("MatMul", [x, graph.node("Transpose", [weight], perm=[1, 0])])
    return graph.node("Add", [y, *bias]) if bias else y


def overhang(size: int, output: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """By how much the last window reaches beyond the padding."""
    return max((output - 1) * stride + dilation * (kernel - 1) + 1 - size - 2 * padding, 0)


def padded(graph: Graph, x: str, before: Any, after: Any, value: float) -> str:
    pads = graph.constant("pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
    return graph.node("Pad", [x, pads, graph.constant("value", np.array(value, graph.dtype))], mode="constant")


def max_pool(step: Step, graph: Graph) -> str:
    node, (x,) = step.node, graph.inputs(step)
    size, output = graph.shape(step.sources[0])[2:], step.shapes[0][2:]
    over = list(map(overhang, size, output, node.kernel, node.stride, node.padding, node.dilation))
    pads = [*node.padding, *node.padding]
    if any(over) or any(p >= k for p, k in zip(node.padding, node.kernel, strict=True)):
        after = [p + more for p, more in zip(node.padding, over, strict=True)]
        x, pads = padded(graph, x, node.padding, after, -math.inf), [0] * 4
    window = {"kernel_shape": node.kernel, "strides": node.stride, "dilations": node.dilation}
    return graph.node("MaxPool", [x], pads=pads, **window)


def average_pool(step: Step, graph: Graph) -> str:
    node, (x,) = step.node, graph.inputs(step)
    size, output = graph.shape(step.sources[0])[2:], step.shapes[0][2:]
    geometry = list(zip(size, output, node.kernel, node.stride, node.padding, strict=True))
    over = [overhang(*axis) for axis in geometry]
    window = {"kernel_shape": node.kernel, "strides": node.stride}
    if not any(over):
        pads = [*node.padding, *node.padding]
        return graph.node("AveragePool", [x], pads=pads, count_include_pad=int(node.count_include_pad), **window)
    after = [p + more for p, more in zip(node.padding, over, strict=True)]
    y = graph.node("AveragePool", [padded(graph, x, node.padding, after, 0.0)], **window)
    counts: list[list[int]] = []  # of the elements that count, one list an axis
    for n, o, k, s, p in geometry:
        begin, end = (-p, n + p) if node.count_include_pad else (0, n)
        counts.append([min(i * s - p + k, end) - max(i * s - p, begin) for i in range(o)])
    factor = math.prod(node.kernel) / np.outer(counts[0], counts[1])  # what padding made too small
    return graph.node("Mul", [y, graph.constant("factor", factor.astype(graph.dtype))])


def adaptive_average_pool(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    size, output = graph.shape(step.sources[0])[2:], step.shapes[0][2:]
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
    """(o, n): the mean over each of o bins, as a matrix"""
    matrix = np.zeros((o, n))
    for i in range(o):
        begin, end = i * n // o, -(-(i + 1) * n // o)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def reshape(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    one, two = step.shapes
    before = graph.shape(step.sources[0])
    sizes = [a if a == b else -1 for a, b in zip(one, two, strict=True)]
    if sizes.count(-1) > 1:
        raise step.refuse(f"more than one size depends on the number of images: {one} for one, {two} for two")
    if len(one) == 2 and before[:1] == one[:1] and sizes[0] == -1:
        return graph.node("Flatten", [x], axis=1)
    return graph.node("Reshape", [x, graph.constant("shape", np.array(sizes, np.int64))])


def slices(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    index = step.node.index if isinstance(step.node.index, tuple) else (step.node.index,)
    ndim = len(graph.shape(step.sources[0]))
    missing = ndim - sum(part is not None and part is not Ellipsis for part in index)
    index = index if Ellipsis in index else (*index, Ellipsis)
    where = next(i for i, part in enumerate(index) if part is Ellipsis)
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
            start = (0 if stride > 0 else LARGEST) if part.start is None else int(part.start)
            end = (LARGEST if stride > 0 else -LARGEST) if part.stop is None else int(part.stop)
            kept += 1
        else:
            start, stride = int(part), 1
            end = LARGEST if start == -1 else start + 1
            dropped.append(axis)
        if (start, end, stride) != (0, LARGEST, 1):
            cuts.append((axis, start, end, stride))
        axis += 1
    if cuts:
        axes, starts, ends, steps = map(list, zip(*cuts, strict=True))
        named = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        x = graph.node("Slice", [x, *(graph.constant(name, np.array(v, np.int64)) for name, v in named.items())])
    for kind, axes in (("Squeeze", dropped), ("Unsqueeze", added)):
        if axes:
            x = graph.node(kind, [x, graph.constant("axes", np.array(axes, np.int64))])
    return x if cuts or dropped or added else graph.node("Identity", [x])


def pad(step: Step, graph: Graph) -> str:
    (x,) = graph.inputs(step)
    before, after = zip(*step.node.pad, strict=True) if step.node.pad else ((), ())
    pads = graph.constant("pads", np.array([*before, *after], np.int64))
    return graph.node("Pad", [x, pads, graph.constant("value", np.array(step.node.value, graph.dtype))])


def total(step: Step, graph: Graph) -> str:
    inputs = graph.inputs(step)
    if not step.node.axis:
        return graph.node("Identity", inputs)
    axes = graph.constant("axes", np.array(step.node.axis, np.int64))
    return graph.node("ReduceSum", [*inputs, axes], keepdims=int(step.node.keepdims))


def mean(step: Step, graph: Graph) -> str:
    if not step.node.axis:
        return graph.node("Identity", graph.inputs(step))
    return graph.node("ReduceMean", graph.inputs(step), axes=step.node.axis, keepdims=int(step.node.keepdims))


def largest(step: Step, graph: Graph) -> str:
    if not step.node.axis:
        return graph.node("Identity", graph.inputs(step))
    return graph.node("ReduceMax", graph.inputs(step), axes=step.node.axis, keepdims=int(step.node.keepdims))


def transpose(step: Step, graph: Graph) -> str:
    return graph.node("Transpose", graph.inputs(step), perm=step.node.axes)


def as_it_is(kind: str) -> Callable[[Step, Graph], str]:
    return lambda step, graph: graph.node(kind, graph.inputs(step))


def along_an_axis(kind: str) -> Callable[[Step, Graph], str]:
    return lambda step, graph: graph.node(kind, graph.inputs(step), axis=step.node.axis)


def no_such_thing(problem: str) -> Callable[[Step, Graph], str]:
    def refuse(step: Step, graph: Graph) -> str:
        raise step.refuse(problem)

    return refuse


FUSED = "ONNX has no fused operations: call the plain ones (modules are exported in their plain form)"
TRANSLATIONS: dict[str, Callable[[Step, Graph], str]] = {
    "AdaptiveAvgPool2d": adaptive_average_pool,
    "Add": as_it_is("Add"),
    "AvgPool2d": average_pool,
    "BatchNorm": batch_norm,
    "BatchNormAddReLU": no_such_thing(FUSED),
    "BatchNormReLU": no_such_thing(FUSED),
    "Conv2d": conv2d,
    "CrossEntropy": no_such_thing("a loss is not part of a network for inference"),
    "Div": as_it_is("Div"),
    "Dropout": no_such_thing("dropout draws at random: a network for inference must not"),
    "Exp": as_it_is("Exp"),
    "FusedConv2d": no_such_thing(FUSED),
    "Linear": linear,
    "Log": as_it_is("Log"),
    "LogSoftmax": along_an_axis("LogSoftmax"),
    "MatMul": as_it_is("MatMul"),
    "Max": largest,
    "MaxPool2d": max_pool,
    "Mean": mean,
    "Mul": as_it_is("Mul"),
    "NLLLoss": no_such_thing("a loss is not part of a network for inference"),
    "Neg": as_it_is("Neg"),
    "Pad": pad,
    "Pow": as_it_is("Pow"),
    "ReLU": as_it_is("Relu"),
    "Reshape": reshape,
    "Sigmoid": as_it_is("Sigmoid"),
    "Slice": slices,
    "Softmax": along_an_axis("Softmax"),
    "Sqrt": as_it_is("Sqrt"),
    "Sub": as_it_is("Sub"),
    "Sum": total,
    "SyncBatchNorm": no_such_thing(
        "it computes with the statistics of several ranks' batches: export a network in evaluation mode"
    ),
    "Tanh": as_it_is("Tanh"),
    "Transpose": transpose,
}
