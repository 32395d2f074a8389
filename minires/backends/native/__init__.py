"""The backend `native`: the C++ kernels of csrc/cpu on NumPy arrays, the default on a CPU where it is installed.

compiled   the kernels as they were compiled: instruction sets, threads, memory
backend    the contract of a backend, computed by them
fused      the same, where an operation may wait for the next one and be computed with it in one pass
"""

from __future__ import annotations

from minires.backends.native.backend import NativeBackend
from minires.backends.native.compiled import default_winograd, instruction_set
from minires.backends.native.fused import FusedBackend

_made: dict[tuple[str, bool], NativeBackend] = {}


def create(isa: str = "auto", winograd: bool | None = None) -> NativeBackend:
    """isa: avx512, avx2, portable, or the best this processor has; winograd: False switches it off (see `conv2d`)."""
    kernels = instruction_set(isa)
    winograd = default_winograd() if winograd is None else winograd
    if not isinstance(winograd, bool):
        raise TypeError(f"winograd must be true or false, got {winograd!r}")
    key = (kernels.name, winograd)
    if key not in _made:
        eager, fused = NativeBackend(kernels, winograd), FusedBackend(kernels, winograd)
        inference = FusedBackend(kernels, winograd, keeps_filters=True)
        for backend in (eager, fused, inference):
            backend.eager, backend.fused, backend.inference = eager, fused, inference
        _made[key] = eager
    return _made[key]
