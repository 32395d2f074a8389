"""Operations of any backend beside the reference backend, small awkward cases and large ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

import minires.functional as F
from minires import backends
from minires.arrays import Array
from minires.tensor import Tensor
from minires.verify import cases
from minires.verify.properties import PROPERTIES, expect

from .fences import among_nan, fenced
from .rounding import near_or_tiny


def agree_with_reference(backend: str, operation: str, seeds: int = 12, **options: Any) -> None:
    """Outputs and gradients of awkward cases of an operation, and its properties; in double precision."""
    for number in range(seeds):
        case, expected = _case(operation, number)
        # The order in which the emulator runs the threads of a block: ascending, and two shuffled ones.
        order = {"seed": number % 3} if backend == "emulated" else {}
        with fenced(backend, **options, **order):
            found = _forward_and_gradients(case.fn, case.inputs)
        for position, (one, other) in enumerate(zip(found, expected, strict=True)):
            name = f"{case.description}: " + (f"the gradient of input {position - 1}" if position else "the output")
            near_or_tiny(one, other, 1e-11, name)
    for number, holds in enumerate(PROPERTIES.get(operation, ())):
        with fenced(backend, **options):
            holds(np.random.default_rng(number))


@cache
def _case(operation: str, number: int) -> tuple[cases.Case, list[Array]]:
    """A case, the last ones larger than a block of threads where there is one, and what the reference backend gives."""
    rng = np.random.default_rng((11, number))
    large = LARGE.get(operation, ())
    case = large[number](rng) if number < len(large) else cases.draw(operation, cases.random_pick(rng), rng)
    with backends.backend("reference"):
        return case, _forward_and_gradients(case.fn, case.inputs)


def _forward_and_gradients(fn: Callable[..., Tensor], inputs: Sequence[Array]) -> list[Array]:
    tensors = [Tensor(among_nan(array), requires_grad=True) for array in inputs]
    y = fn(*tensors)
    result = np.array(y.data)
    y.backward(np.random.default_rng(y.ndim).standard_normal(y.shape))
    unmodified = all(np.array_equal(t.data, array) for t, array in zip(tensors, inputs, strict=True))
    expect(unmodified, "an input was changed")
    return [result, *(np.zeros(t.shape) if t.grad is None else np.array(t.grad) for t in tensors)]


def _no_oracle(*_: Array) -> Array:
    raise NotImplementedError


def _large(fn: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Callable[[np.random.Generator], cases.Case]:
    def case(rng: np.random.Generator) -> cases.Case:
        return cases.Case(fn, [rng.standard_normal(s) for s in shapes], _no_oracle, f"of shapes {shapes}")

    return case


def _far_from_zero(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x + 30, None, None, weight, bias, training=True)


def _in_evaluation(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    C = x.shape[1]
    return F.batch_norm(x, np.linspace(-1, 1, C), np.linspace(0.5, 2, C), weight, bias, eps=0.1)


def _labels(logits: Tensor) -> Any:
    N, C = logits.shape
    return np.arange(N) * 7 % C


# Larger than a block of threads, and no multiple of one: several blocks of pixels, channels beyond a warp or a vector.
LARGE: dict[str, tuple[Callable[[np.random.Generator], cases.Case], ...]] = {
    "batch_norm": (_large(_far_from_zero, (5, 37, 23, 17), (37,), (37,)),),
    "batch_norm_eval": (_large(_in_evaluation, (5, 37, 23, 17), (37,), (37,)),),
    "relu": (_large(F.relu, (3, 37, 5, 7)), _large(F.relu, (40_003,))),
    "add": (_large(lambda a, b: a + b, (3, 37, 5, 7), (3, 37, 5, 7)), _large(lambda a, b: a + b, (1003,), (1003,))),
    "max_pool2d": (
        _large(lambda x: F.max_pool2d(x, 3, 2, 1), (2, 70, 7, 6)),
        _large(lambda x: F.max_pool2d(x, (17, 16), (3, 2), (1, 8)), (1, 3, 20, 40)),  # the tap no longer fits a byte
    ),
    "avg_pool2d": tuple(  # the last window along W begins on the image and ends beyond the padding
        _large(lambda x, counted=counted: F.avg_pool2d(x, 3, 2, 1, True, counted), (2, 70, 7, 6))
        for counted in (False, True)
    ),
    "adaptive_avg_pool2d": (_large(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 70, 7, 6)),),
    "softmax": (_large(F.softmax, (11, 70)),),
    "log_softmax": (_large(F.log_softmax, (11, 70)),),
    "cross_entropy": (
        _large(lambda x: F.cross_entropy(x, _labels(x), 0.1), (11, 70)),
        _large(lambda x: F.cross_entropy(x, _labels(x)), (11, 70)),
    ),
    "linear": (_large(F.linear, (70, 150), (40, 150), (40,)),),
}
