"""What launches a kernel by its name: the emulator on NumPy's arrays, or NVRTC through CuPy on a device."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from minires._checks import choice, integer
from minires.arrays import Array, address_of
from minires.backends.compiled import load
from minires.backends.kernels import graph
from minires.backends.unavailable import BackendUnavailable, usable_cupy

INT_MAX = 2**31 - 1
LARGEST_GRID = (INT_MAX, 65_535, 65_535)
FLUSH = "-ftz=true"  # CuPy adds it to every compilation, so nvcc and the tests of machine code add it too


class Provider(Protocol):
    """Launches kernels on the arrays of one module.

    module   numpy or cupy
    launch   kernel by name; its double version for float64.  Arrays are passed as the addresses of their first
             elements, None as a null pointer, floats in the precision of `dtype`
    upload   a NumPy array as one of `module`
    """

    module: ModuleType

    def launch(
        self, kernel: str, dtype: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any
    ) -> None: ...

    def upload(self, host: Array) -> Array: ...


def sources() -> Path:
    """The folder of the .cu files: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "cuda"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "csrc" / "cuda"


def emulation_sources() -> Path:
    """The folder of the emulator's C++ files, which kernels of your own are compiled with: found like `sources`."""
    installed = Path(__file__).parent / "emulation"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "csrc" / "emulation"


