"""What `minires verify --exact` runs: operations in awkward and large cases, on every variant of the backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minires.functional as F
from minires import backends
from minires.arrays import Array
from minires.backends.kernels import catalogue
from minires.tensor import Tensor
from minires.verify import bounds, cases
from minires.verify.audit import Audit

# Operation -> the keys of `cases.CASES` that draw it.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "conv2d": ("conv2d",),
    "linear": ("linear",),
    "batch_norm": ("batch_norm", "batch_norm_eval"),
    "relu": ("relu",),
    "add": ("add",),
    "max_pool2d": ("max_pool2d",),
    "avg_pool2d": ("avg_pool2d",),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d",),
    "sum": ("sum",),
    "mean": ("mean",),
    "softmax": ("softmax",),
    "log_softmax": ("log_softmax",),
    "cross_entropy": ("cross_entropy",),
}


@dataclass(frozen=True)
class Variant:
    """A backend with options, as `mr.backend` takes them."""

    backend: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = {True: [], False: ["no winograd"], None: []}[self.options.get("winograd")]
        return " ".join([self.backend, *(str(v) for v in self.options.values() if isinstance(v, str)), *words])

    def computes(self, operation: str, dtype: Any) -> bool:
        """Whether the options matter to this operation and dtype; without options always"""
        rungs = [str(self.options.get(key, "")) for key in ("gemm", "conv2d")]
        if any(rung.endswith(tuple(bounds.OPERAND)) for rung in rungs) and dtype != np.float32:
            return False
        if "winograd" in self.options and not self.options["winograd"]:
            return operation == "conv2d" and dtype == np.float32
        return not any(rungs) or operation == "conv2d" or (bool(rungs[0]) and not rungs[1] and operation == "linear")


def of_backend(backend: str) -> list[Variant]:
    """Everything that the backend can be asked for: instruction sets, Winograd on and off, rungs"""
    if backend == "native":
        from minires.backends.native.compiled import native

        sets = [name for name, kernels in native().instruction_sets().items() if kernels is not None]
        return [Variant(backend, {"isa": isa, "winograd": winograd}) for isa in sets for winograd in (True, False)]
    if backend == "emulated":
        convolutions = [Variant(backend, {"conv2d": rung}) for rung in catalogue.CONVOLUTIONS]
        products = [Variant(backend, {"gemm": rung}) for rung in catalogue.GEMMS]
        return [Variant(backend), *convolutions, *products]
    return [Variant(backend)]


BACKENDS = ("reference", "native", "emulated")  # those that compute on NumPy's arrays
NEEDS_GEOMETRY = ("conv_03_1x1", "conv_08_winograd")  # rungs that refuse other convolutions


def check(
    operations: Sequence[str], chosen: Sequence[Variant], number: int, seed: int, on_step: Callable[[str], None],
    images: int = 8,
) -> list[Audit]:  # fmt: skip
    """Runs `number` awkward cases and as many large ones of each operation, in float32 and float64, on each variant.

    images   of a large case; the emulator takes one
    """
    audits = []
    for variant in chosen:
        audit = Audit(str(variant), variant.backend, **variant.options)
        audits.append(audit)
        with backends.backend(variant.backend, **variant.options):
            for operation in operations:
                on_step(f"{variant}: {operation}")
                for dtype in (np.float32, np.float64):
                    if variant.computes(operation, dtype):
                        _check(
                            audit,
                            variant,
                            operation,
                            dtype,
                            number,
                            seed,
                            1 if variant.backend == "emulated" else images,
                        )
    return audits


def _check(audit: Audit, variant: Variant, operation: str, dtype: Any, number: int, seed: int, N: int) -> None:
    for position, (fn, inputs) in enumerate(drawn(operation, number, seed, N)):
        rng = np.random.default_rng((seed, position))
        tensors = [Tensor(array.astype(dtype), requires_grad=True) for array in inputs]
        try:
            with audit:
                y = fn(*tensors)
                y.backward(rng.standard_normal(y.shape).astype(dtype))
        except ValueError:
            if variant.options.get("conv2d") not in NEEDS_GEOMETRY:
                raise


def drawn(operation: str, number: int, seed: int, N: int) -> Iterator[tuple[Callable[..., Tensor], list[Array]]]:
    """`number` awkward cases and `number` large ones of N images, in float64"""
    rng = np.random.default_rng(seed)
    keys, large = OPERATIONS[operation], LARGE.get(operation, ())
    for i in range(number):
        case = cases.draw(keys[i % len(keys)], cases.random_pick(rng), rng)
        yield case.fn, case.inputs
        if large:
            fn, *shapes = large[i % len(large)]
            yield fn, [rng.standard_normal((N, *shape[1:]) if shape[0] is None else shape) for shape in shapes]


def _evaluated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    C = x.shape[1]
    return F.batch_norm(x, np.linspace(-1, 1, C), np.linspace(0.5, 2, C), weight, bias)


def _labelled(smoothing: float) -> Callable[[Tensor], Tensor]:
    return lambda x: F.cross_entropy(x, np.arange(x.shape[0]) * 7 % x.shape[1], smoothing)


# A function and the shapes of its inputs; None stands for the number of images.
LARGE: dict[str, tuple[tuple[Any, ...], ...]] = {
    "conv2d": (
        (lambda x, w: F.conv2d(x, w, None, 1, 1), (None, 16, 32, 32), (16, 16, 3, 3)),
        (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (None, 17, 31, 29), (33, 17, 3, 3), (33,)),
        (lambda x, w: F.conv2d(x, w), (None, 32, 28, 27), (64, 32, 1, 1)),
        (lambda x, w: F.conv2d(x, w, None, 1, 1), (None, 64, 15, 14), (48, 64, 3, 3)),
        (lambda x, w: F.conv2d(x, w, None, 2, 3), (None, 3, 57, 61), (16, 3, 7, 7)),
        (lambda x, w: F.conv2d(x, w, None, 1, 2, 2, 4), (None, 16, 19, 21), (12, 4, 3, 3)),
    ),
    "linear": ((F.linear, (None, 512), (1000, 512), (1000,)), (F.linear, (None, 37, 70), (65, 70), (65,))),
    "batch_norm": (
        (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (None, 16, 33, 31), (16,), (16,)),
        (_evaluated, (None, 37, 23, 17), (37,), (37,)),
        (lambda x, w, b: F.batch_norm(x + 3, None, None, w, b, training=True), (None, 40, 29, 37), (40,), (40,)),
    ),
    "relu": ((F.relu, (None, 37, 45, 47)),),
    "add": (
        (lambda a, b: a + b, (None, 37, 45, 47), (None, 37, 45, 47)),
        (lambda a, b: a + b, (None, 19, 31, 17), (19, 1, 1)),
    ),
    "max_pool2d": ((lambda x: F.max_pool2d(x, 3, 2, 1), (None, 40, 29, 31)),),
    "avg_pool2d": ((lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), (None, 40, 29, 31)),),
    "adaptive_avg_pool2d": (
        (lambda x: F.adaptive_avg_pool2d(x, 1), (None, 70, 8, 7)),
        (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (None, 70, 17, 16)),
    ),
    "sum": ((lambda x: x.sum((0, 2)), (None, 70, 301)), (lambda x: x.sum(-1), (None, 70, 301))),
    "mean": ((lambda x: x.mean((0, 2)), (None, 70, 301)), (lambda x: x.mean(), (None, 70, 301))),
    "softmax": ((F.softmax, (None, 1000)), (lambda x: F.softmax(x, 1), (None, 10, 99))),
    "log_softmax": ((F.log_softmax, (None, 1000)), (lambda x: F.log_softmax(x, 1), (None, 10, 99))),
    "cross_entropy": ((_labelled(0.0), (None, 1000)), (_labelled(0.1), (None, 1000))),
}
