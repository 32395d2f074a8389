"""A strict stand-in for the part of CuPy that minires uses: arrays, memory pools, streams that capture, CUDA graphs.

Kernels run in the emulator.  While a stream captures, nothing runs: launches become closures over addresses, which
`Graph.launch` runs.  Then the stand-in raises, and makes the capture invalid, for whatever CUDA or CuPy refuses:

    reading an array, synchronising, uploading from memory that is not pinned, loading a module, cuBLAS
    cudaMalloc, also in the relaxed mode, which permits it: the recording must have reserved its memory
    work on another stream of the thread: it would not be recorded

Memory that is new or was freed holds NaN, and a graph that reads or writes memory that was returned to the device
raises.  `counts` holds cudaMallocs, allocations from any pool, synchronisations, uploads, launches and graphs.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

from minires.backends.compiled import load

UNIT = 512  # bytes: CuPy rounds sizes up to it
counts = Counter()


class CUDARuntimeError(RuntimeError):
    pass


class _Here(threading.local):
    def __init__(self):
        self.streams, self.allocators, self.capturing = [null], [_default_pool.malloc], None


def refuse(what, error=None, invalid=True):
    """Raises if this thread captures."""
    stream = here.capturing
    if stream is not None:
        stream.invalid = stream.invalid or invalid
        raise error or CUDARuntimeError(
            f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing ({what})"
        )


def read(what):
    disallowed = "the current stream is capturing, so synchronous API calls are disallowed"
    refuse(what, RuntimeError(disallowed), invalid=False)
    counts["synchronisations"] += 1


# -- memory


class Block:
    """What one cudaMalloc returned."""

    living: ClassVar = weakref.WeakSet()

    def __init__(self, size):
        raw = np.full(size + UNIT, 0xFF, np.uint8)  # NaN
        skip = -raw.ctypes.data % UNIT
        self.bytes, self.alive = raw[skip : skip + size], True
        self.ptr = self.bytes.ctypes.data
        Block.living.add(self)


class Memory:
    def __init__(self, size):
        self.size = size
        if size:
            refuse("cudaMalloc")
            counts["cudaMallocs"] += 1
        self.block = Block(size)
        self.ptr = self.block.ptr if size else 0

    def __del__(self):
        if hasattr(self, "block"):
            self.block.alive = False
            self.block.bytes[...] = 0xFF


class UnownedMemory:
    def __init__(self, ptr, size, owner):
        self.ptr, self.size = ptr, size
        found = [b for b in Block.living if b.alive and b.ptr <= ptr < b.ptr + len(b.bytes)]
        if not found:
            raise CUDARuntimeError("cudaErrorIllegalAddress")
        (self.block,) = found


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset

    def copy_from_host_async(self, ptr, size, stream=None):
        pinned = next((p for p in Pinned.living if p.ptr == ptr and len(p) >= size), None)
        if pinned is None:
            refuse("a copy from pageable memory")
        source, offset, block = weakref.ref(pinned), self.ptr - self.mem.block.ptr, self.mem.block

        def run():
            if source() is None:
                raise CUDARuntimeError("the pinned memory that is copied has been freed")
            block.bytes[offset : offset + size] = np.frombuffer(source(), np.uint8, size)

        del pinned
        launch(run, [block])


class Pinned(bytearray):
    """Page-locked memory."""

    living: ClassVar = weakref.WeakSet()
    __hash__ = object.__hash__

    def __init__(self, size):
        super().__init__(size)
        self.ptr = np.frombuffer(self, np.uint8).ctypes.data
        Pinned.living.add(self)

    def __eq__(self, other):
        return self is other


class Chunk:
    def __init__(self, memory, offset, size):
        self.memory, self.offset, self.size, self.free = memory, offset, size, True
        self.before = self.after = None

    def split(self, size):
        if self.size > size:
            rest = Chunk(self.memory, self.offset + size, self.size - size)
            rest.before, rest.after = self, self.after
            if self.after:
                self.after.before = rest
            self.after, self.size = rest, size
            return rest
        return None

    def join(self, other):
        """Takes the free chunk behind it in."""
        self.size += other.size
        self.after = other.after
        if self.after:
            self.after.before = self


class Pooled:
    """Memory of a pool; returned to it with the last reference."""

    def __init__(self, chunk, size, arena):
        self.chunk, self.size, self.arena = chunk, size, arena
        self.block, self.ptr = chunk.memory.block, chunk.memory.ptr + chunk.offset

    def __del__(self):
        chunk, arena = self.chunk, self.arena
        if here.capturing is None:  # else its content belongs to launches that have not run
            self.block.bytes[chunk.offset : chunk.offset + chunk.size] = 0xFF
        chunk.free = True
        if chunk.after and chunk.after.free:
            arena.remove(chunk.after)
            chunk.join(chunk.after)
        if chunk.before and chunk.before.free:
            arena.remove(chunk.before)
            chunk = chunk.before
            chunk.join(chunk.after)
        arena.append(chunk)


class Arena(list):
    """Free pieces, and what they are pieces of: held here, as the collector finalises whatever is in one cycle."""

    def __init__(self):
        super().__init__()
        self.memories = []


class MemoryPool:
    """Best fit, with an arena for each stream; pieces are split, and joined when they are freed."""

    def __init__(self, allocator=None):
        self.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self.arenas, self.total = {}, 0

    def malloc(self, size):
        counts["allocations"] += 1
        if not size:
            return MemoryPointer(Memory(0), 0)
        rounded, arena = -(-size // UNIT) * UNIT, self.arenas.setdefault(get_current_stream().ptr, Arena())
        chunk = min((c for c in arena if c.size >= rounded), key=lambda c: c.size, default=None)
        if chunk is None:
            chunk = Chunk(self.allocator(rounded).mem, 0, rounded)
            arena.memories.append(chunk.memory)
            self.total += rounded
        else:
            arena.remove(chunk)
        rest = chunk.split(rounded)
        if rest:
            arena.append(rest)
        chunk.free = False
        return MemoryPointer(Pooled(chunk, size, arena), 0)

    def total_bytes(self):
        return self.total


@contextmanager
def using_allocator(allocator=None):
    here.allocators.append(allocator or _default_pool.malloc)
    try:
        yield
    finally:
        here.allocators.pop()


# -- streams and graphs


class Stream:
    numbers = count(100)

    def __init__(self, non_blocking=False, ptr=None):
        self.non_blocking, self.ptr = non_blocking, next(Stream.numbers) if ptr is None else ptr
        self.work, self.invalid = [], False

    def __enter__(self):
        here.streams.append(self)
        return self

    def __exit__(self, *error):
        here.streams.pop()

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        refuse("cudaStreamBeginCapture")
        here.capturing, self.work, self.invalid = self, [], False

    def end_capture(self):
        if here.capturing is not self:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        here.capturing = None
        if self.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return Graph(self.work)

    def is_capturing(self):
        return here.capturing is self

    def synchronize(self):
        refuse("cudaStreamSynchronize")
        counts["synchronisations"] += 1


class Graph:
    def __init__(self, work):
        self.work = work

    def launch(self, stream=None):
        refuse("cudaGraphLaunch")
        counts["graphs"] += 1
        for run, blocks in self.work:
            if not all(block.alive for block in blocks):
                raise CUDARuntimeError("cudaErrorIllegalAddress: a graph uses memory that was freed")
            run()


null = Stream(ptr=0)
_default_pool = MemoryPool()
here = _Here()


def get_current_stream():
    return here.streams[-1]


def launch(run, blocks):
    """Runs now or, while this thread captures, in the graph."""
    stream = here.capturing
    if stream is None:
        assert all(block.alive for block in blocks)
        counts["launches"] += 1
        run()
    elif get_current_stream() is stream:
        stream.work.append((run, blocks))
    else:
        refuse("work on another stream")


class RawModule:
    def __init__(self, code, options):
        self.code = code

    def compile(self):
        refuse("cuModuleLoad")

    def get_function(self, name):
        def function(grid, block, arguments):
            arrays = [a for a in arguments if isinstance(a, ndarray)]
            assert all(isinstance(a, (ndarray, np.generic)) for a in arguments)
            values = [a.data.ptr if isinstance(a, ndarray) else a.item() for a in arguments]
            emulation = load("_emulation", "MINIRES_EMULATION", "")
            launch(lambda: emulation.launch(name, grid, block, values, 0), [a.data.mem.block for a in arrays])

        return function


# -- arrays


class ndarray:  # CuPy's name
    __array_ufunc__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        self.shape, self.dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
        self.size = int(np.prod(self.shape, dtype=int))
        self.nbytes, self.itemsize = self.size * self.dtype.itemsize, self.dtype.itemsize
        self.data = here.allocators[-1](self.nbytes) if memptr is None else memptr
        self.base = None
        self.strides = np.empty(self.shape, self.dtype, order).strides if strides is None else tuple(strides)

    @property
    def values(self):
        """A NumPy view of the memory."""
        offset = self.data.ptr - self.data.mem.block.ptr if self.size else 0
        memory = self.data.mem.block.bytes if self.size else np.empty(0, np.uint8)
        return np.ndarray(self.shape, self.dtype, memory, offset, self.strides)

    def viewed(self, values):
        """This array's memory as another NumPy view of it lies there."""
        offset = values.ctypes.data - self.data.mem.ptr if self.size else 0
        view = ndarray(values.shape, values.dtype, MemoryPointer(self.data.mem, offset), values.strides)
        view.base = self if self.base is None else self.base
        return view

    ndim = property(lambda self: len(self.shape))
    T = property(lambda self: self.transpose())

    @property
    def flags(self):
        flags = self.values.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=self.base is None
        )

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def get(self):
        read("get")
        return self.values.copy(order="K")

    def item(self):
        return self.get().item()

    __bool__ = lambda self: bool(self.get())  # noqa: E731
    __int__ = lambda self: int(self.get())  # noqa: E731
    __float__ = lambda self: float(self.get())  # noqa: E731
    __index__ = lambda self: self.get().__index__()  # noqa: E731
    __hash__ = None

    def __len__(self):
        return self.shape[0]

    def transpose(self, *axes):
        return self.viewed(self.values.transpose(*axes))

    def reshape(self, *shape):
        values = self.values.reshape(*shape)
        if not self.size or np.may_share_memory(values, self.values):
            return self.viewed(values)
        return compute(lambda a: a.reshape(*shape), self)

    def copy(self, order="C"):
        return compute(lambda a: a.copy(order), self)

    def astype(self, dtype, copy=True):
        return self if not copy and self.dtype == dtype else compute(lambda a: a.astype(dtype), self)

    def fill(self, value):
        self[...] = value

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, ndarray) and k.dtype == bool for k in keys):
            read("an index of truth values")
            return compute(lambda a, *k: a[k], self, *keys)
        if any(isinstance(k, ndarray) for k in keys):
            zeros = tuple(np.zeros(k.shape, int) if isinstance(k, ndarray) else k for k in keys)
            return compute(lambda a, *k: a[k], self, *keys, template=self.values[zeros])
        return self.viewed(self.values[(*keys, ...)] if Ellipsis not in keys else self.values[keys])

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray):
            upload_refused()
        keys = key if isinstance(key, tuple) else (key,)
        place, taken = plain(keys), plain(value)

        def run():
            self_values[place] = taken

        self_values = self.values
        launch(run, blocks_of([self, value, *keys]))


