"""A call recorded as a CUDA graph: what `mr.capture` records with on a GPU, as csrc/cpu/recording.h on the CPU.

While a stream captures, no kernel runs: CUDA notes each launch with the addresses and numbers that it is given.

memory     comes from a pool of the recording's own; later launches use again what earlier ones have freed
numbers    that change between replays lie in arrays; the graph fixes a number that is passed by value
values     cannot be read: CuPy or CUDA raises, and `mr.capture` reports the place
uploads    come from pinned memory, which the graph copies at each launch

CuPy refuses cuBLAS and cuRAND while a stream captures.  None of this has run on a GPU yet: tests use a stand-in.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from minires.arrays import Array, address_of


class _Here(threading.local):
    recording: GraphRecording | None = None


_here = _Here()


def current() -> GraphRecording | None:
    """The recording that captures in this thread, or None."""
    return _here.recording


class GraphRecording:
    """One CUDA graph, or with marks one graph for each part between them.

    cupy    the module
    bytes   how many its arrays will take at a time, if that is known: the pool reserves them in one piece
    eager   the call runs as ever, only in the recording's memory, and nothing is recorded

    Launches go to the caller's current stream.
    """

    constant: tuple[Array, ...] = ()  # no launch is left out of replays
    written: tuple[Array, ...] = ()  # unknown: CUDA does not list what launches write
    refusals = RuntimeError, NotImplementedError, MemoryError  # CuPy's errors while a stream captures

    def __init__(self, cupy: Any, bytes: int, eager: bool) -> None:
        self.cupy, self.eager = cupy, eager
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.blocks: list[tuple[int, int]] = []  # addresses of the pool's memory
        self.pool = cupy.cuda.MemoryPool(partial(_allocate, cupy, self.blocks))
        self.reserve = bytes
        self.graphs: list[Any] = []
        self.checks: list[tuple[Callable[[Array], None], int]] = []  # (check, position of the input)
        self._inputs: list[int] = []  # addresses
        self._pinned: list[Any] = []
        self._context = ExitStack()

    def __enter__(self) -> GraphRecording:
        if not self.eager:
            if current() is not None:
                raise ValueError("this thread is recording already")
            self._context.enter_context(self.stream)
            self.pool.malloc(self.reserve)  # freed at once, so that capturing allocates nothing from the device
            _here.recording = self
            self._context.callback(setattr, _here, "recording", None)
        self._context.enter_context(self.cupy.cuda.using_allocator(self.pool.malloc))
        if not self.eager:
            self.stream.begin_capture()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        with self._context:
            if self.eager:
                return
            try:
                self._end_part()
            except RuntimeError:  # the capture is invalid since the error that ends the call
                if error is None:
                    raise

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def whole(self) -> bool:
        """Whether a replay is one launch."""
        return len(self.graphs) == 1

    def mark(self, array: Array) -> tuple[Place, int]:
        """Ends the current graph; returns the array's place and the number of graphs that compute it."""
        self._end_part()
        self.stream.begin_capture()
        return self.place(array), len(self.graphs)

    def holds(self, array: Array) -> bool:
        """Whether the array's memory is the pool's, and so kept for the replays."""
        if not isinstance(array, self.cupy.ndarray):
            return False
        address = address_of(array)
        return not array.size or any(begin <= address < end for begin, end in self.blocks)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array for the next input."""
        with self.stream, self.cupy.cuda.using_allocator(self.pool.malloc):
            array: Array = self.cupy.empty(shape, dtype)
        self._inputs.append(address_of(array))
        return array

    def upload(self, host: Array) -> Array:
        """A NumPy array on the device.  The graph copies it at each launch, as its memory may be used again there."""
        pinned = self.cupy.cuda.alloc_pinned_memory(host.nbytes)
        np.frombuffer(pinned, host.dtype, host.size)[...] = host.reshape(-1)
        self._pinned.append(pinned)
        array: Any = self.cupy.empty(host.shape, host.dtype)
        array.data.copy_from_host_async(pinned.ptr, host.nbytes)
        return array

    def check_input(self, check: Callable[[Array], None], values: Array) -> None:
        """Runs the check before each replay, on the input whose buffer `values` is."""
        if address_of(values) not in self._inputs:
            raise RuntimeError("values that are checked, such as labels, must be inputs of what is captured")
        self.checks.append((check, self._inputs.index(address_of(values))))

    def place(self, array: Array) -> Place:
        return Place(self.cupy, array)

    def run(self, begin: int, end: int) -> None:
        """Launches the graphs begin … end − 1 on the current stream."""
        for graph in self.graphs[begin:end]:
            graph.launch()

    def run_constants(self) -> None:
        """Nothing is computed once."""

    def peak(self) -> int:
        return self.bytes()

    def bytes(self) -> int:
        """Bytes of its memory."""
        return int(self.pool.total_bytes())

    def _end_part(self) -> None:
        self.graphs.append(self.stream.end_capture())


def _allocate(cupy: Any, blocks: list[tuple[int, int]], size: int) -> Any:
    """Memory for a pool, from the device."""
    memory = cupy.cuda.Memory(size)
    blocks.append((memory.ptr, memory.ptr + size))
    return cupy.cuda.MemoryPointer(memory, 0)


class Place:
    """Where an array lies, without keeping it: its memory may be used again by later launches."""

    def __init__(self, cupy: Any, array: Array) -> None:
        self.cupy, self.address, self.bytes = cupy, address_of(array), array.nbytes
        self.shape, self.dtype, self.strides = array.shape, array.dtype, array.strides

    def checksum(self) -> bytes:
        """A digest of the numbers that lie there now, in their logical order."""
        if not self.bytes:
            return b""
        memory = self.cupy.cuda.UnownedMemory(self.address, self.bytes, self)
        pointer = self.cupy.cuda.MemoryPointer(memory, 0)
        array = self.cupy.ndarray(self.shape, self.dtype, pointer, self.strides).get()
        return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
