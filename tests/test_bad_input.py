"""A user's slip is an error at the call that names the argument, what came and what is allowed."""

from __future__ import annotations

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
    "conv2d: x of three axes": (lambda: F.conv2d(x[0], w), ValueError, "x must be (N, C, H, W), got shape (4, 5, 6)"),
    "conv2d: integer x": (lambda: F.conv2d(x.astype(int), w), TypeError, "x must have a floating dtype, got int64"),
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
    "conv2d: padding 'same'": (lambda: F.conv2d(x, w, padding="same"), TypeError, "padding must be"),
    "conv2d: dilation 0": (lambda: F.conv2d(x, w, dilation=(1, 0)), ValueError, "dilation must be at least 1"),
    "batch_norm: one axis": (lambda: F.batch_norm(ones, ones, ones), ValueError, "x must be (N, C, ...)"),
    "batch_norm: no statistics": (lambda: F.batch_norm(x, None, None), ValueError, "running_mean must be given"),
    "batch_norm: statistics' shape": (lambda: F.batch_norm(x, np.ones(3), ones), ValueError, "running_mean must have"),
    "batch_norm: statistics' type": (lambda: F.batch_norm(x, [1, 2], ones), TypeError, "running_mean must be a plain"),
    "batch_norm: only one": (lambda: F.batch_norm(x, ones, None, training=True), ValueError, "both or not at all"),
    "batch_norm: weight": (lambda: F.batch_norm(x, ones, ones, np.ones(5)), ValueError, "weight must have shape (4,)"),
    "batch_norm: one value": (lambda: F.batch_norm(x[:1, :, :1, :1], None, None, training=True), ValueError, "x must"),
    "batch_norm: momentum": (lambda: F.batch_norm(x, ones, ones, momentum=2), ValueError, "momentum must be at least"),
    "batch_norm: eps": (lambda: F.batch_norm(x, ones, ones, eps=-1), ValueError, "eps must be at least 0, got -1"),
    "batch_norm: eps NaN": (lambda: F.batch_norm(x, ones, ones, eps=float("nan")), ValueError, "eps must be"),
    "relu: None": (lambda: F.relu(None), TypeError, "x must be a Tensor or an array, got NoneType"),
    "max_pool2d: kernel": (lambda: F.max_pool2d(x, 7), ValueError, "kernel_size spans 7 along H, more than"),
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
    "softmax: scalar": (lambda: F.softmax(np.array(1.0)), ValueError, "x must have at least one axis"),
    "softmax: empty": (lambda: F.log_softmax(x[:0], 0), ValueError, "x must not be empty along axis 0"),
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
    "cross_entropy: one axis": (lambda: F.cross_entropy(ones, labels), ValueError, "logits must be (N, C)"),
    "cross_entropy: empty": (lambda: F.cross_entropy(z[:0], labels[:0]), ValueError, "logits must not be empty"),
    "nll_loss: NaN": (lambda: F.nll_loss(z * np.nan, labels), ValueError, "log_probs must not hold NaN"),
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
    call, kind, told = TABLE[case]
    with pytest.raises(kind) as failure:
        call()
    assert type(failure.value) is kind
    assert told in str(failure.value)
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
