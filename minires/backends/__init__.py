"""What computes: the active backend, one per thread, and the contract that every backend answers to.

A backend is a module, or an object, with array functions (`conv2d_forward`, `conv2d_backward_input`, ...): arrays in,
arrays out, never a Tensor.  `minires.backends.reference` is the specification; any other is checked against it.  An
operation asks `active()` once, in forward, and stays with that backend in backward.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from minires._checks import choice
from minires._lazy import directory
from minires.backends.threads import get_num_threads, set_num_threads
from minires.backends.unavailable import BackendUnavailable

__all__ = [
    "BackendUnavailable",
    "active",
    "available",
    "backend",
    "get_num_threads",
    "names",
    "set_num_threads",
    "using",
]
__dir__ = directory(globals())

# name -> (module, what it needs)
_MODULES = {
    "reference": ("minires.backends.reference", ""),
    "native": ("minires.backends.native", "the compiled C++ kernels"),
    "cuda": ("minires.backends.cuda", "CuPy and the hand-written CUDA kernels"),
    "cublas": ("minires.backends.cublas", "CuPy and cuBLAS"),
    "emulated": ("minires.backends.emulated", "the CUDA kernels compiled for the CPU"),
}


class _Active(threading.local):
    backend: Any = None


_active = _Active()


def names() -> tuple[str, ...]:
    """Every backend that minires knows, installed or not."""
    return tuple(_MODULES)


def available() -> dict[str, str]:
    """For every backend "" if it can be used here, otherwise the reason why not."""
    result = {}
    for name in names():
        try:
            _load(name)
            result[name] = ""
        except BackendUnavailable as error:
            result[name] = str(error)
    return result


def active(home: str = "numpy") -> Any:
    """The backend that this thread computes with: the innermost `with backend(...)`, else the default.

    home   the module, "numpy" or "cupy", whose arrays are computed on

    The default is what MINIRES_BACKEND names; without it `native` for NumPy's arrays where it is installed, and
    `reference` otherwise.
    """
    if _active.backend is not None:
        return _active.backend
    return _default(os.environ.get("MINIRES_BACKEND") or "", home)


@cache
def _default(name: str, home: str) -> Any:
    if name:
        return _load(name, "MINIRES_BACKEND")
    if home == "numpy":
        try:
            return _load("native")
        except BackendUnavailable as error:
            # As text: whoever keeps the record would keep, by the error's traceback, the node that asked first.
            logging.getLogger("minires").warning("minires: computing with the backend 'reference': %s", str(error))
    return _load("reference")


@contextmanager
def backend(name: str, **options: Any) -> Iterator[Any]:
    """Within it, operations of this thread are computed by the named backend.

    name      reference | native | cuda | cublas | emulated; the environment variable MINIRES_BACKEND sets the default
    options   of the backend: isa the instruction set (native: "avx512", "avx2", "portable"; MINIRES_ISA sets the
              default), winograd=False rules out Winograd's algorithm (native; MINIRES_WINOGRAD=0 does so by default),
              gemm and conv2d pick a rung of the ladders by its name (cuda, emulated; `minires kernels` lists them),
              compiler how the GPU's were compiled ("nvrtc" or "nvcc"), seed the order in which the emulator runs the
              threads of a block

    Raises ValueError for an unknown name or rung, TypeError for an option that the backend lacks, and
    BackendUnavailable for a backend that this installation lacks; it never falls back to another one.
    """
    with using(_load(name, **options)) as chosen:
        yield chosen


@contextmanager
def using(chosen: Any) -> Iterator[Any]:
    """Within it, operations of this thread are computed by `chosen`, an object that answers the contract."""
    outer, _active.backend = _active.backend, chosen
    try:
        yield chosen
    finally:
        _active.backend = outer


def _load(name: str, argument: str = "backend", **options: Any) -> Any:
    choice(name, argument, names())
    module, needs = _MODULES[name]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise BackendUnavailable(f"backend {name!r} needs {error.name}, which is not installed") from None
        raise BackendUnavailable(f"backend {name!r} is not part of this installation: it needs {needs}") from None
    create = getattr(found, "create", None)
    known = tuple(inspect.signature(create).parameters) if create else ()
    for option in options:
        if option not in known:
            raise TypeError(f"backend {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
    try:
        return create(**options) if create else found
    except BackendUnavailable as error:
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {error}") from None
