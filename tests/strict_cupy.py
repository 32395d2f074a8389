"""A strict stand-in for the part of CuPy that minires uses: arrays, memory pools, streams, events, CUDA graphs.

Kernels run in the emulator.  While a stream captures, nothing runs: launches become closures over addresses, which
`Graph.launch` runs.  Then the stand-in raises, and makes the capture invalid, for whatever CUDA or CuPy refuses:

    reading an array, synchronising, uploading from memory that is not pinned, loading a module, cuBLAS
    cudaMalloc, also in the relaxed mode, which permits it: the recording must have reserved its memory
    work on another stream of the thread: it would not be recorded

Memory that is new or was freed holds NaN, and a graph that reads or writes memory that was returned to the device
raises.  `counts` holds cudaMallocs, allocations from any pool, synchronisations, uploads, launches and graphs.

Time is made up (`Timeline`): the host needs LAUNCH for each launch, the device as long as `launch` is given, and events
mark the time of their stream.  So a device that waits for the host shows in the events, as on a GPU.

`installed()` is a context in which `import cupy` finds the stand-in.  What it lacks raises AttributeError or TypeError.
"""

from __future__ import annotations

import re
import sys
import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

from minires.backends.compiled import load
from minires.backends.kernels import provider

UNIT = 512  # bytes: CuPy rounds sizes up to it
LAUNCH, KERNEL = 0.005, 0.002  # milliseconds: of the host for a launch, of the device for a kernel
KILOHERTZ, MULTIPROCESSORS, CAPABILITY = 1_980_000, 132, "90"  # of an H200
PEAK = 2 * 128 * MULTIPROCESSORS * KILOHERTZ  # fp32 operations a millisecond
BANDWIDTH = 4.8e9  # bytes a millisecond
counts = Counter()


class Timeline(threading.local):
    """The host's clock in milliseconds; each stream has that of its device work in `until`."""

    now = 0.0

    def queue(self, stream, milliseconds):
        """Work on a stream begins when the host has launched it and the stream's earlier work is done."""
        self.now += LAUNCH
        stream.until = max(stream.until, self.now) + milliseconds

    def wait(self, milliseconds):
        self.now = max(self.now, milliseconds)


timeline = Timeline()


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
    timeline.wait(get_current_stream().until)


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

    def copy_from_device_async(self, source, size, stream=None):
        mine, other = self.mem.block, source.mem.block

        def run():
            found = other.bytes[source.ptr - other.ptr :][:size]
            mine.bytes[self.ptr - mine.ptr :][:size] = found

        launch(run, [mine, other], 2 * size / BANDWIDTH)


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
    living: ClassVar = weakref.WeakValueDictionary()

    def __init__(self, non_blocking=False, ptr=None):
        self.non_blocking, self.ptr = non_blocking, next(Stream.numbers) if ptr is None else ptr
        self.work, self.invalid, self.until = [], False, 0.0
        Stream.living[self.ptr] = self

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
        timeline.wait(self.until)


class Event:
    def __init__(self, block=False, disable_timing=False):
        self.time, self.timing = None, not disable_timing

    def record(self, stream=None):
        refuse("cudaEventRecord: not used in a capture here")
        self.time = max((stream or get_current_stream()).until, timeline.now)

    @property
    def done(self):
        return self.time is None or self.time <= timeline.now

    def synchronize(self):
        refuse("cudaEventSynchronize")
        if self.time is not None:
            timeline.wait(self.time)


def get_elapsed_time(begin, end):
    if begin.time is None or end.time is None or not (begin.timing and end.timing):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: an event was not recorded")
    if not (begin.done and end.done):
        raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return end.time - begin.time


class Graph:
    def __init__(self, work):
        self.work = work

    def launch(self, stream=None):
        refuse("cudaGraphLaunch")
        counts["graphs"] += 1
        timeline.queue(stream or get_current_stream(), KERNEL * len(self.work))
        for run, blocks in self.work:
            if not all(block.alive for block in blocks):
                raise CUDARuntimeError("cudaErrorIllegalAddress: a graph uses memory that was freed")
            run()


