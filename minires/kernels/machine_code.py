"""Machine code of the CUDA kernels, without a GPU: registers, spills, the share of multiply-adds, occupancy.

    python -m minires.kernels.machine_code gemm_07_warps gemm_11_wide --architecture 90

Needs the extra `contract`: NVRTC, cuobjdump and nvdisasm from NVIDIA's packages.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from minires._table import FittedTable
from minires.backends.kernels.gemm import threads_of
from minires.backends.kernels.provider import FLUSH, compile_options, sources
from minires.backends.unavailable import BackendUnavailable

MULTIPLY_ADDS = re.compile(r"(FFMA|FFMA2|DFMA|HMMA)(\.|$)")
SPILLS = re.compile(r"(LDL|STL)(\.|$)")


@dataclass(frozen=True)
class Multiprocessor:
    """What the blocks on one multiprocessor share (CUDA C++ Programming Guide, technical specifications).

    shared      bytes of shared memory
    reserved    bytes that each block needs beside its own
    """

    warps: int
    blocks: int
    shared: int
    reserved: int = 1 << 10
    registers: int = 1 << 16


MULTIPROCESSORS = {
    75: Multiprocessor(32, 16, 64 << 10, 0),
    80: Multiprocessor(64, 32, 164 << 10),
    86: Multiprocessor(48, 16, 100 << 10),
    89: Multiprocessor(48, 24, 100 << 10),
    90: Multiprocessor(64, 32, 228 << 10),
    100: Multiprocessor(64, 32, 228 << 10),
}


@dataclass(frozen=True)
class Report:
    """One kernel's machine code.

    registers       of a thread
    shared          bytes of static shared memory
    stack           bytes of a thread's stack frame: arrays that are indexed at run time, and spilled registers
    spills          instructions that load from it or store to it
    multiply_adds   instructions FFMA, DFMA or HMMA in the main loop; of several such loops the one with the least share
    instructions    of that loop; 0 without such a loop
    blocks          that fit on a multiprocessor
    """

    kernel: str
    architecture: int
    threads: int
    registers: int
    shared: int
    stack: int
    spills: int
    multiply_adds: int
    instructions: int
    blocks: int

    @property
    def share(self) -> float:
        """The multiply-adds among the instructions of the main loop."""
        return self.multiply_adds / self.instructions if self.instructions else 0.0


def report(kernel: str, architecture: int = 90, double: bool = False) -> Report:
    """The report of a kernel of csrc/cuda.

    Raises ValueError for an unknown kernel, BackendUnavailable without the extra `contract`.
    """
    for file in sorted(sources().glob("*.cu")):
        if kernel in kernels_of(file):
            return reports(file, architecture, double)[kernel]
    raise ValueError(f"kernel: {kernel!r} is not in {sources()}; `minires kernels` lists the rungs")


@cache
def reports(file: Path, architecture: int = 90, double: bool = False) -> dict[str, Report]:
    """The reports of all kernels of a file, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / f"{file.stem}.cubin"
        cubin.write_bytes(compiled(file, architecture, double))
        usage, sass = _dump(cubin, "--dump-resource-usage"), _dump(cubin, "-sass")
    codes = dict(re.findall(r"Function : (\w+)\n(.*?)(?=Function :|\Z)", sass, flags=re.S))
    found = {}
    for name, numbers in re.findall(r"Function (\w+):\s+(.*)", usage):
        registers, shared, stack = (int(re.search(rf"{key}:(\d+)", numbers)[1]) for key in ("REG", "SHARED", "STACK"))  # type: ignore[index]
        if architecture >= 90:  # the compiler counts what each block reserves
            shared = max(0, shared - MULTIPROCESSORS[architecture].reserved)
        code = list(_instructions(codes[name]))
        kernel = name.removesuffix("_f64") if double else name
        threads = threads_of(kernel)
        found[kernel] = Report(
            kernel, architecture, threads, registers, shared, stack,
            sum(1 for _, word, _ in code if SPILLS.match(word)),
            *_main_loop(code),
            blocks_of(architecture, threads, registers, shared),
        )  # fmt: skip
    return found


def kernels_of(file: Path) -> list[str]:
    """The kernels that a file declares."""
    return re.findall(r"^KERNEL\((\w+)\)", file.read_text(encoding="utf-8"), flags=re.M)


