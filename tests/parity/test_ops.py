"""Every operation beside PyTorch's in float64: forward and every gradient, all options, random cotangents."""

from __future__ import annotations

import itertools
import operator
from functools import partial

import numpy as np
import pytest

import minires as mr
import minires.functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


TOLERANCE = 1e-10  # relative to the largest value: sums of a few thousand products keep 12 of float64's 16 digits


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.isfinite(theirs).all(), "beside an infinity every difference is small"
    scale = max(float(np.abs(theirs).max(initial=0.0)), 1e-3)
    difference = float(np.abs(ours - theirs).max(initial=0.0))
    assert difference <= TOLERANCE * scale, f"differs by {difference:.2g}, largest value {scale:.2g}"


def compare(ours, theirs, *arrays, rng):
    """Runs both functions on the arrays, which may have any strides; compares outputs and all gradients."""
    mine = [mr.tensor(array, requires_grad=True) for array in arrays]
    other = [torch.from_numpy(np.array(array, order="C")).requires_grad_() for array in arrays]
    y, z = ours(*mine), theirs(*other)
    close(y.data, z)
    cotangent = rng.standard_normal(z.shape)
    y.backward(cotangent)
    z.backward(torch.from_numpy(cotangent))
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad)


def channels_last(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "kernel", "bias"),
    [
        *[(s, p, 1, 1, (3, 2), True) for s, p in itertools.product([1, 2, (1, 3)], [0, 1, (2, 0)])],
        ((2, 1), (1, 2), (2, 3), 1, (2, 3), False),
        (1, 0, 1, 2, (1, 1), True),
        (2, 0, 1, 1, (1, 1), False),
        (2, 3, 1, 1, (7, 7), False),
        ((3, 2), (0, 1), (1, 2), 3, (1, 3), True),
        (1, (2, 1), (2, 1), 6, (3, 3), False),
        (4, 0, 1, 1, (2, 2), True),
    ],
)
def test_conv2d(rng, stride, padding, dilation, groups, kernel, bias):
    x = channels_last(rng.standard_normal((2, 6, 11, 9)))
    w = rng.standard_normal((12, 6 // groups, *kernel))
    arrays = [x, w] + [rng.standard_normal(12)] * bias
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    compare(lambda *a: F.conv2d(*a, **geometry), lambda *a: TF.conv2d(*a, **geometry), *arrays, rng=rng)


@pytest.mark.parametrize("shape", [(5, 1), (4, 3), (3, 2, 7), (2, 5, 3, 4)])
@pytest.mark.parametrize("affine", [0, 1, 2])
@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.7, 1e-2)])
def test_batch_norm(rng, shape, affine, momentum, eps):
    C = shape[1]
    parameters = [rng.standard_normal(C) for _ in range(affine)]
    mean, var = rng.standard_normal(C), rng.uniform(0.5, 2, C)
    their_mean, their_var = torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())
    for training in (True, True, False, True):
        x = rng.standard_normal(shape) * 3 + 1
        options = {"training": training, "momentum": momentum, "eps": eps}
        compare(
            lambda x, *p, options=options: F.batch_norm(x, mean, var, *p, **options),
            lambda x, *p, options=options: TF.batch_norm(x, their_mean, their_var, *p, **options),
            x,
            *parameters,
            rng=rng,
        )
        close(mean, their_mean)
        close(var, their_var)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        *[(3, 2, 1, 1), (2, None, 0, 1), ((3, 2), (1, 3), (1, 0), 1)],
        *[(2, (2, 1), 0, (3, 2)), (1, 3, 0, 1), ((4, 3), 3, (2, 1), 1)],
    ],
)
def test_max_pool2d(rng, kernel, stride, padding, dilation, ceil_mode):
    x = channels_last(rng.standard_normal((2, 3, 10, 7)))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    compare(lambda x: F.max_pool2d(x, kernel, **options), lambda x: TF.max_pool2d(x, kernel, **options), x, rng=rng)


def test_max_pool2d_gives_a_tie_to_the_same_one(rng):
    x = rng.integers(0, 2, (3, 2, 8, 9)).astype(np.float64)
    compare(lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: TF.max_pool2d(x, 3, 2, 1), x, rng=rng)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (2, None, 0), ((3, 2), (1, 3), (1, 0)), (1, 3, 0), ((4, 3), 3, (2, 1))]
)
def test_avg_pool2d(rng, kernel, stride, padding, ceil_mode, count_include_pad):
    x = rng.standard_normal((2, 3, 10, 7))[:, :, ::-1]
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    compare(lambda x: F.avg_pool2d(x, kernel, **options), lambda x: TF.avg_pool2d(x, kernel, **options), x, rng=rng)


