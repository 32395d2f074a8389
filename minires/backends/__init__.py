"""What computes: the active backend, one per thread, and the contract that every backend answers to.

A backend is a module, or an object, with array functions (`conv2d_forward`, `conv2d_backward_input`, ...): arrays in,
arrays out, never a Tensor.  `contract.py` lists the functions; `minires.backends.reference` is the specification, and
any other backend is checked against it.  An operation asks `active()` once, in forward, and stays with that backend in
backward.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from minires._checks import suggest
from minires._lazy import directory
from minires._repr import shown
from minires.arrays import array_module
from minires.backends import composed, own
from minires.backends.contract import Backend, Reference
from minires.backends.threads import get_num_threads, set_num_threads
from minires.backends.unavailable import BackendUnavailable

__all__ = [
    "Backend",
    "BackendUnavailable",
    "Reference",
    "active",
    "available",
    "backend",
    "for_arrays",
    "get_num_threads",
    "names",
    "optional",
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


_NUMPY = frozenset((np.ndarray,))
_NUMPY_OR_NONE = frozenset((np.ndarray, type(None)))


class _Active(threading.local):
    backend: Any = None


_active = _Active()


def names() -> tuple[str, ...]:
    """Every backend of minires, installed or not."""
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


def for_arrays(arrays: Sequence[Any], operation: str) -> Any:
    """The active backend for these arrays (None among them is an absent input); `operation` is named in errors."""
    home = "numpy" if _NUMPY <= {*map(type, arrays)} <= _NUMPY_OR_NONE else _home(arrays, operation)
    backend = _active.backend or active(home)
    wanted = getattr(backend, "array_module", None)  # the reference backend takes them all
    if wanted is not None and home != wanted.__name__:
        raise TypeError(f"{operation}: backend {backend.name!r} computes on {wanted.__name__} arrays, got {home}'s")
    return backend


def _home(arrays: Sequence[Any], operation: str) -> str:
    """The module, "numpy" or "cupy", that made the arrays."""
    homes = {array_module(a).__name__ for a in arrays if a is not None}
    if len(homes) > 1:
        both = " and of ".join(sorted(homes))
        raise TypeError(f"{operation}: inputs are arrays of {both}; move them to one device first")
    if not homes:
        raise ValueError(f"{operation}: inputs must hold at least one Tensor, got none")
    return homes.pop()


def optional(backend: Any, function: str) -> Callable[..., Any]:
    """The backend's own optional function or, where it has none, that of `composed`."""
    own = getattr(backend, function, None)
    return own or partial(getattr(composed, function), backend)


@cache
def _default(name: str, home: str) -> Any:
    if name:
        return _load(name, "MINIRES_BACKEND")
    if home == "numpy":
        try:
            return _load("native")
        except BackendUnavailable as error:
            # As text: a log record that holds the error would keep its traceback, and with it a node of the tape.
            logging.getLogger("minires").warning("minires: computing with the backend 'reference': %s", str(error))
    return _load("reference")


@contextmanager
def backend(name: str | Backend | type, **options: Any) -> Iterator[Any]:
    """Within it, operations of this thread are computed by the named backend.

    name      reference | native | cuda | cublas | emulated; the environment variable MINIRES_BACKEND sets the default.
              Options may follow, as in "emulated:conv2d=conv_04_implicit,seed=1".  Or your own backend: an object that
              fulfils `minires.backends.Backend`, its class, or "module:object", imported from the current folder too
    options   of the backend: isa the instruction set (native: "avx512", "avx2", "portable"; MINIRES_ISA sets the
              default), winograd=False rules out Winograd's algorithm (native; MINIRES_WINOGRAD=0 does so by default),
              gemm and conv2d pick a rung of the ladders by its name (cuda, emulated; `minires kernels` lists them), or
              your own kernel, a Path or text that ends in .cu (csrc/README.md describes the file),
              compiler how the GPU's were compiled ("nvrtc" or "nvcc"), seed the order in which the emulator runs the
              threads of a block.  Those of your own class are the arguments that it is made with

    Raises ValueError for an unknown name or rung, TypeError for an option that the backend lacks or for an object that
    does not fulfil the contract, and BackendUnavailable for a backend that this installation lacks; it never falls back
    to another one.
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


def path_of(chosen: Any) -> str:
    """What the configuration of a run calls a backend: its name with the kernels chosen, or your own "module:class"."""
    home = getattr(chosen, "__name__", type(chosen).__module__)
    name: str = getattr(chosen, "path", chosen.name)
    return name if home.startswith("minires.") else f"{type(chosen).__module__}:{type(chosen).__qualname__}"


def on_gpu(name: str | None = None) -> bool:
    """Whether a backend computes on CuPy's arrays; None, and the name of your own, stand for the active one."""
    if name in _MODULES:
        return name in ("cuda", "cublas")
    return getattr(getattr(active(), "array_module", None), "__name__", "") == "cupy"


def _load(name: Any, argument: str = "backend", **options: Any) -> Any:
    base, colon, words = name.partition(":") if isinstance(name, str) else ("", "", "")
    if colon and base not in _MODULES:
        return own.made(own.imported(name, argument), options)
    if own.has_any(name):
        return own.made(name, options)
    if not isinstance(name, str) or base not in _MODULES:
        known = f"{', '.join(map(repr, _MODULES))}, or an object of yours or its module:object"
        raise ValueError(f"{argument} must be one of {known}; got {shown(name)}.{suggest(name, names())}")
    name = base
    module, needs = _MODULES[name]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise BackendUnavailable(f"backend {name!r} needs {error.name}, which is not installed") from None
        raise BackendUnavailable(f"backend {name!r} is not part of this installation: it needs {needs}") from None
    create = getattr(found, "create", None)
    if colon:
        options = own.options_of(name, words, create) | options
    own.check_options(repr(name), create, options)
    try:
        return create(**options) if create else found
    except BackendUnavailable as error:
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {error}") from None
