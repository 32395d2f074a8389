"""The kernels as they were compiled: `minires._native`, and which of its instruction sets is used."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any

from minires._checks import choice
from minires.backends.compiled import load
from minires.backends.unavailable import BackendUnavailable

INSTRUCTION_SETS = ("avx512", "avx2", "portable")  # of a complete build, the fastest first


@cache
def native() -> ModuleType:
    """minires._native; MINIRES_NATIVE names the folder of another build of it (a sanitizer's)."""
    return load(
        "_native",
        "MINIRES_NATIVE",
        "the C++ kernels are not part of this installation: they are built where pip finds a C++ compiler "
        "(apt install g++, then install minires again)",
    )


def instruction_set(isa: str) -> Any:
    """The kernels of one instruction set; "auto": $MINIRES_ISA, else the best that this processor has."""
    argument = "isa"
    if isinstance(isa, str) and isa == "auto" and os.environ.get("MINIRES_ISA"):
        isa, argument = os.environ["MINIRES_ISA"], "MINIRES_ISA"
    built = native().instruction_sets()  # the best first
    choice(isa, argument, ("auto", *INSTRUCTION_SETS))
    if isa == "auto":
        return next(kernels for kernels in built.values() if kernels is not None)
    if isa not in built:
        raise BackendUnavailable(f"{argument} {isa}: this installation holds kernels of {', '.join(built)} only")
    if built[isa] is None:
        raise BackendUnavailable(f"this processor has no {isa}")
    return built[isa]


def default_winograd() -> bool:
    """Whether convolutions may use Winograd's algorithm: yes, unless MINIRES_WINOGRAD is 0."""
    word = os.environ.get("MINIRES_WINOGRAD") or "1"
    return choice(word, "MINIRES_WINOGRAD", ("0", "1")) == "1"