def compile_options(double: bool, folder: Path | None = None) -> tuple[str, ...]:
    """The options of NVRTC for the .cu files of a folder, for float or double; beside them, FLUSH and the architecture.

    CuPy keeps compiled files by their text and options, not by the text of the files that they include.  A digest of
    all sources among the options makes an edit of an included file count.
    """
    folder = folder or sources()
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.glob("*.cu*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    options = ("-std=c++17", f"-I{folder}", f"-DMINIRES_SOURCES=0x{digest.hexdigest()}")
    return (*options, "-DMINIRES_DOUBLE") if double else options


def variant(kernel: str, dtype: Any) -> str:
    """The name of the kernel that computes in `dtype`."""
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{kernel} computes in float32 and float64, got {np.dtype(dtype)}")
    if dtype == np.float64 and re.search("tf32|bf16", kernel):
        raise TypeError(f"{kernel} computes in float32 alone, got float64")
    return kernel + ("_f64" if dtype == np.float64 else "")


class Emulator:
    """Runs the kernels on the CPU, thread by thread.

    seed   of the order in which the threads of a block go on; 0: ascending.  The environment variable
           MINIRES_EMULATION_SEED sets the default, MINIRES_EMULATION the folder of another build of the emulator
           (a sanitizer's, or one to step through).
    """

    module: ModuleType = np

    def __init__(self, seed: int | None = None) -> None:
        if seed is None:
            seed = int(os.environ.get("MINIRES_EMULATION_SEED") or 0)
        self.seed = integer(seed, "seed", 0)
        self._compiled = _emulation()

    def launch(self, kernel: str, dtype: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        if not all(grid):
            return  # nothing to compute
        check_grid(kernel, grid)
        values = [
            0 if a is None else a.ctypes.data if isinstance(a, np.ndarray) else _fits(a, kernel) for a in arguments
        ]
        self._compiled.launch(variant(kernel, dtype), grid, block, values, self.seed)

    def upload(self, host: Array) -> Array:
        return host


class Device:
    """Runs the kernels on CuPy's current device, compiled for it by NVRTC the first time they are needed."""

    def __init__(self) -> None:
        self.module: ModuleType = usable_cupy()
        self._modules: dict[tuple[int, str, bool], Any] = {}
        self._functions: dict[tuple[int, str, bool], Any] = {}

    @cached_property
    def _file_of(self) -> dict[str, Path]:
        found = {}
        for file in sorted(sources().glob("*.cu")):
            for kernel in re.findall(r"^KERNEL\((\w+)\)", file.read_text(encoding="utf-8"), flags=re.M):
                found[kernel] = file
        return found

    def _compiled(self, kernel: str, double: bool) -> Any:
        cupy, file = self.module, self._file_of[kernel]
        device: int = cupy.cuda.Device().id
        if (device, kernel, double) in self._functions:
            return self._functions[device, kernel, double]
        key = (device, file.name, double)
        if key not in self._modules:
            try:
                module = cupy.RawModule(code=file.read_text(encoding="utf-8"), options=compile_options(double))
                module.compile()
            except cupy.cuda.compiler.CompileException as error:
                capability = cupy.cuda.Device().compute_capability
                raise BackendUnavailable(
                    f"{file.name} cannot be compiled for this device (compute capability {capability}): "
                    f"{str(error).strip().splitlines()[0]}"
                ) from None
            self._modules[key] = module
        function = self._modules[key].get_function(kernel + ("_f64" if double else ""))
        return self._functions.setdefault((device, kernel, double), function)

    def launch(self, kernel: str, dtype: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        if not all(grid):
            return
        check_grid(kernel, grid)
        variant(kernel, dtype)
        real = np.dtype(dtype).type
        values = [
            np.uint64(0) if a is None
            else real(a) if isinstance(a, float)
            else np.int32(_fits(a, kernel)) if isinstance(a, (int, np.integer))
            else a
            for a in arguments
        ]  # fmt: skip
        self._compiled(kernel, dtype == np.float64)(grid, block, tuple(values))

    def upload(self, host: Array) -> Array:
        recording = graph.current()
        return self.module.asarray(host) if recording is None else recording.upload(host)


class AheadOfTime(Device):
    """Runs the kernels as nvcc compiled them when minires was installed, on CuPy's arrays and its current stream."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self._ahead = importlib.import_module("minires._ahead")
        except ModuleNotFoundError:
            raise BackendUnavailable(
                "the kernels were not compiled ahead of time: pip install . -C cmake.define.MINIRES_NVCC=ON"
            ) from None

    def launch(self, kernel: str, dtype: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        if not all(grid):
            return
        check_grid(kernel, grid)
        values = [
            0 if a is None else address_of(a) if isinstance(a, self.module.ndarray) else _fits(a, kernel)
            for a in arguments
        ]
        stream = self.module.cuda.get_current_stream().ptr
        self._ahead.launch(variant(kernel, dtype), grid, block, values, stream)


@cache
def device(compiler: str = "nvrtc") -> Device:
    """The one Device of this process for each compiler, "nvrtc" or "nvcc": compiled kernels are kept."""
    choice(compiler, "compiler", ("nvrtc", "nvcc"))
    return AheadOfTime() if compiler == "nvcc" else Device()


def check_grid(kernel: str, grid: tuple[int, ...]) -> None:
    """Raises ValueError for more blocks than a GPU launches."""
    if any(blocks > most for blocks, most in zip(grid, LARGEST_GRID, strict=False)):
        limit = f"{LARGEST_GRID}, the largest that a GPU launches"
        raise ValueError(f"{kernel}: a grid of {grid} blocks is beyond {limit}; use a smaller batch")


def check_count(what: str, number: int) -> int:
    """`number`, if the kernels' 32-bit integers can count so far."""
    if number > INT_MAX - 2**16:  # and their blocks a little beyond the last one
        limit = "fewer than the kernels' 32-bit integers count"
        raise ValueError(f"{what} must be {limit}, got {number}; use a smaller batch")
    return number


def _fits(value: Any, kernel: str) -> Any:
    if isinstance(value, (int, np.integer)) and not -INT_MAX <= value <= INT_MAX:
        raise ValueError(f"{kernel}: a size of {value} does not fit the kernels' 32-bit integers; use a smaller batch")
    return value


def _emulation() -> ModuleType:
    return load(
        "_emulation",
        "MINIRES_EMULATION",
        "the emulator is not part of this installation: it is built where g++ is found (apt install g++)",
    )


def ceil_div(n: int, d: int) -> int:
    """⌈n / d⌉"""
    return -(-n // d)