def blocks_of(architecture: int, threads: int, registers: int, shared: int) -> int:
    """How many blocks fit on a multiprocessor: the theoretical occupancy."""
    sm = MULTIPROCESSORS[architecture]
    warps = math.ceil(threads / 32)
    of_warp = math.ceil(registers * 32 / 256) * 256  # registers are allocated by 256 for a warp, for four warps at once
    by_registers = sm.registers // of_warp // 4 * 4 // warps
    by_shared = sm.shared // (math.ceil(shared / 128) * 128 + sm.reserved) if shared else sm.blocks
    return min(sm.blocks, sm.warps // warps, by_registers, by_shared)


def compiler() -> Any:
    """The bindings of NVRTC.  Raises BackendUnavailable without the extra `contract`."""
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except (ModuleNotFoundError, RuntimeError):  # the latter: bindings without the library
        raise BackendUnavailable("NVRTC is not installed: pip install 'minires[contract]'") from None
    return nvrtc


def compiled(file: Path, architecture: int, double: bool = False) -> bytes:
    """The file as machine code (a cubin) for the architecture, 90 for sm_90."""
    nvrtc = compiler()

    def checked(result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"NVRTC: {error}")
        return values[0] if values else None

    program = checked(nvrtc.nvrtcCreateProgram(file.read_bytes(), file.name.encode(), 0, [], []))
    options = [f"--gpu-architecture=sm_{architecture}", FLUSH, *compile_options(double)]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise ValueError(f"{file.name} does not compile for sm_{architecture}:\n{log.decode().strip()}")
    code = b" " * checked(nvrtc.nvrtcGetCUBINSize(program))
    checked(nvrtc.nvrtcGetCUBIN(program, code))
    return code


@cache
def machine_code(file: Path, architecture: int, double: bool = False) -> str:
    """The instructions of a file's kernels, as cuobjdump prints them."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / f"{file.stem}.cubin"
        cubin.write_bytes(compiled(file, architecture, double))
        return _dump(cubin, "-sass")


def _dump(cubin: Path, what: str) -> str:
    nvidia = importlib.import_module("nvidia")
    folders = [str(root) for base in nvidia.__path__ for root in Path(base).rglob("bin")]
    environment = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}
    command = ["cuobjdump", what, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def _instructions(sass: str) -> Iterator[tuple[int, str, str]]:
    """(address, opcode, operands) of each instruction."""
    for address, word, operands in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ +)?([\w.]+)([^;]*);", sass):
        yield int(address, 16), word, operands


def _main_loop(code: list[tuple[int, str, str]]) -> tuple[int, int]:
    """(multiply-adds, instructions) of the loop with the most multiply-adds; of several, the one with the least share.

    A loop is what lies between a backward branch and its target.
    """
    loops = []
    for address, word, operands in code:
        target = re.search(r"0x([0-9a-f]+)", operands)
        if word.startswith("BRA") and target and int(target[1], 16) < address:
            body = [w for a, w, _ in code if int(target[1], 16) <= a <= address]
            loops.append((sum(1 for w in body if MULTIPLY_ADDS.match(w)), len(body), int(target[1], 16), address))
    loops = [loop for loop in loops if loop[0]]
    inner = [
        loop
        for loop in loops
        if not any(other is not loop and loop[2] <= other[2] and other[3] <= loop[3] for other in loops)
    ]
    if not inner:
        return 0, 0
    most = max(loop[0] for loop in inner)
    return most, max(loop[1] for loop in inner if loop[0] == most)


HEAD = ("kernel", "registers", "shared KiB", "spills", "blocks", "multiply-adds", "of instructions", "share")


def row(report: Report) -> tuple[str, ...]:
    """The cells of a table with the columns HEAD."""
    numbers = (report.registers, f"{report.shared / 1024:g}", report.spills, report.blocks)
    loop = (report.multiply_adds, report.instructions, f"{report.share:.0%}") if report.instructions else ("",) * 3
    return (report.kernel, *map(str, (*numbers, *loop)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m minires.kernels.machine_code", description="report machine code")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="names of kernels (default: all)")
    parser.add_argument(
        "--architecture", type=int, default=90, choices=MULTIPROCESSORS, help="compute capability (default: 90)"
    )
    arguments = parser.parse_args()
    files = sorted(sources().glob("*.cu"))
    names = arguments.kernels or [kernel for file in files for kernel in kernels_of(file)]
    rows = [row(report(name, arguments.architecture)) for name in names]
    Console().print(FittedTable(HEAD, rows, f"sm_{arguments.architecture}", right=HEAD[1:]))


if __name__ == "__main__":
    main()