def plain(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return value.values if isinstance(value, ndarray) else value


def blocks_of(values):
    return [v.data.mem.block for v in values if isinstance(v, ndarray)]


def compute(function, *arguments, out=None, template=None, **options):
    """function of NumPy, launched: into `out`, or into a new array laid out as NumPy's result."""
    if any(isinstance(a, np.ndarray) and a.ndim for a in arguments):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    given = plain(arguments)
    if out is None:
        with np.errstate(all="ignore"):
            like = np.asarray(function(*given, **options) if template is None else template)
        if not (like.flags.c_contiguous or like.flags.f_contiguous):
            like = like.copy("K")
        out = ndarray(like.shape, like.dtype, strides=like.strides)
    target = out.values

    def run():
        with np.errstate(all="ignore"):
            target[...] = function(*given, **options)

    launch(run, blocks_of([*arguments, out]))
    return out


def _binary(function):
    return lambda self, other: compute(function, self, other)


for _name, _function in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or, "floordiv": np.floor_divide,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _binary(_function))
    setattr(ndarray, f"__r{_name}__", lambda self, other, f=_function: compute(f, other, self))
    setattr(ndarray, f"__i{_name}__", lambda self, other, f=_function: compute(f, self, other, out=self))
for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
    _short = {"equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt"}.get(_name, "ge")
    setattr(ndarray, f"__{_short}__", _binary(getattr(np, _name)))