@pytest.mark.parametrize("size", [1, 2, (3, 5), (7, 1), (10, 9), (None, 2)])
def test_adaptive_avg_pool2d(rng, size):
    x = rng.standard_normal((2, 3, 7, 5))
    compare(lambda x: F.adaptive_avg_pool2d(x, size), lambda x: TF.adaptive_avg_pool2d(x, size), x, rng=rng)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(rng, shape, bias):
    arrays = [rng.standard_normal(shape), rng.standard_normal((5, 4)).T] + [rng.standard_normal(4)] * bias
    compare(F.linear, TF.linear, *arrays, rng=rng)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3)), ((2, 1, 4), (3, 1)), ((), (2, 2)), ((1,), (5,)), ((4, 1), (1, 3))]
)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "truediv", "pow"])
def test_arithmetic(rng, shapes, op):
    a, b = (np.asarray(rng.standard_normal(shape)) for shape in shapes)
    a = np.asarray(abs(a)) if op == "pow" else a
    compare(getattr(operator, op), getattr(operator, op), a, b, rng=rng)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, -1.5])
def test_powers_of_and_to_numbers(rng, exponent):
    x = rng.uniform(0.2, 2, (3, 4)) * (rng.choice([-1, 1], (3, 4)) if isinstance(exponent, int) else 1)
    compare(lambda x: x**exponent, lambda x: x**exponent, x, rng=rng)
    compare(lambda x: 1.5**x, lambda x: 1.5**x, x, rng=rng)


@pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning")
def test_powers_of_zero(rng):
    a, b = (m.ravel() for m in np.meshgrid([0.0, 0.5, 2.0], [0.0, 1.0, 2.0]))
    compare(lambda a, b: a**b, lambda a, b: a**b, a, b, rng=rng)


@pytest.mark.parametrize(
    "shapes",
    [
        *[((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4))],
        *[((5, 1, 2, 3), (6, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 6, 3, 4)), ((2, 0), (0, 3)), ((0, 3), (3, 2))],
    ],
)
def test_matmul(rng, shapes):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    compare(operator.matmul, operator.matmul, a, b, rng=rng)
    compare(F.matmul, torch.matmul, np.asfortranarray(a), b[..., ::-1], rng=rng)


@pytest.mark.parametrize("op", ["exp", "log", "sqrt", "tanh", "sigmoid"])
def test_elementary_functions(rng, op):
    for x in (rng.standard_normal((3, 4, 2)).T * 3, np.asarray(rng.standard_normal(()))):
        x = np.asarray(abs(x) if op in ("log", "sqrt") else x)
        compare(getattr(F, op), getattr(torch, op), x, rng=rng)
        compare(lambda x: getattr(x, op)(), getattr(torch, op), x, rng=rng)


def test_transpose(rng):
    x = rng.standard_normal((2, 3, 4))
    compare(lambda x: x.transpose(2, 0, 1), lambda x: x.permute(2, 0, 1), x, rng=rng)
    compare(lambda x: x.transpose(-1, 1, 0), lambda x: x.permute(-1, 1, 0), x, rng=rng)
    compare(lambda x: x.T, lambda x: x.T, x[0], rng=rng)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_maximum_and_its_ties(rng, axis, keepdims):
    every = tuple(range(3)) if axis is None else axis
    for x in (rng.standard_normal((3, 4, 5)), rng.integers(0, 3, (3, 4, 5)).astype(float)):
        compare(lambda x: x.max(axis, keepdims), lambda x: x.amax(every, keepdims), x, rng=rng)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_of_a_scalar_and_of_nothing(rng, op):
    for shape, axis in (((), 0), ((), -1), ((0,), 0), ((2, 0), 1), ((0, 3), 0), ((0, 3), -1)):
        x = np.asarray(rng.standard_normal(shape))
        ours, theirs = (partial(getattr(f, op), **{name: axis}) for f, name in ((F, "axis"), (TF, "dim")))
        compare(ours, theirs, x, rng=rng)