null = Stream(ptr=0)
_default_pool = MemoryPool()
here = _Here()


def get_current_stream():
    return here.streams[-1]


def launch(run, blocks, milliseconds=KERNEL):
    """Runs now or, while this thread captures, in the graph."""
    stream = here.capturing
    if stream is None:
        assert all(block.alive for block in blocks)
        counts["launches"] += 1
        timeline.queue(get_current_stream(), milliseconds)
        run()
    elif get_current_stream() is stream:
        stream.work.append((run, blocks))
    else:
        refuse("work on another stream")


class RawModule:
    """One that the emulator has: a file of csrc/cuda, or code without a `KERNEL`, whose kernels are in `foreign`."""

    loaded = False
    foreign: ClassVar = {"spin": lambda cycles: cycles / KILOHERTZ}  # name -> milliseconds, from the arguments

    def __init__(self, *, code, options=()):
        assert isinstance(code, str)
        assert isinstance(options, tuple)
        assert all(isinstance(option, str) for option in options)
        assert not any("ftz" in option for option in options), "CuPy adds -ftz=true; NVRTC refuses some options twice"
        self.code, self.options = code, options

    def compile(self, log_stream=None):
        refuse("cuModuleLoad")
        self.loaded = True

    def get_function(self, name):
        if not self.loaded:
            self.compile()
        return RawKernel(self, name)


class RawKernel:
    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self, module, name):
        self.name, single = name, name.removesuffix("_f64")
        declared = re.findall(r"^KERNEL\((\w+)\)", module.code, flags=re.M)
        if single in declared:
            assert ("-DMINIRES_DOUBLE" in module.options) == (single != name)
        elif name not in RawModule.foreign or f"void {name}(" not in module.code:
            raise CUDARuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")

    def __call__(self, grid, block, args, *, shared_mem=0):
        for sizes, most in ((grid, (2**31 - 1, 65535, 65535)), (block, (1024, 1024, 64))):
            assert isinstance(sizes, tuple)
            if not all(type(size) is int and 1 <= size <= limit for size, limit in zip(sizes, most, strict=False)):
                raise CUDARuntimeError(f"CUDA_ERROR_INVALID_VALUE: invalid argument: {grid}, {block}")
        if np.prod(block) > 1024 or shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        arrays = [a for a in args if isinstance(a, ndarray)]
        assert all(isinstance(a, (ndarray, np.generic)) for a in args)
        values = [a.data.ptr if isinstance(a, ndarray) else a.item() for a in args]
        if self.name in RawModule.foreign:
            launch(lambda: None, [], RawModule.foreign[self.name](*values))
            return
        emulation = load("_emulation", "MINIRES_EMULATION", "")
        run = lambda: emulation.launch(self.name, grid, block, values, 0)  # noqa: E731
        launch(run, [a.data.mem.block for a in arrays])


# -- arrays


class Shared(np.ndarray):
    """A view that keeps the memory of its `owner` from the pool."""


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

    def tobytes(self, order="C"):
        return self.get().tobytes(order)

    def __dlpack__(self, stream=None):
        """As memory of the CPU, which is what PyTorch without CUDA takes; the work that fills it has run."""
        refuse("an exchange of memory")
        shared = self.values.view(Shared)
        shared.owner = self
        return shared.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()

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

    def swapaxes(self, one, other):
        return self.viewed(self.values.swapaxes(one, other))

    def squeeze(self, axis=None):
        return self.viewed(self.values.squeeze(axis))

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


