"""One number explained: which numbers an output or a gradient of an operation was made of.

    with mr.inspect.record("layer1.0.conv1") as calls:
        F.cross_entropy(model(images), labels).backward()
    print(mr.inspect.explain(calls[0], output=(0, 5, 3, 3)))

The terms are computed in float64 from the recorded arrays, by the formulas of the operation's docstring.  They are
independent of the backend, so their total also checks the recorded number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from html import escape
from typing import Any

import numpy as np

from minires._checks import integer
from minires._repr import shown
from minires.arrays import Array, on_cpu
from minires.autograd import Function
from minires.backends.reference.sums import BLOCK
from minires.context import Observer
from minires.inspect.card import input_names

Index = tuple[int, ...]
SHOWN = 4  # groups of terms that the text spells out


@dataclass
class Call:
    """One recorded call of an operation: its arrays in forward and, after backward, in backward.

    operation     name of the class
    module        path of the module that made the call
    options       the attributes that the operation was made with
    inputs        by forward's names
    grads         by the names of the inputs; empty before backward, or where no gradient is needed
    """

    operation: str
    module: str
    options: dict[str, Any] = field(repr=False)
    inputs: dict[str, Array] = field(repr=False)
    output: Array = field(repr=False)
    grad_output: Array | None = field(repr=False, default=None)
    grads: dict[str, Array] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, node: Function, arrays: Sequence[Array | None], output: Array) -> Call:
        """Copies arrays that may change later: parameters and running statistics."""
        named = zip(input_names(node), arrays, node.parents, strict=True)
        inputs = {name: a if isinstance(parent, Function) else a.copy() for name, a, parent in named if a is not None}
        own = {name: value for name, value in vars(node).items() if name not in Function.__annotations__}
        statistics = {name: own[name].copy() for name in ("running_mean", "running_var") if own.get(name) is not None}
        return cls(node.name, node.module, own | statistics, inputs, output)

    def complete(self, node: Function, grad_output: Array, grads: Sequence[Array | None]) -> None:
        """Adds what backward received and returned."""
        self.grad_output = grad_output
        named = zip(input_names(node), grads, strict=True)  # batch norm without weight returns its gradient as well
        self.grads = {name: g for name, g in named if g is not None and name in self.inputs}

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (*self.inputs.values(), self.output))


class record(Observer):
    """A context manager: a list of the calls at a place, each a `Call` for `explain`.

    at   a module's path (with all modules below it), a glob pattern of paths, or an operation's name; None: every call
    """

    def __init__(self, at: str | None = None) -> None:
        if at is not None and not isinstance(at, str):
            raise TypeError(f"at must be a module path, a pattern or the name of an operation, got {shown(at)}")
        self.at = at
        self.calls: list[Call] = []
        self._open: dict[Function, Call] = {}

    def __enter__(self) -> list[Call]:
        super().__enter__()
        return self.calls

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        at = self.at
        if at is None or node.name == at or fnmatchcase(node.module, at) or node.module.startswith(f"{at}."):
            self.calls.append(Call.of(node, arrays, output))
            if any(node.needs_input_grad):
                self._open[node] = self.calls[-1]

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        call = self._open.pop(node, None)
        if call is not None:
            call.complete(node, grad_output, grads)


@dataclass(frozen=True)
class Term:
    """A summand: the factors, and in `text` where they stand.

    errors   how far each factor may be from the backend's, which computes it in its own dtype; empty: 0.  An error that
             all terms have in common is shared out among them.
    """

    text: str
    factors: tuple[float, ...]
    group: str = ""
    errors: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        return math.prod(self.factors)

    @property
    def error(self) -> float:
        """How far the value may be from the backend's."""
        errors = self.errors or (0.0,) * len(self.factors)
        grown = math.prod(abs(factor) + error for factor, error in zip(self.factors, errors, strict=True))
        return grown - abs(self.value)