def test_one_number_stands_for_both_axes(rng):
    x, w = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 2, 3, 3))
    options = {"stride": (2,), "padding": (1,), "dilation": (2,)}
    compare(lambda *a: F.conv2d(*a, groups=2, **options), lambda *a: TF.conv2d(*a, groups=2, **options), x, w, rng=rng)
    window = {"kernel_size": (3,), "stride": (2,), "padding": (1,)}
    for name, options in (("max_pool2d", window | {"dilation": (1,)}), ("avg_pool2d", window)):
        ours, theirs = (partial(getattr(f, name), **options) for f in (F, TF))
        compare(ours, theirs, x, rng=rng)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64])
def test_max_pool2d_of_integers(rng, dtype):
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (2, 3, 9, 8), dtype, endpoint=True)
    for options in ((3, 2, 1), (2, None, 0, (3, 2)), ((3, 2), (1, 3), (1, 0), 1, True)):
        y = F.max_pool2d(x, *options)
        assert not y.requires_grad
        np.testing.assert_array_equal(y.data, TF.max_pool2d(torch.from_numpy(x), *options).numpy(), strict=True)


def test_arithmetic_with_numbers(rng):
    x = rng.standard_normal((3, 4))
    compare(lambda x: 2 - x * 3 + (-x) * 0.5 + 1, lambda x: 2 - x * 3 + (-x) * 0.5 + 1, x, rng=rng)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (1,)])
@pytest.mark.parametrize("op", ["sum", "mean"])
def test_reductions(rng, op, axis, keepdims):
    x = rng.standard_normal((3, 4, 5)).transpose(2, 0, 1)
    every = tuple(range(3)) if axis is None else axis
    compare(
        lambda x: getattr(x, op)(axis=axis, keepdims=keepdims),
        lambda x: getattr(x, op)(dim=every, keepdim=keepdims),
        x,
        rng=rng,
    )


@pytest.mark.parametrize(
    "index", [(slice(None), slice(None, None, 2)), 1, (Ellipsis, -1), (None, slice(1, 3)), (0, slice(3, 3)), (-1, 2, 0)]
)
def test_slices(rng, index):
    compare(lambda x: x[index], lambda x: x[index], rng.standard_normal((3, 4, 5)), rng=rng)


def test_shapes(rng):
    x = rng.standard_normal((2, 3, 4)).transpose(1, 2, 0)
    compare(lambda x: x.reshape((4, -1)), lambda x: x.reshape(4, -1), x, rng=rng)
    compare(lambda x: F.flatten(x), lambda x: x.flatten(1), x, rng=rng)
    compare(lambda x: F.flatten(x, 0), lambda x: x.flatten(), x, rng=rng)
    pads = ((1, 0), (0, 2), (3, 1))
    compare(lambda x: F.pad(x, pads, 1.5), lambda x: TF.pad(x, (3, 1, 0, 2, 1, 0), value=1.5), x, rng=rng)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(rng, op, axis):
    x = rng.standard_normal((3, 4, 5)) * 20
    compare(lambda x: getattr(F, op)(x, axis), lambda x: getattr(TF, op)(x, axis), x, rng=rng)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("extra", [(), (3, 2)])
def test_losses(rng, reduction, smoothing, extra):
    logits, labels = rng.standard_normal((4, 5, *extra)) * 3, rng.integers(0, 5, (4, *extra))
    compare(
        lambda z: F.cross_entropy(z, labels, smoothing, reduction),
        lambda z: TF.cross_entropy(z, torch.from_numpy(labels), label_smoothing=smoothing, reduction=reduction),
        logits,
        rng=rng,
    )
    compare(
        lambda z: F.nll_loss(z, labels, reduction),
        lambda z: TF.nll_loss(z, torch.from_numpy(labels), reduction=reduction),
        logits,
        rng=rng,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [None, -7, 2])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3, 2)])
def test_losses_with_weights_and_ignored_labels(rng, shape, weighed, ignored, smoothing, reduction):
    logits = rng.standard_normal(shape) * 3
    labels = rng.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ())
    labels = np.where(labels == ignored, 0, labels)
    if labels.ndim and ignored is not None:
        labels.flat[::3] = ignored
    weight = rng.uniform(0.2, 2, 5) if weighed else None
    theirs = {"weight": None if weight is None else torch.from_numpy(weight), "reduction": reduction}
    theirs |= {} if ignored is None else {"ignore_index": ignored}
    options = {"weight": weight, "ignore_index": ignored}
    compare(
        lambda z: F.cross_entropy(z, labels, smoothing, reduction, **options),
        lambda z: TF.cross_entropy(z, torch.from_numpy(labels), label_smoothing=smoothing, **theirs),
        logits,
        rng=rng,
    )
    compare(
        lambda z: F.nll_loss(z, labels, reduction, **options),
        lambda z: TF.nll_loss(z, torch.from_numpy(labels), **theirs),
        logits,
        rng=rng,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3, 2)])
