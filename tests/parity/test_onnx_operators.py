"""The ONNX standard's own conformance cases, every one of them, for every operator that minires can express.

A case passes or stands under the reason why minires does not take it; then minires must refuse it with a TypeError or a
ValueError.  How many pass and how many each reason excludes is written down in EXPECTED, so that nothing is left out
silently.  Beside the operators' cases, these are the files that PyTorch once exported for the standard.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minires as mr
import minires.functional as F

onnx = pytest.importorskip("onnx")


class Excluded(Exception):
    """A case that minires does not take: why, and the call that it must refuse, if there is a way to say it."""

    def __init__(self, reason, call=None):
        super().__init__(reason)
        self.reason = reason
        self.call = call


# -- the operators, each written in minires: (node's attributes, version of the operators, *inputs) -> outputs
#
# What floats comes as a Tensor, all else (labels, shapes) as an array.


def geometry(attributes, x, kernel):
    """strides, dilations and the padding before and after, one number an axis"""
    n = len(kernel)
    strides, dilations = (attributes.get(name, [1] * n) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * 2 * n)
    before, after = pads[:n], pads[n:]
    word = attributes.get("auto_pad", b"NOTSET").decode()
    if word.startswith("SAME"):
        spans = zip(x.shape[2:], kernel, strides, dilations, strict=True)
        totals = [max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) for size, k, s, d in spans]
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        before, after = (less, more) if word == "SAME_UPPER" else (more, less)
    return list(strides), list(dilations), list(before), list(after)


def two_dimensional(operator):
    """A 1-D operator is a 2-D one on images of height 1; a 3-D one minires has not."""

    @functools.wraps(operator)
    def wrapped(attributes, opset, x, *weights):
        if x.ndim == 5:
            raise Excluded("three-dimensional", lambda: operator(attributes, opset, x, *weights))
        if x.ndim == 4:
            return operator(attributes, opset, x, *weights)
        more = {"kernel_shape": 1, "strides": 1, "dilations": 1}
        wide = {name: [more[name], *value] if name in more else value for name, value in attributes.items()}
        if "pads" in attributes:
            wide["pads"] = [0, attributes["pads"][0], 0, attributes["pads"][1]]
        weights = [w if w.ndim == 1 else w[:, :, None] for w in weights]
        return [y[:, :, 0] for y in operator(wide, opset, x[:, :, None], *weights)]

    return wrapped


def padded(x, before, after, value=0.0):
    return F.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)), value)


@two_dimensional
def conv(attributes, opset, x, weight, bias=None):
    strides, dilations, before, after = geometry(attributes, x, weight.shape[2:])
    padding = before
    if strides == [1, 1] and attributes.get("auto_pad") == b"SAME_UPPER":
        padding = "same"
    elif before != after:
        x, padding = padded(x, before, after), 0
    return [F.conv2d(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))]


@two_dimensional
def max_pool(attributes, opset, x):
    kernel = attributes["kernel_shape"]
    strides, dilations, before, after = geometry(attributes, x, kernel)
    half = [(d * (k - 1) + 1) // 2 for k, d in zip(kernel, dilations, strict=True)]
    if before == after and all(p <= h for p, h in zip(before, half, strict=True)):
        return [F.max_pool2d(x, kernel, strides, before, dilations, bool(attributes.get("ceil_mode")))]
    return [F.max_pool2d(padded(x, before, after, -math.inf), kernel, strides, 0, dilations)]


@two_dimensional
def average_pool(attributes, opset, x):
    kernel = attributes["kernel_shape"]
    strides, dilations, before, after = geometry(attributes, x, kernel)
    include = bool(attributes.get("count_include_pad"))
    if dilations != [1, 1]:  # the mean of a dilated window is a convolution
        C, taps = x.shape[1], math.prod(kernel)
        weight = np.full((C, 1, *kernel), 1 / taps, x.dtype)
        return [F.conv2d(x, weight, None, strides, before, dilations, groups=C)]
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return [F.avg_pool2d(x, kernel, strides, before, bool(attributes.get("ceil_mode")), include)]
    y = F.avg_pool2d(padded(x, before, after), kernel, strides)
    if not include:
        ones = padded(mr.tensor(np.ones_like(x.data)), before, after)
        y = y * (1 / F.avg_pool2d(ones, kernel, strides).data)
    return [y]


def batch_normalization(attributes, opset, x, weight, bias, mean, var):
    eps = attributes.get("epsilon", 1e-5)
    if not attributes.get("training_mode"):
        return [F.batch_norm(x, mean.data, var.data, weight, bias, eps=eps)]
    new_mean, new_var = np.zeros_like(mean.data), np.zeros_like(var.data)
    y = F.batch_norm(x, new_mean, new_var, weight, bias, training=True, momentum=1, eps=eps)
    M = x.size // x.shape[1]
    keep = attributes.get("momentum", 0.9)  # the weight of the old value, and the variance that ONNX keeps is biased
    new_var *= (M - 1) / M
    return [y, mean * keep + new_mean * (1 - keep), var * keep + new_var * (1 - keep)]


def gemm(attributes, opset, a, b, c=None):
    a = mr.tensor(a.data.T) if attributes.get("transA") else a
    weight = b.data if attributes.get("transB") else b.data.T
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if c is not None and c.shape == weight.shape[:1] and alpha == beta == 1:
        return [F.linear(a, weight, c)]
    y = F.linear(a, weight) * alpha
    return [y if c is None else y + c * beta]


def arithmetic(operator):
    def run(attributes, opset, *values):
        if not all(isinstance(value, mr.Tensor) for value in values):
            raise Excluded("integers", lambda: operator(*map(mr.tensor, values)))
        a, *others = values
        if attributes.get("broadcast") and "axis" in attributes:  # before version 7
            axis = attributes["axis"] % a.ndim
            others = [b.reshape((*b.shape, *(1,) * (a.ndim - axis - b.ndim))) for b in others]
        return [functools.reduce(operator, others, a)]

    return run


def reduction(name):
    def run(attributes, opset, x, axes=None):
        axes = attributes.get("axes", axes)
        axis = None if axes is None else tuple(int(a) for a in axes)
        if not axis and not attributes.get("noop_with_empty_axes"):
            axis = None
        return [getattr(x, name)(axis, bool(attributes.get("keepdims", 1)))]

    return run


def reshape(attributes, opset, x, shape=None):
    shape = [int(n) for n in (attributes["shape"] if shape is None else shape)]
    copied = not attributes.get("allowzero")
    return [x.reshape(tuple(x.shape[i] if n == 0 and copied else n for i, n in enumerate(shape)))]


def flatten(attributes, opset, x):
    axis = attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    y = F.flatten(x, axis) if axis < x.ndim else x[..., None]
    return [F.flatten(y, 0, end_dim=axis - 1) if axis else y[None]]


def pad(attributes, opset, x, pads=None, value=None, axes=None):
    if attributes.get("mode", b"constant") != b"constant":
        raise Excluded("modes of Pad beside constant", lambda: F.pad(x, pads, mode="reflect"))
    pads = [int(n) for n in (attributes["pads"] if pads is None else pads)]
    axes = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
    pairs = [(0, 0)] * x.ndim
    for position, axis in enumerate(axes):
        pairs[axis] = (pads[position], pads[position + len(pads) // 2])
    value = attributes.get("value", 0.0) if value is None else value.item()
    return [F.pad(x, tuple(pairs), value)]


def slices(attributes, opset, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (attributes["starts"], attributes["ends"]) if starts is None else (starts, ends)
    axes = attributes.get("axes", range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), int(end), int(step))
    return [x[tuple(index)]]


def softmax(name):
    def run(attributes, opset, x):
        if opset >= 13:
            return [getattr(F, name)(x, attributes.get("axis", -1))]
        axis = attributes.get("axis", 1) % x.ndim  # then all axes from there on are one
        return [getattr(F, name)(x.reshape((math.prod(x.shape[:axis]), -1)), 1).reshape(x.shape)]

    return run


def nll_loss(attributes, opset, log_probs, labels, weight=None):
    options = {"weight": weight, "ignore_index": attributes.get("ignore_index")}
    return [F.nll_loss(log_probs, labels, attributes.get("reduction", b"mean").decode(), **options)]


def cross_entropy(attributes, opset, logits, labels, weight=None):
    options = {"weight": weight, "ignore_index": attributes.get("ignore_index")}
    loss = F.cross_entropy(logits, labels, 0.0, attributes.get("reduction", b"mean").decode(), **options)
    return [loss, F.log_softmax(logits, 1)]


def dropout(attributes, opset, x, ratio=None, training=None):
    p = attributes.get("ratio", 0.5) if ratio is None else ratio.item()
    y = F.dropout(x, p, bool(training is not None and training))
    return [y, np.ones(x.shape, bool) if y is x else y.data != 0]


def identity(attributes, opset, x):
    if not isinstance(x, mr.Tensor):
        raise Excluded("sequences and optional values", lambda: F.relu(x))
    return [x]


def squeezed(attributes, opset, x, axes=None):
    axes = [int(a) % x.ndim for a in attributes.get("axes", axes)]
    return [x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))]


def unsqueezed(attributes, opset, x, axes=None):
    axes = attributes.get("axes", axes)
    inserted = [int(a) % (x.ndim + len(axes)) for a in axes]
    sizes = iter(x.shape)
    return [x.reshape(tuple(1 if i in inserted else next(sizes) for i in range(x.ndim + len(axes))))]


def constant(attributes, opset):
    array = onnx.numpy_helper.to_array(attributes["value"])
    return [mr.tensor(array) if array.dtype.kind == "f" else array]


def mean(attributes, opset, *values):
    return [functools.reduce(lambda a, b: a + b, values) * (1 / len(values))]


OPERATORS = {
    "Conv": conv,
    "BatchNormalization": batch_normalization,
    "Relu": lambda attributes, opset, x: [F.relu(x)],
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda attributes, opset, x: [F.adaptive_avg_pool2d(x, 1)],
    "GlobalMaxPool": lambda attributes, opset, x: [F.max_pool2d(x, x.shape[2:])],
    "Gemm": gemm,
    "Add": arithmetic(lambda a, b: a + b),
    "Sub": arithmetic(lambda a, b: a - b),
    "Mul": arithmetic(lambda a, b: a * b),
    "Neg": lambda attributes, opset, x: [-x],
    "Sum": arithmetic(lambda a, b: a + b),
    "Mean": mean,
    "ReduceSum": reduction("sum"),
    "ReduceMean": reduction("mean"),
    "Reshape": reshape,
    "Flatten": flatten,
    "Pad": pad,
    "Slice": slices,
    "Softmax": softmax("softmax"),
    "LogSoftmax": softmax("log_softmax"),
    "NegativeLogLikelihoodLoss": nll_loss,
    "SoftmaxCrossEntropyLoss": cross_entropy,
    "Dropout": dropout,
    "Identity": identity,
    "Squeeze": squeezed,
    "Unsqueeze": unsqueezed,
}

# Cases that pass, and those that are excluded by reason.
EXPECTED = {
    "Conv": (6, {}),
    "BatchNormalization": (4, {}),
    "Relu": (1, {}),
    "MaxPool": (13, {"the maxima's indices": 2, "three-dimensional": 4}),
    "AveragePool": (14, {"three-dimensional": 6}),
    "GlobalAveragePool": (2, {}),
    "GlobalMaxPool": (2, {}),
    "Gemm": (11, {}),
    "Add": (2, {"integers": 6}),
    "Sub": (3, {"integers": 6}),
    "Mul": (3, {"integers": 6}),
    "Neg": (2, {}),
    "Sum": (3, {}),
    "Mean": (3, {}),
    "ReduceSum": (12, {}),
    "ReduceMean": (8, {}),
    "Reshape": (10, {}),
    "Flatten": (9, {}),
    "Pad": (3, {"modes of Pad beside constant": 3}),
    "Slice": (8, {}),
    "Softmax": (7, {}),
    "LogSoftmax": (7, {}),
    "NegativeLogLikelihoodLoss": (18, {}),
    "SoftmaxCrossEntropyLoss": (34, {}),
    "Dropout": (12, {}),
    "Identity": (1, {"sequences and optional values": 2}),
    "Squeeze": (2, {}),
    "Unsqueeze": (7, {}),
    "pytorch-converted": (44, {"three-dimensional": 13, "other operators": 23, "modes of Pad beside constant": 2}),
    "pytorch-operator": (17, {"other operators": 16, "integers": 1, "modes of Pad beside constant": 1}),
    "simple": (1, {"other operators": 22}),
}
COUNTED = onnx.__version__.startswith("1.23.")  # another version has other cases, for which the same reasons hold


MODULES = {"BatchNormalization": "batch_normalization", "SoftmaxCrossEntropyLoss": "softmax_cross_entropy_loss"}
FOUR_DIGITS = "averagepool_2d_ceil_last_window_starts_on_pad"  # what it expects is written down with so many

# -- running them


def ours(value):
    return mr.tensor(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def run(model, inputs):
    """The outputs of the graph, its nodes one after another in minires."""
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    others = {node.op_type for node in model.graph.node} - set(OPERATORS) - {"Constant"}
    if others:
        raise Excluded("other operators")
    values = {"": None} | {w.name: ours(onnx.numpy_helper.to_array(w)) for w in model.graph.initializer}
    names = [entry.name for entry in model.graph.input if entry.name not in values]
    values |= dict(zip(names, map(ours, inputs), strict=True))
    for node in model.graph.node:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        operands = [values[name] for name in node.input]
        if node.op_type == "MaxPool":
            call = functools.partial(F.max_pool2d, operands[0], 2)
            if len(node.output) > 1:
                raise Excluded("the maxima's indices", functools.partial(call, return_indices=True))
        found = {"Constant": constant, **OPERATORS}[node.op_type](attributes, opset, *operands)
        values |= dict(zip(node.output, found, strict=False))
    return [values[entry.name] for entry in model.graph.output]


def check(model, inputs, expected):
    found = [np.asarray(y.data if isinstance(y, mr.Tensor) else y) for y in run(model, inputs)]
    assert len(found) == len(expected)
    operator = model.graph.node[0].op_type
    if operator == "Dropout" and len(inputs) > 2 and inputs[2] and inputs[1] > 0:
        # Two masks: values that both keep are equal; values that ours drops are 0, and the mask marks them.
        y, both = found[0], (found[0] != 0) & (expected[0] != 0)
        assert 0 < (y != 0).sum() < y.size
        np.testing.assert_allclose(y[both], expected[0][both], rtol=1e-6)
        np.testing.assert_allclose(y[y != 0], (inputs[0] / (1 - inputs[1]))[y != 0], rtol=1e-6)
        assert all(np.array_equal(mask, y != 0) for mask in found[1:])
        return
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        # Sums of at most some hundred products in float32, on both sides.
        rtol = 1e-3 if FOUR_DIGITS in model.graph.name else 1e-5
        np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6 * np.abs(b).max(initial=0), strict=True)


def tally(cases):
    passed, excluded = 0, Counter()
    for name, model, inputs, expected in cases:
        try:
            check(model, inputs, expected)
            passed += 1
        except Excluded as excuse:
            excluded[excuse.reason] += 1
            if excuse.call is not None:
                with pytest.raises((TypeError, ValueError)):
                    excuse.call()
        except Exception as error:
            error.add_note(f"in {name}")
            raise
    return passed, dict(excluded)


def cases_of(operator):
    """(name, model, inputs, expected outputs) as the standard's generator makes them.

    Not those that spell an operator out in others: they are these others' cases.
    """
    node = importlib.import_module("onnx.backend.test.case.node")
    # From this generator the cases are drawn, when their file is imported.
    np.random.seed(0)  # noqa: NPY002
    importlib.import_module(f"{node.__name__}.{MODULES.get(operator, operator.lower())}")
    for case in node._NodeTestCases:
        if [n.op_type for n in case.model.graph.node] == [operator] and "_expanded" not in case.name:
            yield from ((case.name, case.model, inputs, outputs) for inputs, outputs in case.data_sets)


def files_of(kind):
    """The same, from the files that come with the standard."""

    def read(path):
        return onnx.numpy_helper.to_array(onnx.load_tensor(path))

    folder = Path(onnx.__file__).parent / "backend/test/data" / kind
    for path in sorted(folder.iterdir()):
        for data in sorted(path.glob("test_data_set_*")):
            arrays = [
                [read(data / f"{side}_{i}.pb") for i in range(len(list(data.glob(f"{side}_*.pb"))))]
                for side in ("input", "output")
            ]
            yield path.name, onnx.load(path / "model.onnx"), *arrays


KINDS = ("pytorch-converted", "pytorch-operator", "simple")


@pytest.mark.parametrize("which", [*OPERATORS, *KINDS])
def test_every_case_passes_or_is_refused_for_a_reason(which):
    mr.manual_seed(0)
    passed, excluded = tally(files_of(which) if which in KINDS else cases_of(which))
    if COUNTED:
        assert (passed, excluded) == EXPECTED[which]
    assert set(excluded) <= set(EXPECTED[which][1])
    assert passed