@dataclass(frozen=True)
class Explanation:
    """The terms of one number.

    heading    which number it is
    rule       how the terms make it
    total      of the terms, in float64
    recorded   what the backend computed
    bound      of |total − recorded|: sums of K rounded products in any order err by at most 2 · K · u · Σ |term|,
               where u is the unit roundoff.  Batch norm adds the errors of its mean and variance.  Winograd's
               algorithm (native, float32, 3×3) may exceed the bound.
    """

    heading: str
    rule: str
    terms: tuple[Term, ...]
    total: float
    recorded: float
    bound: float

    @property
    def agrees(self) -> bool:
        """Whether the recorded number lies within the bound of the total."""
        same = self.total == self.recorded or (math.isnan(self.total) and math.isnan(self.recorded))
        return same or abs(self.total - self.recorded) <= self.bound

    def __str__(self) -> str:
        groups: dict[str, list[Term]] = {}
        for term in self.terms:
            groups.setdefault(term.group, []).append(term)
        largest = sorted(groups, key=lambda name: -abs(sum(term.value for term in groups[name])))
        spelled = [name for name in groups if name in largest[:SHOWN] or not name]
        lines = [self.heading, f"  {self.rule}"]
        for name in spelled:
            lines += [f"  {name}"] if name else []
            for term in groups[name]:
                product = " · ".join(f"{factor:.6g}" for factor in term.factors)
                equal = f" = {term.value:.6g}" if len(term.factors) > 1 else ""
                lines.append(f"    {term.text:36} {product}{equal}")
            if name:
                lines.append(f"    {'sum':36} {sum(term.value for term in groups[name]):.6g}")
        rest = [term.value for name in groups if name not in spelled for term in groups[name]]
        if rest:
            count = len(groups) - len(spelled)
            lines.append(
                f"  {count} more group{'s' if count > 1 else ''} of smaller sums, {len(rest)} terms: {sum(rest):.6g}"
            )
        lines += [f"  total    {self.total!r}", f"  recorded {self.recorded!r}"]
        verdict = "within" if self.agrees else "NOT within"
        return "\n".join(
            [*lines, f"  {abs(self.total - self.recorded):.2g} apart, {verdict} the bound {self.bound:.2g}"]
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def explain(
    call: Any, output: Sequence[int] | None = None, gradient: Sequence[int] | None = None, of: str = "x"
) -> Explanation:
    """The terms of one number of a recorded call.

    call       a `Call` of `record`, or an event of a `Trace`
    output     index of an output, such as (0, 5, 3, 3)
    gradient   index of a number of the gradient of the input `of`; give either `output` or `gradient`
    of         name of the input, such as "x" or "weight"

    ValueError for an index outside of the array, for a gradient that was not computed, and for an event whose arrays
    the trace did not keep.  TypeError for other operations than Conv2d, BatchNorm, ReLU, Add, Linear, MaxPool2d,
    AvgPool2d and AdaptiveAvgPool2d.
    """
    call = getattr(call, "call", call)
    if call is None:
        raise ValueError(
            "call: the trace kept no arrays of this event; mr.inspect.record(at=...) keeps those of a place"
        )
    if not isinstance(call, Call):
        raise TypeError(f"call must be a Call of mr.inspect.record or an event of a Trace, got {shown(call)}")
    if (output is None) == (gradient is None):
        raise ValueError("output: give either output or gradient")
    if call.operation not in _FORWARD:
        raise TypeError(f"call: {call.operation} has no explanation; {', '.join(_FORWARD)} have one")
    if not isinstance(of, str):
        raise TypeError(f"of must be the name of an input, got {shown(of)}")
    if of not in call.inputs and not (of == "x" and output is not None):
        raise ValueError(f"of must be one of {', '.join(call.inputs)}, got {shown(of)}")
    made = f"{call.operation}{f' of {call.module}' if call.module else ''}"
    if output is not None:
        index = _index(output, call.output.shape, "output")
        rule, terms, summands = _FORWARD[call.operation](call, index)
        heading, recorded = f"output{list(index)} of {made}", call.output[index]
    else:
        assert gradient is not None
        if of not in call.grads:
            raise ValueError(f"gradient: the gradient of {of} was not computed: run backward, where {of} requires it")
        index = _index(gradient, call.grads[of].shape, "gradient")
        rule, terms, summands = _BACKWARD[call.operation](call, index, of)
        heading, recorded = f"∂{of}{list(index)} of {made}", call.grads[of][index]
    values = [term.value for term in terms]
    total = math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    bound = 2 * summands * _unit(call) * sum(map(abs, values)) + sum(term.error for term in terms)
    return Explanation(heading, rule, tuple(terms), total, float(recorded), bound)


def _unit(call: Call) -> float:
    return float(np.finfo(call.output.dtype).eps) / 2


def _index(index: Any, shape: tuple[int, ...], name: str) -> Index:
    if not isinstance(index, (tuple, list)) or len(index) != len(shape):
        raise ValueError(f"{name} must be an index of {len(shape)} integers for the shape {shape}, got {shown(index)}")
    found = tuple(integer(i, name) for i in index)
    if not all(0 <= i < n for i, n in zip(found, shape, strict=True)):
        raise ValueError(f"{name} must lie inside the shape {shape}, got {found}")
    return found


Found = tuple[str, list[Term], int]  # the rule, the terms, and how many roundings a sum of them may take


def _at(a: Any, index: Index) -> float:
    return float(a[index])


def _term(parts: Iterable[tuple[str, Any, Index]], group: str = "", *more: tuple[str, float]) -> Term:
    """The product of elements of arrays, and of further named factors."""
    parts = list(parts)
    text = " · ".join(
        [f"{name}{list(index)}".replace(" ", "") for name, _, index in parts] + [name for name, _ in more]
    )
    return Term(text, (*(_at(a, index) for _, a, index in parts), *(factor for _, factor in more)), group)


def _blocks(count: int) -> int:
    """Roundings of a blocked sum of `count` numbers; see minires.backends.reference.sums."""
    return min(count, BLOCK * (int(math.log(max(count, 2), BLOCK)) + 1)) + 8


# -- convolution


def _meets(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, position: int
) -> Iterator[Index]:
    """(output, tap) pairs along one axis whose window holds the input's position."""
    for tap in range(kernel):
        start = position + padding - tap * dilation
        if start % stride == 0 and 0 <= start // stride < out:
            yield start // stride, tap


def _geometry(call: Call, axis: int) -> tuple[int, int, int]:
    return tuple(call.options[name][axis] for name in ("stride", "padding", "dilation"))


def _conv2d(call: Call, index: Index) -> Found:
    n, o, i, j = index
    x, weight = call.inputs["x"], call.inputs["weight"]
    O, Cg, KH, KW = weight.shape
    first = o // (O // call.options["groups"]) * Cg
    (sh, ph, dh), (sw, pw, dw) = _geometry(call, 0), _geometry(call, 1)
    terms = []
    for c, p, q in itertools.product(range(Cg), range(KH), range(KW)):
        h, w = i * sh + p * dh - ph, j * sw + q * dw - pw
        if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
            terms.append(
                _term([("x", x, (n, first + c, h, w)), ("weight", weight, (o, c, p, q))], f"channel {first + c}")
            )
    if "bias" in call.inputs:
        terms.append(_term([("bias", call.inputs["bias"], (o,))]))
    return "the window of x times filter, summed over channels; pixels of the padding count 0", terms, len(terms) + 1


def _conv2d_back(call: Call, index: Index, of: str) -> Found:
    x, weight, g = call.inputs["x"], call.inputs["weight"], call.grad_output
    assert g is not None
    O, Cg, KH, KW = weight.shape
    Og = O // call.options["groups"]
    (sh, ph, dh), (sw, pw, dw) = _geometry(call, 0), _geometry(call, 1)
    _, _, OH, OW = g.shape
    terms = []
    if of == "x":
        n, c, h, w = index
        group = c // Cg
        rows = list(_meets(x.shape[2], OH, KH, sh, ph, dh, h))
        columns = list(_meets(x.shape[3], OW, KW, sw, pw, dw, w))
        for o, (i, p), (j, q) in itertools.product(range(group * Og, (group + 1) * Og), rows, columns):
            terms.append(_term([("g", g, (n, o, i, j)), ("weight", weight, (o, c % Cg, p, q))], f"filter {o}"))
        return "the outputs that saw this pixel, times the flipped filter, summed over filters", terms, len(terms) + 1
    if of == "weight":
        o, c, p, q = index
        first = o // Og * Cg
        for n, i, j in itertools.product(range(len(x)), range(OH), range(OW)):
            h, w = i * sh + p * dh - ph, j * sw + q * dw - pw
            if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
                terms.append(_term([("g", g, (n, o, i, j)), ("x", x, (n, first + c, h, w))], f"image {n}"))
        return "this tap's pixel at every position, times the output's gradient there", terms, len(terms) + 1
    return _sum_of(g, (0, 2, 3), (0, index[0], 0, 0))


def _sum_of(g: Array, axes: tuple[int, ...], index: Index) -> Found:
    """Σ g over some axes, at an index whose entries on these axes are ignored."""
    ranges = [range(n) if axis in axes else (index[axis],) for axis, n in enumerate(g.shape)]
    terms = [_term([("g", g, place)], f"image {place[0]}") for place in itertools.product(*ranges)]
    return "the gradient of the output, summed", terms, len(terms) + 1


# -- batch norm


def _normalised(call: Call, c: int) -> tuple[float, float, np.ndarray]:
    """Mean, 1/√(var + eps), and x̂ of channel c, in float64."""
    x = on_cpu(call.inputs["x"])[:, c].astype(np.float64)
    if call.options["training"]:
        mean, var = float(x.mean()), float(x.var())
    else:
        mean, var = (float(call.options[name][c]) for name in ("running_mean", "running_var"))
    inverse = 1 / math.sqrt(var + call.options["eps"])
    return mean, inverse, (x - mean) * inverse


def _statistics_off(call: Call, c: int) -> tuple[float, float]:
    """How far a backend's mean may be off, and its 1/√(var + eps) relatively, as verify/bounds.py derives them."""
    if not call.options["training"]:
        return 0.0, 0.0
    x = on_cpu(call.inputs["x"])[:, c]
    _, inverse, _ = _normalised(call, c)
    off = 2 * _blocks(x.size) * _unit(call) * float(np.abs(x).max())
    relative = 9 * off * inverse * (1 + off * inverse)  # of the variance: merged parts multiply errors of their means
    return off, 1 / math.sqrt(max(1 - relative, 1e-300)) - 1


def batch_norm_means(call: Call) -> dict[str, list[float]]:
    """For each channel: the mean, 1/√(var + eps) and, after backward, the means of g and of g·x̂."""
    found: dict[str, list[float]] = {"mean": [], "inverse": [], "g": [], "gx": []}
    for c in range(call.output.shape[1]):
        mean, inverse, normed = _normalised(call, c)
        found["mean"].append(mean)
        found["inverse"].append(inverse)
        if call.grad_output is not None:
            g = on_cpu(call.grad_output)[:, c].astype(np.float64)
            found["g"].append(float(g.mean()))
            found["gx"].append(float((g * normed).mean()))
    return found


def _scale(call: Call, c: int) -> float:
    return _at(call.inputs["weight"], (c,)) if "weight" in call.inputs else 1.0


def _batch_norm(call: Call, index: Index) -> Found:
    c, x = index[1], call.inputs["x"]
    mean, inverse, normed = _normalised(call, c)
    scale = inverse * _scale(call, c)
    off, relative = _statistics_off(call, c)
    off += relative * (abs(_at(x, index) - mean) + off)  # 1/√(var + eps) multiplies the difference
    terms = [
        _term([("x", x, index)], "", ("weight / √(var + eps)", scale)),
        Term("−mean · weight / √(var + eps)", (-mean, scale), errors=(off, 0.0)),
    ]
    if "bias" in call.inputs:
        terms.append(_term([("bias", call.inputs["bias"], (c,))]))
    return (
        f"(x − mean) / √(var + eps) · weight + bias, mean {mean:.6g}, 1/√(var + eps) {inverse:.6g}",
        terms,
        _blocks(normed.size),
    )


def _batch_norm_back(call: Call, index: Index, of: str) -> Found:
    c = index[1] if of == "x" else index[0]
    assert call.grad_output is not None
    g = on_cpu(call.grad_output)[:, c].astype(np.float64)
    _, inverse, normed = _normalised(call, c)
    off, relative = _statistics_off(call, c)
    off = off * inverse * (1 + relative)
    normed_off = off + relative * np.abs(normed)
    rounding = 2 * _blocks(g.size) * _unit(call)
    # The error of the mean is common to all terms of Σ g·x̂, so that Σ g multiplies it.
    sum_off = off * abs(float(g.sum())) + relative * abs(float((g * normed).sum()))
    sum_off += rounding * off * float(np.abs(g).sum())
    if of == "x":
        scale, here = inverse * _scale(call, c), (index[0], *index[2:])
        scale_off = relative * abs(scale)
        term = _term([("g", call.grad_output, index)], "", ("weight / √(var + eps)", scale))
        terms = [replace(term, errors=(0.0, scale_off))]
        if call.options["training"]:
            mean_off = rounding * float(np.abs(g).mean())
            terms.append(
                Term("−(mean of g) · weight / √(var + eps)", (-float(g.mean()), scale), errors=(mean_off, scale_off))
            )
            projected = float((g * normed).mean())
            projected_off = sum_off / g.size + rounding * (1 + relative) * float(np.abs(g * normed).mean())
            factors = (-float(normed[here]), projected, scale)
            errors = (float(normed_off[here]), projected_off, scale_off)
            terms.append(Term("−x̂ · (mean of g·x̂) · weight / √(var + eps)", factors, errors=errors))
        rule = "weight / √(var + eps) times: the gradient, less its mean, less its projection on x̂"
        return rule, terms, _blocks(g.size)
    taken = normed if of == "weight" else np.ones_like(normed)
    share = sum_off / max(float(np.abs(g).sum()), 1e-300) if of == "weight" else 0.0
    terms = [
        Term(f"g{[n, c, *rest]}".replace(" ", "") + (" · x̂" if of == "weight" else ""),
             (float(g[(n, *rest)]), float(taken[(n, *rest)])), f"image {n}", (0.0, share))
        for n, *rest in itertools.product(*map(range, g.shape))
    ]  # fmt: skip
    return "the gradient" + (" times x̂" if of == "weight" else "") + ", summed over the channel", terms, _blocks(g.size)


# -- element by element, linear


def _relu(call: Call, index: Index) -> Found:
    x = call.inputs["x"]
    positive = _at(x, index) > 0 or math.isnan(_at(x, index))
    return (
        "x where it is positive, else 0",
        [_term([("x", x, index)])] if positive else [Term("0, as x is not positive", (0.0,))],
        1,
    )


def _relu_back(call: Call, index: Index, of: str) -> Found:
    y = _at(call.output, index)
    rule = f"the gradient passes where the output is positive; here it is {y:.6g}"
    return rule, [_term([("g", call.grad_output, index)])] if y > 0 else [Term("0", (0.0,))], 1


def _broadcast(index: Index, shape: tuple[int, ...]) -> Index:
    """The element of an array of this shape that takes part at the output's index."""
    own = index[len(index) - len(shape) :]
    return tuple(i if n > 1 else 0 for i, n in zip(own, shape, strict=True))


def _add(call: Call, index: Index) -> Found:
    terms = [_term([(name, a, _broadcast(index, a.shape))]) for name, a in call.inputs.items()]
    return "the sum of both inputs", terms, 2


def _add_back(call: Call, index: Index, of: str) -> Found:
    g, shape = call.grad_output, call.inputs[of].shape
    assert g is not None
    lead = g.ndim - len(shape)
    repeated = [axis for axis in range(g.ndim) if axis < lead or shape[axis - lead] == 1 != g.shape[axis]]
    if not repeated:
        return "the gradient of the output, unchanged", [_term([("g", g, index)])], 1
    _, terms, count = _sum_of(g, tuple(repeated), (*(0,) * lead, *index))
    return "the gradient, summed over the axes along which the input was repeated", terms, count


def _linear(call: Call, index: Index) -> Found:
    x, weight = call.inputs["x"], call.inputs["weight"]
    *rows, o = index
    terms = [_term([("x", x, (*rows, k)), ("weight", weight, (o, k))]) for k in range(weight.shape[1])]
    if "bias" in call.inputs:
        terms.append(_term([("bias", call.inputs["bias"], (o,))]))
    return "the row of x times the row of weight", terms, len(terms) + 1


def _linear_back(call: Call, index: Index, of: str) -> Found:
    x, weight, g = call.inputs["x"], call.inputs["weight"], call.grad_output
    assert g is not None
    places = list(itertools.product(*map(range, g.shape[:-1])))
    if of == "x":
        *rows, k = index
        terms = [_term([("g", g, (*rows, o)), ("weight", weight, (o, k))]) for o in range(len(weight))]
        return "the gradient of each output times its weight for this input", terms, len(terms) + 1
    if of == "weight":
        o, k = index
        terms = [_term([("g", g, (*place, o)), ("x", x, (*place, k))]) for place in places]
        return "the gradient of this output times this input, summed over the batch", terms, len(terms) + 1
    terms = [_term([("g", g, (*place, index[0]))]) for place in places]
    return "the gradient of this output, summed over the batch", terms, len(terms) + 1


# -- pooling


def _window(call: Call, i: int, j: int) -> list[Index]:
    """(h, w) of the pixels in the window of output (i, j), in row-major order."""
    _, _, H, W = call.inputs["x"].shape
    if call.operation == "AdaptiveAvgPool2d":
        OH, OW = call.output.shape[2:]
        rows, columns = range(i * H // OH, -(-(i + 1) * H // OH)), range(j * W // OW, -(-(j + 1) * W // OW))
        return list(itertools.product(rows, columns))
    kernel, stride, padding = (call.options[name] for name in ("kernel", "stride", "padding"))
    dilation = call.options.get("dilation", (1, 1))
    ranges = [
        [at * s + p * d - margin for p in range(k)]
        for at, k, s, margin, d in zip((i, j), kernel, stride, padding, dilation, strict=True)
    ]
    return [(h, w) for h, w in itertools.product(*ranges) if 0 <= h < H and 0 <= w < W]


def _size(call: Call, i: int, j: int) -> int:
    """The number that the window's sum is divided by."""
    if not call.options.get("count_include_pad"):
        return len(_window(call, i, j))
    x, options = call.inputs["x"], call.options
    sides = [
        min(k, n + 2 * p - at * s)
        for at, n, k, s, p in zip(
            (i, j), x.shape[2:], options["kernel"], options["stride"], options["padding"], strict=True
        )
    ]
    return sides[0] * sides[1]


def _winner(call: Call, n: int, c: int, i: int, j: int) -> Index | None:
    """The first largest pixel of the window; NaN is larger than every number."""
    x = call.inputs["x"]
    window = _window(call, i, j)
    return max(window, key=lambda at: (math.isnan(v := _at(x, (n, c, *at))), v), default=None)


def _max_pool2d(call: Call, index: Index) -> Found:
    n, c, i, j = index
    x, winner = call.inputs["x"], _winner(call, *index)
    window = ", ".join(f"{_at(x, (n, c, *at)):.6g}" for at in _window(call, i, j))
    terms = (
        [Term("−∞: the window holds padding alone", (-math.inf,))]
        if winner is None
        else [_term([("x", x, (n, c, *winner))])]
    )
    return f"the largest of the window: {window}", terms, 1


def _avg_pool2d(call: Call, index: Index) -> Found:
    n, c, i, j = index
    size = _size(call, i, j)
    terms = [_term([("x", call.inputs["x"], (n, c, h, w))], "", ("1/size", 1 / size)) for h, w in _window(call, i, j)]
    return f"the mean of the window, of size {size}", terms, len(terms) + 1


def _pool_back(call: Call, index: Index, of: str) -> Found:
    n, c, h, w = index
    assert call.grad_output is not None
    _, _, OH, OW = call.grad_output.shape
    seen = [(i, j) for i, j in itertools.product(range(OH), range(OW)) if (h, w) in _window(call, i, j)]
    if call.operation == "MaxPool2d":
        won = [at for at in seen if _winner(call, n, c, *at) == (h, w)]
        terms = [_term([("g", call.grad_output, (n, c, *at))]) for at in won] or [Term("0: it won no window", (0.0,))]
        return f"it lies in {len(seen)} windows and is the largest in {len(won)}: their gradients", terms, len(seen) + 1
    terms = [_term([("g", call.grad_output, (n, c, *at))], "", ("1/size", 1 / _size(call, *at))) for at in seen]
    return "the gradient of each window that holds it, divided by the window's size", terms, len(terms) + 1


_FORWARD: dict[str, Callable[[Call, Index], Found]] = {
    "Conv2d": _conv2d, "BatchNorm": _batch_norm, "ReLU": _relu, "Add": _add, "Linear": _linear,
    "MaxPool2d": _max_pool2d, "AvgPool2d": _avg_pool2d, "AdaptiveAvgPool2d": _avg_pool2d,
}  # fmt: skip
_BACKWARD: dict[str, Callable[[Call, Index, str], Found]] = {
    "Conv2d": _conv2d_back, "BatchNorm": _batch_norm_back, "ReLU": _relu_back, "Add": _add_back,
    "Linear": _linear_back, "MaxPool2d": _pool_back, "AvgPool2d": _pool_back, "AdaptiveAvgPool2d": _pool_back,
}  # fmt: skip
