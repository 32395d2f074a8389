"""A user's slip is an error at the call that names the argument, what came and what is allowed."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minires as mr
import minires.functional as F

x = np.ones((2, 4, 5, 6))
w = np.ones((3, 4, 3, 2))
z = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
ones = np.ones(4)
labels = np.array([0, 2])

TABLE = {
    "conv2d: x is a list": (lambda: F.conv2d([1, 2], w), TypeError, "x must be a Tensor or an array, got list"),
    "conv2d: x of two axes": (
        lambda: F.conv2d(x[0, 0], w),
        ValueError,
        "x must be (N, C, H, W) or (C, H, W), got shape",
    ),
    "max_pool2d: x of two axes": (lambda: F.max_pool2d(z, 1), ValueError, "x must be (N, C, H, W) or (C, H, W), got"),
    "avg_pool2d: x of five axes": (lambda: F.avg_pool2d(x[None], 1), ValueError, "x must be (N, C, H, W) or (C, H, W)"),
    "adaptive: x of one axis": (lambda: F.adaptive_avg_pool2d(ones, 1), ValueError, "x must be (N, C, H, W) or (C,"),
    "conv2d: integer x": (lambda: F.conv2d(x.astype(int), w), TypeError, "x must have dtype float32 or float64"),
    "conv2d: weight's dtype": (lambda: F.conv2d(x, np.float32(w)), TypeError, "weight must have x's dtype float64"),
    "conv2d: weight's axes": (lambda: F.conv2d(x, w[0]), ValueError, "weight must be (O, C/groups, KH, KW)"),
    "conv2d: channels": (lambda: F.conv2d(x, w[:, :2]), ValueError, "x has 4 channels, weight takes 2"),
    "conv2d: groups": (lambda: F.conv2d(x, w[:, :2], groups=2), ValueError, "filters cannot be divided"),
    "conv2d: no groups": (lambda: F.conv2d(x, w, groups=0), ValueError, "groups must be at least 1, got 0"),
    "conv2d: bias": (lambda: F.conv2d(x, w, ones), ValueError, "bias must have shape (3,)"),
    "conv2d: large kernel": (lambda: F.conv2d(x, np.ones((3, 4, 6, 2))), ValueError, "more than the padded x with 5"),
    "conv2d: dilated kernel": (lambda: F.conv2d(x, w, dilation=3), ValueError, "the kernel spans 7 along H"),
    "conv2d: empty kernel": (lambda: F.conv2d(x, w[:, :, :0]), ValueError, "weight has an empty kernel"),
    "conv2d: stride 0": (lambda: F.conv2d(x, w, stride=0), ValueError, "stride must be at least 1, got 0"),
    "conv2d: stride True": (lambda: F.conv2d(x, w, stride=True), TypeError, "stride must be"),
    "conv2d: stride 1.5": (lambda: F.conv2d(x, w, stride=1.5), TypeError, "stride must be"),
    "conv2d: stride of three": (lambda: F.conv2d(x, w, stride=(1, 1, 1)), ValueError, "stride must be an int or"),
    "conv2d: padding -1": (lambda: F.conv2d(x, w, padding=-1), ValueError, "padding must be at least 0, got -1"),
    "conv2d: padding 'sane'": (lambda: F.conv2d(x, w, padding="sane"), ValueError, "Did you mean 'same'?"),
    "conv2d: padding 'same' with a stride": (
        lambda: F.conv2d(x, w, stride=(1, 2), padding="same"),
        ValueError,
        "padding must be numbers where stride is not 1: 'same' goes with stride 1, got (1, 2)",
    ),
    "Conv2d: padding 'same' with a stride": (
        lambda: mr.nn.Conv2d(1, 1, 3, 2, "same"),
        ValueError,
        "padding must be numbers where stride is not 1",
    ),
    "max_pool2d: padding 'same'": (lambda: F.max_pool2d(x, 2, padding="same"), TypeError, "padding must be an int"),
    "avg_pool2d: divisor 0": (
        lambda: F.avg_pool2d(x, 2, divisor_override=0),
        ValueError,
        "divisor_override must not be 0",
    ),
    "AvgPool2d: divisor 0": (lambda: mr.nn.AvgPool2d(2, divisor_override=0), ValueError, "divisor_override must not"),
    "flatten: end before start": (lambda: F.flatten(x, 2, end_dim=1), ValueError, "end_dim must not come before"),
    "flatten: end": (lambda: F.flatten(x, 2, end_dim=4), ValueError, "end_dim must lie in [-4, 3]"),
    "cross_entropy: weight's shape": (
        lambda: F.cross_entropy(z, labels, weight=ones),
        ValueError,
        "weight must have shape (3,), one a class, got (4,)",
    ),
    "cross_entropy: weight's dtype": (
        lambda: F.cross_entropy(z, labels, weight=np.ones(3, np.float32)),
        TypeError,
        "weight must have the dtype float64 of the scores, got float32",
    ),
    "nll_loss: weight requires a gradient": (
        lambda: F.nll_loss(z, labels, weight=mr.tensor(np.ones(3), requires_grad=True)),
        ValueError,
        "weight must be constant",
    ),
    "nll_loss: weight is NaN": (
        lambda: F.nll_loss(z, labels, weight=np.full(3, np.nan)),
        ValueError,
        "weight must be finite",
    ),
    "nll_loss: weights of 0": (
        lambda: F.nll_loss(z, labels, weight=np.zeros(3)),
        ValueError,
        "weight must not sum to 0 for the mean over the labels of log_probs (2, 3)",
    ),
    "cross_entropy: every label ignored": (
        lambda: F.cross_entropy(z, labels * 0, ignore_index=0),
        ValueError,
        "labels must hold one that is not ignored for the mean over the labels of logits (2, 3)",
    ),
    "cross_entropy: a label beside the ignored one": (
        lambda: F.cross_entropy(z, np.array([-1, -2]), ignore_index=-1),
        ValueError,
        "labels must lie in [0, 3) for 3 classes, got -2",
    ),
    "cross_entropy: nothing is ignored unasked": (
        lambda: F.cross_entropy(z, np.array([-100, 1])),
        ValueError,
        "labels must lie in [0, 3) for 3 classes, got -100",
    ),
    "cross_entropy: ignored probabilities": (
        lambda: F.cross_entropy(z, z / 6, ignore_index=1),
        ValueError,
        "ignore_index must be None where labels are probabilities",
    ),
    "cross_entropy: probabilities' dtype": (
        lambda: F.cross_entropy(z, np.float32(z)),
        TypeError,
        "labels must have the dtype float64 of logits as probabilities, got float32",
    ),
    "cross_entropy: probabilities' shape": (
        lambda: F.cross_entropy(z, z[:, :2]),
        TypeError,
        "labels must be integers, got dtype float64 and shape (2, 2), or probabilities of shape (2, 3)",
    ),
    "cross_entropy: probabilities of NaN": (
        lambda: F.cross_entropy(z, z * np.nan),
        ValueError,
        "labels must be finite as probabilities",
    ),
    "cross_entropy: probabilities and −inf": (
        lambda: F.cross_entropy(np.array([[-np.inf, 1]]), np.ones((1, 2))),
        ValueError,
        "logits must be finite with labels that are probabilities",
    ),
    "nll_loss: probabilities": (lambda: F.nll_loss(z, z), TypeError, "labels must be integers, got dtype float64"),
    "conv2d: dilation 0": (lambda: F.conv2d(x, w, dilation=(1, 0)), ValueError, "dilation must be at least 1"),
    "batch_norm: one axis": (lambda: F.batch_norm(ones, ones, ones), ValueError, "x must be (N, C, ...)"),
    "batch_norm: no statistics": (lambda: F.batch_norm(x, None, None), ValueError, "running_mean must be given"),
    "batch_norm: statistics' shape": (lambda: F.batch_norm(x, np.ones(3), ones), ValueError, "running_mean must have"),
    "batch_norm: statistics' type": (lambda: F.batch_norm(x, [1, 2], ones), TypeError, "running_mean must be a plain"),
    "batch_norm: only one": (lambda: F.batch_norm(x, ones, None, training=True), ValueError, "both or not at all"),
    "batch_norm: only one in evaluation": (lambda: F.batch_norm(x, None, ones), ValueError, "both or not at all, got"),
    "fused_conv2d: only a mean": (lambda: F.fused_conv2d(x, w, running_mean=ones), ValueError, "both or not at all"),
    "fused_conv2d: only a variance": (lambda: F.fused_conv2d(x, w, running_var=ones), ValueError, "both or not at all"),
    "batch_norm: weight": (lambda: F.batch_norm(x, ones, ones, np.ones(5)), ValueError, "weight must have shape (4,)"),
    "batch_norm: one value": (lambda: F.batch_norm(x[:1, :, :1, :1], None, None, training=True), ValueError, "x must"),
    "batch_norm: momentum": (lambda: F.batch_norm(x, ones, ones, momentum=2), ValueError, "momentum must be at least"),
    "batch_norm: eps": (lambda: F.batch_norm(x, ones, ones, eps=-1), ValueError, "eps must be at least 0, got -1"),
    "batch_norm: eps NaN": (lambda: F.batch_norm(x, ones, ones, eps=float("nan")), ValueError, "eps must be"),
    "relu: None": (lambda: F.relu(None), TypeError, "x must be a Tensor or an array, got NoneType"),
    "max_pool2d: kernel": (lambda: F.max_pool2d(x, 7), ValueError, "kernel_size spans 7 along H, more than"),
    "conv2d: float16": (
        lambda: F.conv2d(np.float16(x), np.float16(w)),
        TypeError,
        "x must have dtype float32 or float64",
    ),
    "batch_norm: read-only statistics": (
        lambda: F.batch_norm(x, np.zeros(4), np.broadcast_to(1.0, 4), training=True),
        ValueError,
        "running_var must be writable in training, got a read-only array",
    ),
    "batch_norm: no image": (
        lambda: F.batch_norm(x[:0], np.zeros(4), np.ones(4)),
        ValueError,
        "x must not be empty, got shape (0, 4, 5, 6)",
    ),
    "cross_entropy: a row without a number": (
        lambda: F.cross_entropy(np.full((2, 3), -np.inf), np.array([0, 1])),
        ValueError,
        "logits must hold a number above −inf for every label",
    ),
    "AdaptiveAvgPool2d: a word": (lambda: mr.nn.AdaptiveAvgPool2d("x"), TypeError, "output_size must be an int or an"),
    "models.create: batch_norm": (
        lambda: mr.models.create("resnet20", batch_norm="no"),
        TypeError,
        "batch_norm must be true or false, got 'no'",
    ),
    "a model of a list": (lambda: mr.models.create("resnet20")([[1]]), TypeError, "x must be a Tensor or an array"),
    "data.load: a list": (lambda: mr.data.load(["digits"]), ValueError, "unknown data set ['digits']"),
    "set_num_threads: too many": (lambda: mr.set_num_threads(10**6), ValueError, "threads must be at most 4096"),
    "max_pool2d: padding": (lambda: F.max_pool2d(x, 2, padding=2), ValueError, "padding must be at most half"),
    "max_pool2d: kernel 0": (lambda: F.max_pool2d(x, 0), ValueError, "kernel_size must be at least 1"),
    "avg_pool2d: padding": (lambda: F.avg_pool2d(x, 3, padding=2), ValueError, "padding must be at most half"),
    "avg_pool2d: stride": (lambda: F.avg_pool2d(x, 3, stride=-1), ValueError, "stride must be at least 1"),
    "adaptive: size": (lambda: F.adaptive_avg_pool2d(x, 0), ValueError, "output_size must be at least 1"),
    "adaptive: empty": (lambda: F.adaptive_avg_pool2d(x[:, :, :0], 1), ValueError, "x must not be empty"),
    "linear: features": (lambda: F.linear(x, np.ones((3, 5))), ValueError, "x must be (..., 5) for a weight"),
    "linear: bias": (lambda: F.linear(x, np.ones((3, 6)), ones), ValueError, "bias must have shape (3,), got (4,)"),
    "reshape": (lambda: F.reshape(x, (7, -1)), ValueError, "shape must hold the 240 elements"),
    "reshape: two -1": (lambda: F.reshape(x, (-1, -1)), ValueError, "shape must hold"),
    "reshape: -2": (lambda: F.reshape(x, -2), ValueError, "shape must be at least -1"),
    "flatten": (lambda: F.flatten(x, 4), ValueError, "start_dim must lie in [-4, 3]"),
    "pad: pairs": (lambda: F.pad(x, ((1, 1),)), ValueError, "pad must hold a (before, after) pair for each"),
    "pad: negative": (lambda: F.pad(ones, ((-1, 0),)), ValueError, "pad must be at least 0"),
    "pad: value": (lambda: F.pad(ones, ((1, 0),), "a"), TypeError, "value must be a number, got 'a'"),
    "softmax: axis": (lambda: F.softmax(x, 4), ValueError, "axis must lie in [-4, 3] for 4 dimensions, got 4"),
    "softmax: scalar": (lambda: F.softmax(np.array(1.0), 1), ValueError, "axis must lie in [-1, 0] for 1 dim"),
    "matmul: shapes": (lambda: F.matmul(z, z), ValueError, "matmul: shapes a (2, 3) and b (2, 3) do not fit"),
    "matmul: scalar": (lambda: F.matmul(z, np.array(1.0)), ValueError, "matmul: shapes a (2, 3) and b () do not fit"),
    "matmul: batches": (lambda: F.matmul(x, x[:, :3].swapaxes(2, 3)), ValueError, "matmul: shapes a (2, 4, 5, 6) and"),
    "matmul: dtypes": (lambda: F.matmul(z, np.float32(z)), TypeError, "operands a and b have dtypes float64 and"),
    "div: shapes": (lambda: mr.tensor(z) / ones, ValueError, "div: shapes (2, 3) and (4,) cannot be broadcast"),
    "pow: None": (lambda: mr.tensor(z) ** None, TypeError, "numbers, not with NoneType"),
    "lt: None": (lambda: mr.tensor(z) < None, TypeError, "numbers, not with NoneType"),
    "max: axis": (lambda: mr.tensor(z).max(2), ValueError, "axis must lie in [-2, 1] for 2 dimensions, got 2"),
    "max: empty": (lambda: mr.tensor(x[:0]).max(0), ValueError, "max over an empty axis: axis 0 of shape (0, 4, 5, 6)"),
    "transpose: axes": (lambda: mr.tensor(z).transpose(0), ValueError, "axes must name each of the 2 axes once"),
    "max_pool2d: booleans": (lambda: F.max_pool2d(x > 0, 1), TypeError, "x must have dtype float32 or float64"),
    "adaptive: size of one": (lambda: F.adaptive_avg_pool2d(x, (1,)), ValueError, "output_size must be an int or an"),
    "dropout: p": (lambda: F.dropout(x, 1.5), ValueError, "p must be at least 0 and at most 1, got 1.5"),
    "cross_entropy: label": (lambda: F.cross_entropy(z, np.array([0, 3])), ValueError, "labels must lie in [0, 3)"),
    "cross_entropy: negative": (lambda: F.cross_entropy(z, np.array([0, -1])), ValueError, "labels must lie in [0, 3)"),
    "cross_entropy: shape": (lambda: F.cross_entropy(z, np.array([0])), ValueError, "labels must have shape (2,)"),
    "cross_entropy: dtype": (lambda: F.cross_entropy(z, np.ones(2)), TypeError, "labels must be integers, got dtype"),
    "cross_entropy: NaN": (lambda: F.cross_entropy(z * np.nan, labels), ValueError, "logits must not hold NaN"),
    "cross_entropy: inf": (lambda: F.cross_entropy(z + np.inf, labels), ValueError, "logits must not hold +inf"),
    "cross_entropy: reduction": (
        lambda: F.cross_entropy(z, labels, reduction="meen"),
        ValueError,
        "Did you mean 'mean'?",
    ),
    "cross_entropy: smoothing": (lambda: F.cross_entropy(z, labels, 2), ValueError, "label_smoothing must be at least"),
    "cross_entropy: no axis": (
        lambda: F.cross_entropy(ones[0], labels),
        TypeError,
        "logits must be a Tensor or an array",
    ),
    "cross_entropy: a scalar": (lambda: F.cross_entropy(np.array(1.0), labels), ValueError, "logits must be (N, C)"),
    "cross_entropy: one axis": (lambda: F.cross_entropy(ones, labels), ValueError, "labels must have shape () for"),
    "cross_entropy: empty": (lambda: F.cross_entropy(z[:0], labels[:0]), ValueError, "logits must not be empty"),
    "nll_loss: NaN": (lambda: F.nll_loss(z * np.nan, labels), ValueError, "log_probs must not hold NaN"),
    "conv2d: no channels": (lambda: F.conv2d(x[:, :0], w[:, :0]), ValueError, "weight has no filters or no channels"),
    "conv2d: no filters": (lambda: F.conv2d(x, w[:0]), ValueError, "weight has no filters or no channels"),
    "batch_norm: no channels": (
        lambda: F.batch_norm(x[:, :0], None, None, training=True),
        ValueError,
        "x must have at least one channel, got shape (2, 0, 5, 6)",
    ),
    "batch_norm: bias": (
        lambda: F.batch_norm(x, ones, ones, ones, w[0, 0, 0]),
        ValueError,
        "bias must have shape (4,)",
    ),
    "batch_norm: variance": (lambda: F.batch_norm(x, ones, np.ones(1)), ValueError, "running_var must have shape (4,)"),
    "max_pool2d: empty": (lambda: F.max_pool2d(x[:, :, :0], 2, padding=1), ValueError, "x must not be empty along H"),
    "avg_pool2d: empty": (lambda: F.avg_pool2d(x[..., :0], 2, padding=1), ValueError, "x must not be empty along W"),
    "linear: no features": (lambda: F.linear(x[..., :0], np.ones((3, 0))), ValueError, "weight must not be empty"),
    "linear: weight's axes": (lambda: F.linear(x, ones), ValueError, "weight must be (out, in), got shape (4,)"),
    "linear: weight's dtype": (
        lambda: F.linear(x, np.ones((3, 6), np.float32)),
        TypeError,
        "weight must have x's dtype",
    ),
    "pad: large value": (lambda: F.pad(ones, ((1, 0),), 10**400), ValueError, "value must fit a float"),
    "pad: complex value": (lambda: F.pad(ones, ((1, 0),), np.complex64(1j)), TypeError, "value must be a number"),
    "cross_entropy: ragged": (lambda: F.cross_entropy(z, [[0], [1, 2]]), ValueError, "labels cannot be made from this"),
    "cross_entropy: words": (
        lambda: F.cross_entropy(z, ["a", "b"]),
        TypeError,
        "labels must be integers, got dtype <U1",
    ),
    "cross_entropy: booleans": (
        lambda: F.cross_entropy(z, z[:, 0] > 2),
        TypeError,
        "labels must be integers, got dtype",
    ),
    "nll_loss: label": (
        lambda: F.nll_loss(z, np.array([3, 0])),
        ValueError,
        "labels must lie in [0, 3) for 3 classes, got 3",
    ),
    "nll_loss: reduction": (lambda: F.nll_loss(z, labels, "summ"), ValueError, "Did you mean 'sum'?"),
    "add: large integer": (lambda: mr.tensor(ones) + 10**400, ValueError, "operand must fit a float"),
    "mul: complex number": (lambda: mr.tensor(ones) * np.complex64(2j), TypeError, "not with complex64"),
    "sub: a span of time": (lambda: np.timedelta64(1, "s") - mr.tensor(ones), TypeError, "not with timedelta64"),
    "add: None": (lambda: None + mr.tensor(ones), TypeError, "numbers, not with NoneType"),
    "add: dtypes": (lambda: mr.tensor(ones) + np.ones(4, np.float32), TypeError, "add: operands have dtypes float64"),
    "mean: integers": (lambda: mr.tensor(labels).mean(), TypeError, "mean: the tensor must have a floating dtype"),
    "mean: booleans": (
        lambda: mr.tensor(z > 1).mean(),
        TypeError,
        "mean: the tensor must have a floating dtype, got bool",
    ),
    "sum: axis 1.0": (lambda: mr.tensor(x).sum(1.0), TypeError, "axis must be an integer, got 1.0"),
    "sum: axis True": (lambda: mr.tensor(x).sum(True), TypeError, "axis must be an integer, got True"),
    "mean: axis": (lambda: mr.tensor(x).mean((0, -5)), ValueError, "axis must lie in [-4, 3]"),
    "reshape: method": (lambda: mr.tensor(x).reshape(7, 7), ValueError, "shape must hold the 240 elements of x"),
    "reshape: 2.0": (lambda: mr.tensor(x).reshape(2.0, -1), TypeError, "shape must be an integer, got 2.0"),
    "reshape: None": (lambda: mr.tensor(x).reshape(None), TypeError, "shape must be an integer, got None"),
    "index: array": (lambda: mr.tensor(ones)[labels], TypeError, "index must be made of integers, slices"),
    "index: list": (lambda: mr.tensor(ones)[[0, 1]], TypeError, "index must be made of integers, slices"),
    "index: True": (lambda: mr.tensor(ones)[True], TypeError, "index must be made of integers, slices"),
    "index: 1.0": (lambda: mr.tensor(ones)[1.0], TypeError, "index must be made of integers, slices"),
    "index: word": (lambda: mr.tensor(ones)["a"], TypeError, "index must be made of integers, slices"),
    "index: too many": (lambda: mr.tensor(ones)[0, 0], IndexError, "index (0, 0) does not fit shape (4,)"),
    "index: step 0": (lambda: mr.tensor(ones)[::0], ValueError, "does not fit shape (4,)"),
    "index: odd bounds": (lambda: mr.tensor(ones)["a":], TypeError, "does not fit shape (4,)"),
    "tensor: array": (lambda: mr.tensor("a"), TypeError, "array must hold real numbers"),
    "network: None": (lambda: mr.models.create(None), ValueError, "unknown network None"),
    "network's misspelt option": (
        lambda: mr.models.create("resnet20", num_clases=3),
        TypeError,
        "resnet20 has no option 'num_clases'",
    ),
    "network's width": (
        lambda: mr.models.create("resnet20", width=2.5),
        TypeError,
        "width must be an integer, got 2.5",
    ),
    "network's channels": (
        lambda: mr.models.create("resnet20", in_channels=True),
        TypeError,
        "in_channels must be an int",
    ),
    "network's stride": (lambda: mr.models.create("resnet50", stride_in="2x2"), ValueError, "stride_in must be one of"),
    "backend: None": (lambda: mr.backend(None).__enter__(), ValueError, "backend must be one of 'reference'"),
    "threads: 1.5": (lambda: mr.set_num_threads(1.5), TypeError, "threads must be an integer, got 1.5"),
    "threads: True": (lambda: mr.set_num_threads(True), TypeError, "threads must be an integer, got True"),
    "sum: axis": (lambda: mr.tensor(x).sum(axis=4), ValueError, "axis must lie in [-4, 3]"),
    "sum: axis twice": (lambda: mr.tensor(x).sum(axis=(0, -4)), ValueError, "axis names an axis twice"),
    "mean: empty": (lambda: mr.tensor(x[:0]).mean(), ValueError, "mean over an empty axis"),
    "index: boolean": (lambda: mr.tensor(ones)[ones > 0], TypeError, "index must be made of integers, slices"),
    "index: too large": (lambda: mr.tensor(ones)[4], IndexError, "index 4 does not fit shape (4,)"),
    "network": (lambda: mr.models.create("resnet21"), ValueError, "Did you mean 'resnet"),
    "network's option": (lambda: mr.models.create("resnet18", shortcut="D"), ValueError, "shortcut must be one of"),
    "network's foreign option": (lambda: mr.models.create("vgg16", shortcut="B"), TypeError, "shortcut"),
    "network's classes": (lambda: mr.models.create("resnet20", num_classes=0), ValueError, "num_classes must be at"),
    "backend": (lambda: mr.backend("referenze").__enter__(), ValueError, "Did you mean 'reference'?"),
    "backend's option": (lambda: mr.backend("reference", gemm="a").__enter__(), TypeError, "has no option 'gemm'"),
    "threads": (lambda: mr.set_num_threads(0), ValueError, "at least 1"),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_error_names_the_argument(case):
    call, kind, message = TABLE[case]
    with pytest.raises(kind) as failure:
        call()
    assert type(failure.value) is kind
    assert message in str(failure.value)
    frames = [entry.path for entry in failure.traceback]
    assert "numpy" not in str(frames[-1]), "the error comes from deep inside NumPy"


NUMBERS = [-1, 0, 1, 2, 2.5, float("nan"), True, 10**30, -(10**400)]
OTHERS = [None, "a", [], (), (1, 2, 3), (1, 2), object(), np.zeros((0, 3)), x, w, z, ones, labels]
ODD = st.sampled_from(NUMBERS + OTHERS)
CALLS = st.sampled_from(["conv2d", "max_pool2d", "cross_entropy", "batch_norm"])
FUNCTIONS = [getattr(F, name) for name in F.__all__]


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(function=st.sampled_from(FUNCTIONS), arguments=st.lists(ODD, min_size=1, max_size=5))
def test_junk_gives_a_type_error_a_value_error_or_an_answer(function, arguments):
    try:
        result = function(*arguments)
    except (TypeError, ValueError):
        return
    assert isinstance(result, mr.Tensor)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf − inf
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    value=ODD, position=st.integers(0, 4), call=st.sampled_from(["conv2d", "max_pool2d", "cross_entropy", "batch_norm"])
)
def test_one_odd_argument_among_good_ones(value, position, call):
    good = {
        "conv2d": [x, w, np.ones(3), 1, 0],
        "max_pool2d": [x, 2, 1, 1, 1],
        "cross_entropy": [z, labels, 0.1, "mean"],
        "batch_norm": [x, ones.copy(), ones.copy(), ones, ones],
    }[call]
    arguments = [value if i == position else argument for i, argument in enumerate(good)]
    try:
        result = getattr(F, call)(*arguments)
    except (TypeError, ValueError):
        return
    assert isinstance(result, mr.Tensor)


SCORES = {"labels": labels, "reduction": "mean", "weight": np.ones(3), "ignore_index": 1}
GOOD = {  # every function with an array or a value for each of its arguments
    "conv2d": {"x": x, "weight": w, "bias": np.ones(3), "stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "batch_norm": {
        "x": np.arange(240.0).reshape(x.shape),
        "running_mean": ones,
        "running_var": ones,
        "weight": ones,
        "bias": ones,
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "batch_norm_add_relu": {
        "x": np.arange(240.0).reshape(x.shape),
        "running_mean": ones,
        "running_var": ones,
        "weight": ones,
        "bias": ones,
        "shortcut": np.ones(x.shape),
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "fused_conv2d": {
        "x": x,
        "weight": w,
        "bias": np.ones(3),
        "stride": 1,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
        "running_mean": np.ones(3),
        "running_var": np.ones(3),
        "gamma": np.ones(3),
        "beta": np.ones(3),
        "eps": 1e-5,
        "shortcut": None,
        "relu": True,
    },
    "relu": {"x": x},
    "max_pool2d": {"x": x, "kernel_size": 2, "stride": 1, "padding": 1, "dilation": 1, "ceil_mode": False},
    "avg_pool2d": {
        "x": x,
        "kernel_size": 2,
        "stride": 1,
        "padding": 1,
        "ceil_mode": True,
        "count_include_pad": False,
        "divisor_override": 3,
    },
    "adaptive_avg_pool2d": {"x": x, "output_size": 2},
    "linear": {"x": x, "weight": np.ones((3, 6)), "bias": np.ones(3)},
    "flatten": {"x": x, "start_dim": 1, "end_dim": 2},
    "reshape": {"x": x, "shape": (4, -1)},
    "pad": {"x": ones, "pad": ((1, 2),), "value": 0.5},
    "exp": {"x": x},
    "log": {"x": x},
    "sqrt": {"x": x},
    "tanh": {"x": x},
    "sigmoid": {"x": x},
    "matmul": {"a": z, "b": z.T},
    "softmax": {"x": x, "axis": 1},
    "log_softmax": {"x": x, "axis": 1},
    "dropout": {"x": x, "p": 0.5, "training": True},
    "cross_entropy": {"logits": z, **SCORES, "label_smoothing": 0.1},
    "nll_loss": {"log_probs": z, **SCORES},
}
TENSORS = {"x", "a", "b", "weight", "bias", "logits", "log_probs", "running_mean", "running_var"}
TENSORS |= {"gamma", "beta", "shortcut"}
PAIRS = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1, "output_size": 1}  # and the least value of each
NUMBERS_BETWEEN = {"momentum": 1, "eps": None, "p": 1, "label_smoothing": 1}  # 0 and what
INTEGERS = {"groups", "start_dim", "end_dim", "axis"}
LOSSES = {"cross_entropy", "nll_loss"}
OPTIONAL = {
    *[("conv2d", "bias"), ("linear", "bias"), ("batch_norm", "weight"), ("batch_norm", "bias")],
    *[("batch_norm_add_relu", name) for name in ("weight", "bias", "shortcut")],
    *[("fused_conv2d", name) for name in ("bias", "gamma", "beta", "shortcut")],
    *[("max_pool2d", "stride"), ("avg_pool2d", "stride"), ("cross_entropy", "weight"), ("nll_loss", "weight")],
}


def wrong_values():
    """(function, argument, value, error) for every argument there is."""
    for function, arguments in GOOD.items():
        for argument in arguments:
            type_errors, value_errors = [], []
            if argument in TENSORS:
                type_errors = ["a", 1.0, [1.0, 2.0], object(), np.ones(2, int), np.ones(2, bool), np.ones(2, complex)]
                if function == "max_pool2d":  # integers are welcome
                    type_errors.pop(4)
            elif argument in PAIRS:
                type_errors = [True, 2.5, "a", object(), (1, 2.5), (1, True), ("a", 1), (1.0, 1.0), ones]
                least = PAIRS[argument]
                value_errors = [
                    least - 1,
                    (least, least - 1),
                    (-3, least),
                    (least - 1,),
                    (1, 2, 3),
                    [],
                    10**30,
                    (1, 10**400),
                ]
                if function in ("conv2d", "fused_conv2d") and argument == "padding":  # two words are welcome
                    value_errors.append(type_errors.pop(type_errors.index("a")))
            elif argument in INTEGERS:
                type_errors = [None, True, 1.0, "a", object(), (1, 2), ones]
                value_errors = [10**30, -(10**400), -5]
            elif argument == "ignore_index":
                type_errors = [True, 1.0, "a", object(), (1, 2), ones]
                value_errors = [10**30, -(10**400)]
            elif argument == "divisor_override":
                type_errors = [True, 1.0, "a", object(), (1, 2), ones]
                value_errors = [0, 10**30, -(10**400)]
            elif argument in NUMBERS_BETWEEN:
                type_errors = [None, "0.5", b"0.5", True, np.True_, 1j, np.complex64(1), object(), [0.5], ones]
                value_errors = [-0.1, float("nan"), float("inf"), -(10**400), 10**400]
                value_errors += [NUMBERS_BETWEEN[argument] + 0.1] if NUMBERS_BETWEEN[argument] else []
            elif argument == "reduction":
                value_errors = ["Mean", "", None, 0, ["mean"], "average"]
            elif argument == "labels":
                type_errors = [None, "a", 1.0, np.ones(2), np.ones(2, bool), [0, 10**30], object()]
                value_errors = [0, [0], np.zeros((2, 1), int), np.array([0, 3]), np.array([-1, 0]), [[0], [0, 1]]]
            elif argument == "value":
                type_errors = [None, "a", True, np.True_, 1j, np.complex64(1), ones, object()]
                value_errors = [10**400, -(10**400)]
            elif argument == "pad":
                type_errors = [((1.0, 0),), ((True, 0),), (("a", 0),), ((None, 0),)]
                value_errors = [None, 1, "ab", (), (1, 2), ((1, 2), (1, 2)), ((1,),), ((-1, 0),), ((0, 10**30),)]
            elif argument == "shape":
                type_errors = [None, "a", 2.0, (2.0, -1), (True, -1), object(), [None]]
                value_errors = [(-1, -1), (7, -1), 239, -2, (0, -1), (), 10**30, (2, -240)]
            if (function, argument) not in OPTIONAL and argument in TENSORS - {"running_mean", "running_var"}:
                type_errors.append(None)
            if (function, argument) not in OPTIONAL and argument in PAIRS:
                type_errors.append(None)
            yield from ((function, argument, value, TypeError) for value in type_errors)
            yield from ((function, argument, value, ValueError) for value in value_errors)


@pytest.mark.parametrize(
    ("function", "argument", "value", "error"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}-{i}") for i, row in enumerate(wrong_values())],
)
def test_every_argument_is_checked_under_its_own_name(function, argument, value, error):
    with pytest.raises(error) as failure:
        getattr(F, function)(**GOOD[function] | {argument: value})
    assert type(failure.value) is error
    assert re.search(rf"\b{argument}\b", str(failure.value))
    assert "numpy" not in str(failure.traceback[-1].path), "the error comes from deep inside NumPy"


def test_no_function_and_no_argument_is_left_out():
    assert set(GOOD) == set(F.__all__)
    for function, arguments in GOOD.items():
        assert set(arguments) == set(inspect.signature(getattr(F, function)).parameters)
        assert isinstance(getattr(F, function)(**arguments), mr.Tensor)  # so that the one odd value is what fails


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf − inf
@pytest.mark.parametrize("function", GOOD)
def test_each_odd_value_in_each_place_and_backward(function):
    """What is not refused has an answer, and the answer a gradient of the input's shape."""
    answers = 0
    odd = [np.zeros((0, 4, 5, 6)), np.zeros((2, 0, 5, 6)), np.zeros((2, 4, 0, 6)), np.ones((2, 4, 5, 6), np.float32)]
    for argument, good in GOOD[function].items():
        for value in [*NUMBERS, *OTHERS, *odd, good]:
            copies = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in GOOD[function].items()}
            arguments = copies | {argument: value.copy() if isinstance(value, np.ndarray) else value}
            leaves = []
            for name in TENSORS - {"running_mean", "running_var"} - ({"weight"} if function in LOSSES else set()):
                if isinstance(arguments.get(name), np.ndarray) and arguments[name].dtype.kind == "f":
                    arguments[name] = mr.tensor(arguments[name], requires_grad=True)
                    leaves.append(arguments[name])
            try:
                y = getattr(F, function)(**arguments)
            except (TypeError, ValueError):
                continue
            y.backward(np.ones(y.shape))
            assert leaves
            assert all(leaf.grad.shape == leaf.shape for leaf in leaves), (argument, value)
            answers += 1
    assert answers >= len(GOOD[function])