def test_probabilities_as_labels(rng, shape, weighed, smoothing, reduction):
    """And the gradient of the probabilities themselves."""
    weight = rng.uniform(0.2, 2, 5) if weighed else None
    theirs = {"weight": None if weight is None else torch.from_numpy(weight), "reduction": reduction}
    compare(
        lambda z, t: F.cross_entropy(z, t, smoothing, reduction, weight=weight),
        lambda z, t: TF.cross_entropy(z, t, label_smoothing=smoothing, **theirs),
        *[rng.standard_normal(shape) * 3, rng.random(shape)],
        rng=rng,
    )


@pytest.mark.parametrize("kernel", [(2, 3), (4, 1), (3, 3)])
@pytest.mark.parametrize("dilation", [1, (2, 3), (1, 2)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_padding_by_a_word(rng, kernel, dilation):
    x, w = channels_last(rng.standard_normal((2, 4, 9, 8))), rng.standard_normal((6, 2, *kernel))
    for word in ("same", "valid"):
        options = {"padding": word, "dilation": dilation, "groups": 2}
        compare(lambda *a, o=options: F.conv2d(*a, **o), lambda *a, o=options: TF.conv2d(*a, **o), x, w, rng=rng)


def test_relu(rng):
    x = rng.standard_normal((3, 4, 5))
    x[0, 0, 0] = 0
    compare(F.relu, TF.relu, x, rng=rng)


def test_dropout_keeps_what_torch_scales(rng):
    """The masks differ, but what is kept is scaled alike, and the gradient is the mask's."""
    x = rng.standard_normal((50, 40))
    tensor = mr.tensor(x, requires_grad=True)
    y = F.dropout(tensor, 0.3)
    kept = y.data != 0
    scale = torch.nn.functional.dropout(torch.ones(1000, dtype=torch.float64), 0.3).max().item()
    np.testing.assert_allclose(y.data[kept], x[kept] * scale, rtol=1e-15)
    cotangent = rng.standard_normal(x.shape)
    y.backward(cotangent)
    np.testing.assert_allclose(tensor.grad, cotangent * kept * scale, rtol=1e-15)


def strided(array, layout):
    """The same values in another memory layout."""
    if layout == "backwards":
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "every second":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array.T.copy().T


@pytest.mark.parametrize("layout", ["backwards", "every second", "transposed"])
@pytest.mark.parametrize("op", ["conv2d", "linear", "batch_norm", "max_pool2d", "avg_pool2d", "softmax", "mul", "pad"])
def test_every_input_and_the_cotangent_may_be_strided(rng, op, layout):
    ours, theirs, *shapes = {
        "conv2d": (
            lambda *a: F.conv2d(*a, (1, 2), 1),
            lambda *a: TF.conv2d(*a, (1, 2), 1),
            *[(2, 4, 6, 5), (3, 4, 3, 2), (3,)],
        ),
        "linear": (F.linear, TF.linear, (3, 2, 5), (4, 5), (4,)),
        "batch_norm": (
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            lambda x, w, b: TF.batch_norm(x, None, None, w, b, training=True),
            *[(3, 4, 5, 2), (4,), (4,)],
        ),
        "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: TF.max_pool2d(x, 3, 2, 1), (2, 3, 7, 5)),
        "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), lambda x: TF.avg_pool2d(x, 3, 2, 1), (2, 3, 7, 5)),
        "softmax": (lambda x: F.softmax(x, 1), lambda x: TF.softmax(x, 1), (2, 3, 4)),
        "mul": (lambda a, b: a * b, lambda a, b: a * b, (2, 3, 4), (3, 1)),
        "pad": (lambda x: F.pad(x, ((0, 0), (2, 1))), lambda x: TF.pad(x, (2, 1)), (3, 4)),
    }[op]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    mine = [mr.tensor(strided(array, layout), requires_grad=True) for array in arrays]
    other = [torch.from_numpy(array).requires_grad_() for array in arrays]
    y, z = ours(*mine), theirs(*other)
    close(y.data, z)
    cotangent = rng.standard_normal(z.shape)
    y.backward(strided(cotangent, layout))
    z.backward(torch.from_numpy(cotangent))
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad)


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3))[1:])
@pytest.mark.parametrize("op", ["conv2d", "linear", "batch_norm", "batch_norm_eval"])
def test_any_of_the_inputs_may_be_frozen(rng, op, wanted):
    statistics = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    theirs = [torch.from_numpy(array.copy()) for array in statistics]
    ours, other, *shapes = {
        "conv2d": (lambda *a: F.conv2d(*a, padding=1), lambda *a: TF.conv2d(*a, padding=1), (2, 4, 6, 5), (3, 4, 3, 2)),
        "linear": (F.linear, TF.linear, (6, 4), (3, 4)),
        "batch_norm": (
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            lambda x, w, b: TF.batch_norm(x, None, None, w, b, training=True),
            *[(3, 4, 5), (4,)],
        ),
        "batch_norm_eval": (
            lambda x, w, b: F.batch_norm(x, *statistics, w, b),
            lambda x, w, b: TF.batch_norm(x, *theirs, w, b),
            *[(3, 4, 5), (4,)],
        ),
    }[op]
    arrays = [rng.standard_normal(shape) for shape in (*shapes, shapes[1][:1])]
    mine = [mr.tensor(array, requires_grad=g) for array, g in zip(arrays, wanted, strict=True)]
    tensors = [torch.from_numpy(array).requires_grad_(g) for array, g in zip(arrays, wanted, strict=True)]
    y, z = ours(*mine), other(*tensors)
    cotangent = rng.standard_normal(z.shape)
    y.backward(cotangent)
    z.backward(torch.from_numpy(cotangent))
    for a, b, g in zip(mine, tensors, wanted, strict=True):
        if g:
            close(a.grad, b.grad)
        else:
            assert a.grad is None