for _name, _function in {"neg": np.negative, "invert": np.invert, "abs": np.absolute}.items():
    setattr(ndarray, f"__{_name}__", lambda self, f=_function: compute(f, self))
for _function in (np.sum, np.mean, np.max, np.min, np.argmax, np.all, np.any):
    _name = {"amax": "max", "amin": "min"}.get(_function.__name__, _function.__name__)
    setattr(ndarray, _name, lambda self, *a, f=_function, **options: compute(f, self, *a, **options))
ndarray.__module__ = "cupy"


def upload_refused():
    refuse("an upload from memory that is not pinned")
    counts["uploads"] += 1


def asarray(value, dtype=None):
    if isinstance(value, ndarray):
        return value if dtype is None else value.astype(dtype, copy=False)
    upload_refused()
    return _filled(np.asarray(value, dtype))


def array(value, dtype=None, copy=True, order="K"):
    if isinstance(value, ndarray):
        return compute(lambda a: np.array(a, dtype, order=order), value)
    return asarray(value, dtype)


def _filled(values):
    found = ndarray(values.shape, values.dtype)
    target, source = found.values, values.copy()

    def run():
        target[...] = source

    launch(run, blocks_of([found]))
    return found


def full(shape, value, dtype=None):
    found = ndarray(shape, np.asarray(value).dtype if dtype is None else dtype)
    found.fill(value)
    return found