def compute(function, *arguments, out=None, template=None, milliseconds=KERNEL, **options):
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

    launch(run, blocks_of([*arguments, out]), milliseconds)
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
    operations = 2 * a.size * (b.size // b.shape[0])
    return compute(np.matmul, a, b, out=out, milliseconds=1.25 * operations / PEAK)


def _viewing(function):
    return lambda a, *arguments: a.viewed(function(a.values, *arguments))


def from_dlpack(tensor):
    """A copy of memory of the CPU; CuPy shares that of its device."""
    values = np.from_dlpack(tensor.detach())
    found = ndarray(values.shape, values.dtype, strides=laid_out(values).strides)
    found.values[...] = values
    return found


def laid_out(values):
    """Densely packed, in the order of its strides."""
    return values.copy("K")


def asnumpy(array):
    return array.get()


def array_equal(a, b):
    return compute(np.array_equal, a, b)


class Device:
    def __init__(self, device=None):
        self.id, self.compute_capability = 0, CAPABILITY


def deviceGetAttribute(attribute, device):
    return {13: KILOHERTZ, 16: MULTIPROCESSORS}[attribute]


def getDeviceProperties(device):
    return {"name": b"Stand-in"}


def module():
    """The stand-in, as `import cupy` finds it."""
    cupy = ModuleType("cupy")
    for name in ("multiply", "isnan", "isinf", "isfinite", "exp", "log", "tanh", "sqrt", "square", "abs", "where"):
        setattr(cupy, name, partial(compute, getattr(np, name)))
    cupy.__version__, cupy.float32, cupy.float64 = "0", np.float32, np.float64
    cupy.ndarray, cupy.asarray, cupy.array, cupy.RawModule, cupy.full = ndarray, asarray, array, RawModule, full
    cupy.asnumpy, cupy.array_equal, cupy.from_dlpack = asnumpy, array_equal, from_dlpack
    cupy.empty = lambda shape, dtype=float: ndarray(shape, dtype)
    cupy.zeros = lambda shape, dtype=float: full(shape, 0, dtype)
    cupy.ones = lambda shape, dtype=float: full(shape, 1, dtype)
    cupy.empty_like = lambda a, dtype=None: ndarray(a.shape, a.dtype if dtype is None else dtype)
    cupy.zeros_like = lambda a, dtype=None: full_like(a, 0, dtype)
    cupy.ones_like = lambda a, dtype=None: full_like(a, 1, dtype)
    cupy.full_like, cupy.matmul, cupy.inf, cupy.nan = full_like, matmul, np.inf, np.nan
    cupy.arange = lambda *a, **options: compute(lambda: np.arange(*a, **options))
    cupy.ascontiguousarray = lambda a: a if a.flags.c_contiguous else compute(np.ascontiguousarray, a)
    cupy.concatenate = lambda arrays: compute(lambda *given: np.concatenate(given), *arrays)
    cupy.moveaxis, cupy.broadcast_to = _viewing(np.moveaxis), _viewing(np.broadcast_to)
    cupy.may_share_memory = lambda a, b: np.may_share_memory(a.values, b.values)
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError, deviceGetAttribute=deviceGetAttribute,
        getDeviceProperties=getDeviceProperties,
    )  # fmt: skip
    cupy.cuda = SimpleNamespace(
        Stream=Stream, MemoryPool=MemoryPool, Memory=Memory, MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory,
        using_allocator=using_allocator, get_current_stream=get_current_stream, Device=Device, runtime=runtime,
        alloc_pinned_memory=Pinned, compiler=SimpleNamespace(CompileException=ValueError), Event=Event,
        get_elapsed_time=get_elapsed_time,
    )  # fmt: skip
    return cupy


@contextmanager
def installed():
    """Within it, `import cupy` finds the stand-in, and the backend `cuda` computes with it."""
    kept, cupy = sys.modules.get("cupy"), module()
    sys.modules["cupy"] = cupy
    provider.device.cache_clear()
    try:
        yield cupy
    finally:
        if kept is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = kept
        provider.device.cache_clear()
