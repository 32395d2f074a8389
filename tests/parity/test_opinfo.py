"""PyTorch's own sample inputs (OpInfo), every one of them, for every operation that minires has.

A sample passes, forward and every gradient, or stands under the reason why minires does not take it; then minires must
refuse it with a TypeError or a ValueError.  How many pass and how many each reason excludes is written down in
EXPECTED, so that nothing is left out silently.
"""

from __future__ import annotations

import operator
from collections import Counter

import numpy as np
import pytest

import minires as mr
import minires.functional as F

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="PyTorch's list of operations imports it")
opinfo = pytest.importorskip("torch.testing._internal.common_methods_invocations")
OPERATIONS = {(op.name, op.variant_test_name): op for op in opinfo.op_db}

# Of an element beside the size of its whole array: sums of some dozens of products, in 53 and in 24 bits.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}


class Excluded(Exception):
    """A sample that minires does not take: why, and the call that it must refuse."""

    def __init__(self, reason, call):
        super().__init__(reason)
        self.reason = reason
        self.call = call


# -- how each of PyTorch's calls is written in minires: (input, *args, **kwargs) -> Tensor


def or_none(value):
    """PyTorch takes () for what is left out."""
    return value if value != () else None


def conv2d(x, weight, bias=None, **options):
    return F.conv2d(x, weight, bias, **options)


def max_pool2d(x, *, return_indices=False, **options):
    if return_indices:
        call = lambda: F.max_pool2d(x, return_indices=True, **options)  # noqa: E731
        raise Excluded("return_indices", call)
    return F.max_pool2d(x, **options)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    options = (or_none(stride), padding, ceil_mode, count_include_pad)
    return F.avg_pool2d(x, kernel_size, *options, divisor_override=divisor_override)


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    def call():
        return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)

    if x.ndim < 2:
        raise Excluded("batch_norm of one axis", call)
    if momentum < 0:
        raise Excluded("a negative momentum", call)
    return call()


def softmax(name, x, axis, **options):
    def call():
        return getattr(F, name)(x, axis, **options)

    if "dtype" in options:
        raise Excluded("dtype=", call)
    return call()


def cross_entropy(logits, labels, ignore_index=-100, **options):
    probabilities = isinstance(labels, mr.Tensor)
    return F.cross_entropy(logits, labels, ignore_index=None if probabilities else ignore_index, **options)


def nll_loss(log_probs, labels, ignore_index=-100, **options):
    return F.nll_loss(log_probs, labels, ignore_index=ignore_index, **options)


def pad(x, amounts, mode="constant", value=0.0, **options):
    """PyTorch counts the axes from the last one; a negative amount cuts, which is a slice here."""
    if mode != "constant":
        raise Excluded("pad's modes beside constant", lambda: F.pad(x, amounts, mode=mode))
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2)
    pairs += [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    kept = tuple(slice(max(-b, 0), n + min(a, 0)) for n, (b, a) in zip(x.shape, pairs, strict=True))
    x = x[kept] if min(amounts) < 0 else x
    return F.pad(x, tuple((max(b, 0), max(a, 0)) for b, a in pairs), value)


def reduction(name, x, dim=None, keepdim=False):
    axis = None if dim == [] or dim == () else tuple(dim) if isinstance(dim, list) else dim
    return getattr(x, name)(axis, keepdim)


def getitem(x, index):
    parts = index if isinstance(index, (tuple, list)) else [index]
    if isinstance(index, list) or not all(isinstance(part, (int, slice)) for part in parts):
        raise Excluded("indexing with arrays", lambda: x[index])
    return x[index]


def binary(name, a, b, alpha=1):
    if not isinstance(a, mr.Tensor) and not isinstance(b, mr.Tensor):
        raise Excluded("two plain numbers", None)  # Python's own arithmetic
    b = b if alpha == 1 else b * alpha
    with np.errstate(divide="ignore"):  # 0 to a negative power is infinite: NumPy warns, PyTorch does not
        return ARITHMETIC[name](a, b)


def divide(a, b, rounding_mode=None):
    if rounding_mode is not None:
        plain = not isinstance(a, mr.Tensor) and not isinstance(b, mr.Tensor)
        raise Excluded("rounding_mode=", None if plain else lambda: a // b)
    return binary("truediv", a, b)


def reflected(name, a, b):
    if not isinstance(a, mr.Tensor):
        if name not in ("add", "mul"):
            raise Excluded("a method of Python's numbers", None)  # it gives NotImplemented
        return binary(name, b, a)
    with np.errstate(divide="ignore"):
        return getattr(a, f"__r{name}__")(b)


ARITHMETIC = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "pow", "matmul")},
    **{name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
}

