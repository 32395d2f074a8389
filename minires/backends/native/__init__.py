"""The backend `native`: the C++ kernels of csrc/cpu on NumPy arrays, the default on a CPU where it is installed.

compiled   the kernels as they were compiled: instruction sets, threads, memory
backend    the contract of a backend, computed by them
"""

from __future__ import annotations

from minires.backends.native.backend import NativeBackend
from minires.backends.native.compiled import default_winograd, instruction_set

_made: dict[tuple[str, bool], NativeBackend] = {}


def create(isa: str = "auto", winograd: bool | None = None) -> NativeBackend:
    """isa: avx512, avx2, portable, or the best this processor has; winograd: False switches it off (see `conv2d`)."""
    kernels = instruction_set(isa)
    winograd = default_winograd() if winograd is None else winograd
    if not isinstance(winograd, bool):
        raise TypeError(f"winograd must be true or false, got {winograd!r}")
    key = (kernels.name, winograd)
    if key not in _made:
        _made[key] = NativeBackend(kernels, winograd)
    return _made[key]
