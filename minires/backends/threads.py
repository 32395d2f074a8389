"""How many threads the CPU backends use, BLAS included."""

from __future__ import annotations

import os
from contextlib import suppress

from threadpoolctl import ThreadpoolController

from minires._checks import integer
from minires.backends.native.compiled import native
from minires.backends.unavailable import BackendUnavailable

MOST_THREADS = 4096

_controller: ThreadpoolController | None = None
_threads: int | None = None


def set_num_threads(threads: int) -> None:
    """Every CPU backend, and the BLAS library behind NumPy, computes with `threads` threads from now on."""
    global _controller, _threads
    _threads = integer(threads, "threads", 1, MOST_THREADS)
    if _controller is None:
        _controller = ThreadpoolController()  # looks the loaded libraries up once: NumPy's BLAS is loaded by then
    _controller.select(user_api="blas").limit(limits=_threads)
    with suppress(BackendUnavailable):  # without compiled kernels only BLAS has threads
        native().set_num_threads(_threads)


def get_num_threads() -> int:
    """The number of threads last set, or the number of processors this process may use."""
    if _threads is not None:
        return _threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
