"""How a bug in csrc/cuda is written down, and the checks that several kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import agreement

from ..bug import Bug, inside

Checks = Sequence[Callable[[], None]]
Edits = Sequence[tuple[str, str]]


def kernel(name: str, file: str, checks: Checks, edits: Edits) -> Iterator[Bug]:
    return inside(name, f"cuda/{file}", f"KERNEL({name})", checks, edits)


def header(file: str, scope: str, checks: Checks, edits: Edits) -> Iterator[Bug]:
    return inside(file, f"cuda/{file}", scope, checks, edits)


@cache
def product(rung: str) -> Callable[[], None]:
    return partial(agreement.products_of_rung, rung)


@cache
def convolution(rung: str, gradients: bool = False) -> Callable[[], None]:
    return partial(agreement.convolutions_of_rung, rung, gradients)


@cache
def operation(name: str) -> Callable[[], None]:
    return partial(agreement.agree_with_reference, "emulated", name)