def test_geometries_that_fit_agree_and_those_that_do_not_are_errors_on_both_sides(rng):
    """Convolutions and poolings with every option drawn at random, h and w apart."""

    def some(*options):
        return tuple(int(n) for n in rng.choice(options, 2))

    fitted = refused = 0
    for _ in range(30):
        kernel, stride, dilation, ceil_mode = some(1, 2, 3), some(1, 2, 3, 5), some(1, 1, 2, 3), bool(rng.integers(2))
        half = tuple(int(rng.integers(k // 2 + 1)) for k in kernel)  # of the padding, a pooling allows half the kernel
        padding, include, groups = some(0, 1, 2), bool(rng.integers(2)), int(rng.choice([1, 2]))
        x = rng.standard_normal((2, 4, *some(1, 2, 5, 8)))
        w = rng.standard_normal((6, 4 // groups, *kernel))
        for arrays, name, options in (
            ([x, w], "conv2d", (None, stride, padding, dilation, groups)),
            ([x], "max_pool2d", (kernel, stride, half, dilation, ceil_mode)),
            ([x], "avg_pool2d", (kernel, stride, half, ceil_mode, include)),
        ):
            ours, theirs = getattr(F, name), getattr(TF, name)
            try:
                expected = theirs(*map(torch.from_numpy, arrays), *options)
            except RuntimeError:
                with pytest.raises(ValueError, match=name):
                    ours(*arrays, *options)
                refused += 1
                continue
            fitted += 1
            if not torch.isfinite(expected).all():  # a dilated window that steps over a small image
                np.testing.assert_array_equal(ours(*arrays, *options).data, expected.numpy())
                continue
            compare(
                lambda *a, ours=ours, options=options: ours(*a, *options),
                lambda *a, theirs=theirs, options=options: theirs(*a, *options),
                *arrays,
                rng=rng,
            )
    assert fitted > 40
    assert refused > 3


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_running_statistics_after_two_calls(rng, momentum):
    mean, var = np.zeros(3), np.ones(3)
    their_mean, their_var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for _ in range(2):
        x = channels_last(rng.standard_normal((4, 3, 2, 5)) * 3 + 1)
        F.batch_norm(mr.tensor(x), mean, var, training=True, momentum=momentum)
        TF.batch_norm(torch.from_numpy(x.copy()), their_mean, their_var, training=True, momentum=momentum)
    close(mean, their_mean)
    close(var, their_var)
    assert (mean != 0).all() == (momentum > 0)


@pytest.mark.parametrize("shape", [(6, 3), (2, 1, 3, 4)])
def test_batch_norm_without_statistics_and_with_a_bias_alone(rng, shape):
    compare(
        lambda x, b: F.batch_norm(x, None, None, None, b, training=True, eps=0.1),
        lambda x, b: TF.batch_norm(x, None, None, None, b, training=True, eps=0.1),
        *[rng.standard_normal(shape), rng.standard_normal(shape[1])],
        rng=rng,
    )


def test_statistics_that_move_on_before_backward_change_nothing(rng):
    x, mean, var = rng.standard_normal((4, 3)), rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    mine, other = mr.tensor(x, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
    y = F.batch_norm(mine, mean, var)
    z = TF.batch_norm(other, torch.from_numpy(mean.copy()), torch.from_numpy(var.copy()))
    var *= 100
    cotangent = rng.standard_normal(x.shape)
    y.backward(cotangent)
    z.backward(torch.from_numpy(cotangent))
    close(mine.grad, other.grad)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1, 2), (3, 4, 2, 3)])
def test_labels_of_any_integer_type(rng, dtype, shape):
    logits, labels = rng.standard_normal(shape), rng.integers(0, shape[1], (shape[0], *shape[2:]))
    for ours, theirs in ((F.cross_entropy, TF.cross_entropy), (F.nll_loss, TF.nll_loss)):
        compare(
            lambda z, ours=ours: ours(z, labels.astype(dtype)),
            lambda z, theirs=theirs: theirs(z, torch.from_numpy(labels)),
            logits,
            rng=rng,
        )


def test_cross_entropy_of_impossible_classes_and_huge_logits(rng):
    """A logit of −∞ is a class that cannot be: it costs nothing unless it is the label."""
    logits, labels = rng.standard_normal((4, 5)) * 1e3, np.array([0, 1, 2, 3])
    logits[:, 4] = -np.inf
    compare(
        lambda z: F.cross_entropy(z, labels, reduction="none"),
        lambda z: TF.cross_entropy(z, torch.from_numpy(labels), reduction="none"),
        logits,
        rng=rng,
    )


def test_nan_goes_through_as_in_torch(rng):
    x = rng.standard_normal((1, 2, 5, 6))
    x[0, 0, 1, 1] = x[0, 1, 4, 5] = np.nan
    for ours, theirs in (
        (F.relu, TF.relu),
        (lambda x: F.max_pool2d(x, 2, 1), lambda x: TF.max_pool2d(x, 2, 1)),
        (lambda x: F.avg_pool2d(x, 2, 1), lambda x: TF.avg_pool2d(x, 2, 1)),
    ):
        y = ours(mr.tensor(x)).data
        assert np.isnan(y).any()
        np.testing.assert_allclose(y, theirs(torch.from_numpy(x)).numpy(), rtol=1e-12)


def test_slices_backwards(rng):
    """PyTorch has no negative steps: flip stands in."""
    x = rng.standard_normal((5, 4, 3))
    compare(lambda x: x[::-1], lambda x: x.flip(0), x, rng=rng)
    compare(lambda x: x[3:0:-2, ..., None], lambda x: x[1:4:2].flip(0)[..., None], x, rng=rng)
    compare(lambda x: x[:, ::2, ::2], lambda x: x[:, ::2, ::2], x, rng=rng)


@pytest.mark.parametrize("axis", [(0, 2, 3), (-1, -3), (1,), (3, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_of_images(rng, axis, keepdims):
    x = channels_last(rng.standard_normal((2, 3, 4, 5)))
    compare(lambda x: x.sum(axis, keepdims), lambda x: x.sum(axis, keepdims), x, rng=rng)
    compare(lambda x: x.mean(axis, keepdims), lambda x: x.mean(axis, keepdims), x, rng=rng)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_at_the_ends(rng, p, training):
    compare(lambda x: F.dropout(x, p, training), lambda x: TF.dropout(x, p, training), rng.standard_normal(9), rng=rng)


def test_a_building_block_with_a_projection(rng):
    """Figure 2 of the paper, all in one tape: the same x feeds the branch and the shortcut."""

    def block(f, x, w1, g1, b1, w2, g2, b2, ws):
        h = f.relu(f.batch_norm(f.conv2d(x, w1, None, 2, 1), None, None, g1, b1, training=True))
        h = f.batch_norm(f.conv2d(h, w2, None, 1, 1), None, None, g2, b2, training=True)
        return f.relu(h + f.conv2d(x, ws, None, 2))

    shapes = [(2, 3, 9, 7), (4, 3, 3, 3), (4,), (4,), (4, 4, 3, 3), (4,), (4,), (4, 3, 1, 1)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    compare(lambda *a: block(F, *a), lambda *a: block(TF, *a), *arrays, rng=rng)
