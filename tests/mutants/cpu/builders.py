"""How a bug in csrc/cpu is written down, and the checks that several kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import agreement

from ..bug import Bug, inside

Checks = Sequence[Callable[[], None]]
Edits = Sequence[tuple[str, str]]

CONVOLUTIONS: Checks = [agreement.native_convolutions]
WINOGRAD: Checks = [partial(agreement.native_convolutions, winograd=True)]
PRODUCTS: Checks = [agreement.native_products]
FOLLOWED: Checks = [partial(agreement.what_follows_a_convolution, winograd=False)]
WINOGRAD_FOLLOWED: Checks = [partial(agreement.what_follows_a_convolution, winograd=True)]


def kernel(name: str, file: str, checks: Checks, edits: Edits) -> Iterator[Bug]:
    return inside(name, f"cpu/{file}", f"void {name}(", checks, edits)


def shared(file: str, scope: str, checks: Checks, edits: Edits) -> Iterator[Bug]:
    return inside(file, f"cpu/{file}", scope, checks, edits)


@cache
def operation(name: str) -> Callable[[], None]:
    return partial(agreement.agree_with_reference, "native", name)
