"""What computes: the active backend, one per thread, and the contract that every backend answers to.

A backend is a module of array functions (`conv2d_forward`, `conv2d_backward_input`, ...): arrays in, arrays out, never
a Tensor.  `minires.backends.reference` is the specification; any other is checked against it.  An operation asks
`active()` once, in forward, and stays with that backend in backward.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from minires._checks import choice
from minires.backends.threads import get_num_threads, set_num_threads

__all__ = ["BackendUnavailable", "active", "available", "backend", "get_num_threads", "names", "set_num_threads"]

# name -> (module, what it needs)
_MODULES = {
    "reference": ("minires.backends.reference", ""),
    "native": ("minires.backends.native", "the compiled C++ kernels"),
    "cuda": ("minires.backends.cuda", "CuPy and the hand-written CUDA kernels"),
    "cublas": ("minires.backends.cublas", "CuPy and cuBLAS"),
    "emulated": ("minires.backends.emulated", "the CUDA kernels compiled for the CPU"),
}


class BackendUnavailable(RuntimeError):
    """A backend that minires knows, but that is not part of this installation or cannot run on this machine."""


class _Active(threading.local):
    module: ModuleType | None = None


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


def active() -> ModuleType:
    """The backend that this thread computes with: the innermost `with backend(...)`, else the default."""
    if _active.module is None:
        _active.module = _load(os.environ.get("MINIRES_BACKEND") or "reference", "MINIRES_BACKEND")
    return _active.module


@contextmanager
def backend(name: str) -> Iterator[ModuleType]:
    """Within it, operations of this thread are computed by the named backend.

    name    reference | native | cuda | cublas | emulated; the environment variable MINIRES_BACKEND sets the default.

    Raises ValueError for an unknown name and BackendUnavailable for a backend that this installation lacks; it never
    falls back to another one.
    """
    chosen = _load(name)
    outer, _active.module = _active.module, chosen
    try:
        yield chosen
    finally:
        _active.module = outer


def _load(name: str, argument: str = "backend") -> ModuleType:
    choice(name, argument, names())
    module, needs = _MODULES[name]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise BackendUnavailable(f"backend {name!r} needs {error.name}, which is not installed") from None
        raise BackendUnavailable(f"backend {name!r} is not part of this installation: it needs {needs}") from None