CALLS = {
    ("nn.functional.conv2d", ""): conv2d,
    ("nn.functional.batch_norm", ""): batch_norm,
    ("nn.functional.relu", ""): F.relu,
    ("nn.functional.max_pool2d", ""): max_pool2d,
    ("nn.functional.avg_pool2d", ""): avg_pool2d,
    ("nn.functional.adaptive_avg_pool2d", ""): F.adaptive_avg_pool2d,
    ("nn.functional.linear", ""): F.linear,
    ("nn.functional.dropout", ""): F.dropout,
    ("nn.functional.cross_entropy", ""): cross_entropy,
    ("nn.functional.nll_loss", ""): nll_loss,
    **{("nn.functional.pad", mode): pad for mode in ("constant", "reflect", "replicate", "circular")},
    **{("softmax", kind): lambda *a, **k: softmax("softmax", *a, **k) for kind in ("", "with_dtype")},
    **{("log_softmax", kind): lambda *a, **k: softmax("log_softmax", *a, **k) for kind in ("", "with_dtype")},
    ("flatten", ""): lambda x, start_dim=0, end_dim=-1: F.flatten(x, start_dim, end_dim=end_dim),
    ("reshape", ""): lambda x, shape: x.reshape(tuple(shape)),
    ("neg", ""): lambda x: -x,
    ("__getitem__", ""): getitem,
    **{(name, ""): lambda *a, name=name, **k: binary(name, *a, **k) for name in ("add", "sub", "mul", "pow", "matmul")},
    **{("div", kind): divide for kind in ("no_rounding_mode", "trunc_rounding", "floor_rounding")},
    **{
        (f"__r{name.removeprefix('true')}__", ""): lambda *a, name=name: reflected(name, *a)
        for name in ("add", "sub", "mul", "truediv", "pow", "matmul")
    },
    **{(name, ""): lambda *a, name=name: binary(name, *a) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    **{(name, ""): lambda *a, name=name, **k: reduction(name, *a, **k) for name in ("sum", "mean")},
    ("amax", ""): lambda *a, **k: reduction("max", *a, **k),
    ("permute", ""): lambda x, axes: x.transpose(*axes),
    ("T", ""): lambda x: x.T,
    **{(name, ""): getattr(F, name) for name in ("exp", "log", "sqrt", "tanh", "sigmoid")},
}

# Samples that pass, and those that are excluded by reason.
EXPECTED = {
    ("nn.functional.conv2d", ""): (30, {}),
    ("nn.functional.batch_norm", ""): (7, {"a negative momentum": 3, "batch_norm of one axis": 2}),
    ("nn.functional.relu", ""): (45, {}),
    ("nn.functional.max_pool2d", ""): (720, {"return_indices": 720}),
    ("nn.functional.avg_pool2d", ""): (7, {}),
    ("nn.functional.adaptive_avg_pool2d", ""): (10, {}),
    ("nn.functional.linear", ""): (18, {}),
    ("nn.functional.dropout", ""): (19, {}),
    ("nn.functional.cross_entropy", ""): (21, {}),
    ("nn.functional.nll_loss", ""): (61, {}),
    ("nn.functional.pad", "constant"): (51, {}),
    ("nn.functional.pad", "reflect"): (0, {"pad's modes beside constant": 12}),
    ("nn.functional.pad", "replicate"): (0, {"pad's modes beside constant": 12}),
    ("nn.functional.pad", "circular"): (0, {"pad's modes beside constant": 8}),
    ("softmax", ""): (7, {}),
    ("softmax", "with_dtype"): (0, {"dtype=": 7}),
    ("log_softmax", ""): (7, {}),
    ("log_softmax", "with_dtype"): (0, {"dtype=": 7}),
    ("flatten", ""): (51, {}),
    ("reshape", ""): (46, {}),
    ("neg", ""): (36, {}),
    ("__getitem__", ""): (2, {"indexing with arrays": 14}),
    ("add", ""): (127, {"two plain numbers": 2}),
    ("sub", ""): (127, {"two plain numbers": 2}),
    ("mul", ""): (121, {"two plain numbers": 2}),
    ("__radd__", ""): (119, {}),
    ("__rsub__", ""): (119, {"a method of Python's numbers": 2}),
    ("__rmul__", ""): (119, {}),
    ("matmul", ""): (15, {}),
    ("__rmatmul__", ""): (15, {}),
    ("pow", ""): (121, {}),
    ("__rpow__", ""): (119, {"a method of Python's numbers": 2}),
    ("div", "no_rounding_mode"): (121, {"two plain numbers": 2}),
    ("div", "trunc_rounding"): (0, {"rounding_mode=": 123}),
    ("div", "floor_rounding"): (0, {"rounding_mode=": 123}),
    ("__rdiv__", ""): (119, {}),
    **{(name, ""): (131, {}) for name in ("lt", "le", "gt", "ge", "ne")},
    ("eq", ""): (134, {}),
    ("sum", ""): (20, {}),
    ("mean", ""): (20, {}),
    ("amax", ""): (20, {}),
    ("permute", ""): (68, {}),
    ("T", ""): (2, {}),
    ("exp", ""): (42, {}),
    ("log", ""): (42, {}),
    ("sqrt", ""): (36, {}),
    ("tanh", ""): (36, {}),
    ("sigmoid", ""): (42, {}),
}
# Inputs that PyTorch refuses with an error, and so must minires.
REFUSED = {
    ("nn.functional.conv2d", ""): 10,
    ("nn.functional.max_pool2d", ""): 7,
    ("nn.functional.avg_pool2d", ""): 5,
    ("nn.functional.adaptive_avg_pool2d", ""): 3,
    ("reshape", ""): 8,
    ("mean", ""): 2,
    ("amax", ""): 7,
    ("neg", ""): 1,
}
COUNTED = torch.__version__.startswith("2.13.")  # another version has other samples, for which the same reasons hold


# -- running them


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of calls on a few numbers each: several threads would spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples(op, dtype):
    torch.manual_seed(0)
    mr.manual_seed(0)
    found = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    return found + (list(op.reference_inputs("cpu", dtype, requires_grad=True)) if op.reference_inputs_func else [])


class Ours:
    """PyTorch's arguments as ours: a leaf for each that requires a gradient, a copy of every other floating array."""

    def __init__(self):
        self.leaves = []  # (PyTorch's, ours)
        self.copies = []

    def input(self, value):
        value = self(value)
        return mr.tensor(value) if isinstance(value, np.ndarray) else value

    def __call__(self, value):
        if isinstance(value, torch.Tensor):
            array = value.detach().numpy()
            if value.requires_grad:
                self.leaves.append((value, mr.tensor(array, requires_grad=True)))
                return self.leaves[-1][1]
            if value.is_floating_point():
                self.copies.append((value, array.copy()))
                return self.copies[-1][1]
            return array
        if isinstance(value, (tuple, list)):
            return type(value)(map(self, value))
        return value


def close(ours, theirs, dtype, floor=1e-3):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    finite = np.isfinite(theirs)
    assert np.array_equal(np.where(finite, 0, theirs), np.where(np.isfinite(ours), 0, ours), equal_nan=True)
    ours, theirs = ours[finite], theirs[finite]
    usual = np.abs(theirs[np.abs(theirs) < 1e6]).mean() if (np.abs(theirs) < 1e6).any() else 0
    with np.errstate(over="ignore"):
        error = np.abs(ours - theirs) / (np.abs(theirs) + max(usual, floor))
    assert error.max(initial=0) <= TOLERANCE[dtype], f"off by {error.max(initial=0):.2g}"


def fresh(value):
    """A leaf over the same memory."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def compare(op, call, sample, dtype):
    sample, convert = sample.transform(fresh), Ours()
    x, args = convert.input(sample.input), [convert(arg) for arg in sample.args]
    kwargs = {name: convert(value) for name, value in sample.kwargs.items()}
    y = call(x, *args, **kwargs)
    z = op.op(sample.input, *sample.args, **sample.kwargs)
    if z.dtype == torch.bool:  # a comparison: no gradient
        assert not y.requires_grad
        np.testing.assert_array_equal(y.data, z.numpy(), strict=True)
        return
    random = op.name.endswith("dropout") and 0 < sample.kwargs.get("p", 0.5) < 1 and sample.kwargs.get("training", True)
    cotangent = torch.randn(z.shape, dtype=z.dtype)
    theirs, ours = [leaf for leaf, _ in convert.leaves], [leaf for _, leaf in convert.leaves]
    grads = torch.autograd.grad(z, theirs, cotangent) if theirs else ()
    if ours:
        with np.errstate(divide="ignore"):  # as in the forward of powers of 0
            y.backward(cotangent.numpy())
    if op.name.endswith("relu"):  # where x is NaN, so is y, and the gradient could be anything
        known = ~np.isnan(x.data)
        ours[0].grad, grads = ours[0].grad * known, (grads[0] * torch.from_numpy(np.asarray(known)),)
    pairs = [(y.data, z), *((leaf.grad, grad) for leaf, grad in zip(ours, grads, strict=True))]
    for a, b in [*pairs, *((copy, value) for value, copy in convert.copies)]:
        if random:  # two masks: what both keep is the same, and what is dropped is 0
            mask = np.asarray((y.data != 0) & (z.detach().numpy() != 0))
            assert not a[y.data == 0].any()
            a, b = a * mask, b * torch.from_numpy(mask)
        # The slope of tanh is 1 − y², of which y's rounding spoils the same amount however small it is.
        close(np.asarray(a), b, dtype, 1.0 if op.name == "tanh" else 1e-3)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CALLS, ids="-".join)
def test_every_sample_passes_or_is_refused_for_a_reason(name, dtype):
    op, call = OPERATIONS[name], CALLS[name]
    passed, excluded = 0, Counter()
    for sample in samples(op, dtype):
        try:
            compare(op, call, sample, dtype)
            passed += 1
        except Excluded as excuse:
            excluded[excuse.reason] += 1
            if excuse.call is not None:
                with pytest.raises((TypeError, ValueError)):
                    excuse.call()
        except Exception as error:
            error.add_note(f"{op.name} of {sample.summary()}")
            raise
    if COUNTED:
        assert (passed, dict(excluded)) == EXPECTED[name]
    assert set(excluded) <= set(EXPECTED[name][1])
    assert bool(passed) == bool(EXPECTED[name][0])


@pytest.mark.parametrize("name", REFUSED, ids="-".join)
def test_what_torch_refuses_is_refused(name):
    refused = 0
    for wrong in OPERATIONS[name].error_inputs("cpu"):
        sample, convert = wrong.sample_input, Ours()
        with pytest.raises((TypeError, ValueError)):  # noqa: PT012  (65 axes are refused by NumPy, which holds 64)
            x, args = convert.input(sample.input), [convert(arg) for arg in sample.args]
            kwargs = {k: convert(v) for k, v in sample.kwargs.items()}
            kwargs.pop("return_indices", None)  # what else is wrong with it?
            CALLS[name](x, *args, **kwargs)
        refused += 1
    assert refused == REFUSED[name] or (refused and not COUNTED)


def test_no_operation_is_left_out():
    """Of minires' functions, operators and methods, by PyTorch's names."""
    called = {name.removeprefix("nn.functional.") for name, _ in CALLS}
    operators = {"add", "sub", "mul", "div", "pow", "matmul", "neg", "lt", "le", "gt", "ge", "eq", "ne", "__getitem__"}
    fused = {"batch_norm_add_relu", "fused_conv2d"}  # PyTorch has no such functions
    assert set(F.__all__) - fused | operators | {"sum", "mean", "amax", "permute", "T"} <= called
    assert set(CALLS) == set(EXPECTED)
    # "add", "T" and "div" have none on the CPU, and those of the others call them with a plain number as self.
    plain = {"add", "sub", "mul", "div", "pow", "lt", "le", "gt", "ge", "eq", "ne", "T"}
    plain |= {f"__r{name}__" for name in ("add", "sub", "mul", "div", "pow")}
    if COUNTED:
        asked = {name for name in CALLS if OPERATIONS[name].error_inputs_func}
        assert {name for name, _ in asked - set(REFUSED)} == plain