def full_like(like, value, dtype=None, shape=None):
    return full(like.shape if shape is None else shape, value, like.dtype if dtype is None else dtype)


def matmul(a, b, out=None):
    refuse("cuBLAS", NotImplementedError("calling cuBLAS API during stream capture is currently unsupported"))
    return compute(np.matmul, a, b, out=out)


def _viewing(function):
    return lambda a, *arguments: a.viewed(function(a.values, *arguments))


def _device():
    return SimpleNamespace(id=0, compute_capability="90")


def module():
    """The stand-in, as `import cupy` finds it."""
    cupy = ModuleType("cupy")
    for function in (np.multiply, np.isnan, np.isinf, np.isfinite, np.exp, np.where):
        setattr(cupy, function.__name__, lambda *a, f=function, **options: compute(f, *a, **options))
    cupy.ndarray, cupy.asarray, cupy.array, cupy.RawModule, cupy.full = ndarray, asarray, array, RawModule, full
    cupy.empty = lambda shape, dtype=float: ndarray(shape, dtype)
    cupy.zeros = lambda shape, dtype=float: full(shape, 0, dtype)
    cupy.ones = lambda shape, dtype=float: full(shape, 1, dtype)
    cupy.empty_like = lambda a, dtype=None: ndarray(a.shape, a.dtype if dtype is None else dtype)
    cupy.zeros_like = lambda a, dtype=None: full_like(a, 0, dtype)
    cupy.ones_like = lambda a, dtype=None: full_like(a, 1, dtype)
    cupy.full_like, cupy.matmul, cupy.inf, cupy.nan = full_like, matmul, np.inf, np.nan
    cupy.arange = lambda *a, **options: compute(lambda: np.arange(*a, **options))
    cupy.ascontiguousarray = lambda a: a if a.flags.c_contiguous else compute(np.ascontiguousarray, a)
    cupy.moveaxis, cupy.broadcast_to = _viewing(np.moveaxis), _viewing(np.broadcast_to)
    cupy.may_share_memory = lambda a, b: np.may_share_memory(a.values, b.values)
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError)
    cupy.cuda = SimpleNamespace(
        Stream=Stream, MemoryPool=MemoryPool, Memory=Memory, MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory,
        using_allocator=using_allocator, get_current_stream=get_current_stream, Device=_device, runtime=runtime,
        alloc_pinned_memory=Pinned, compiler=SimpleNamespace(CompileException=ValueError),
    )  # fmt: skip
    return cupy
