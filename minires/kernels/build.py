"""Programs that watch kernels, compiled by g++.

The emulator and the rungs of the ladders are compiled once, into the user's cache folder.  A hash of all their sources
is part of the name.  A kernel of your own is compiled by each call.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minires.backends.kernels.own import OwnKernel
from minires.backends.kernels.own_build import cache_folder, translated
from minires.backends.kernels.provider import emulation_sources, sources
from minires.backends.unavailable import BackendUnavailable

# -O1 keeps lines; without scalar replacement a copy of a float4 stays one access of 16 bytes, as on a GPU.
# DWARF 4, because addr2line may name the unit instead of the kernel's file for DWARF 5.
# A large frame touches each of its pages, so that an overflow of a thread's stack meets the guard page.
FLAGS = ("-std=c++17", "-gdwarf-4", "-O1", "-fno-pie", "-fstack-clash-protection", "-w", "-DMINIRES_WATCHED")
WATCHED = ("-fsanitize=thread", "-fno-tree-sra", "-fsanitize-coverage=trace-pc", "-fno-reorder-blocks")
RUNTIME = ("watch", "launch", "fiber")  # files of csrc/emulation, not watched themselves
STATIC_SHARED = 48 << 10  # bytes of shared memory that a GPU allows without `extern __shared__`
RED_ZONE = 48 << 10  # bytes on both sides of each array in static shared memory of a kernel of your own


class CompileError(ValueError):
    """A kernel does not compile; the message holds the compiler's first error, with file and line."""


@dataclass(frozen=True)
class Program:
    """A compiled program.

    file       the executable
    variables  (name, address, bytes) of each array in static shared memory
    """

    file: Path
    variables: tuple[tuple[str, int, int], ...]

    def places(self, addresses: Sequence[int]) -> list[tuple[str, int]]:
        """(file, line) of the source for each return address: of the innermost function outside of the emulator."""
        if not addresses:
            return []
        text = "\n".join(hex(address - 1) for address in addresses)
        found = _output(["addr2line", "-e", str(self.file), "-a", "-i"], text)
        own = str(emulation_sources())
        places = []
        for part in re.split(r"^0x[0-9a-f]+\n", found, flags=re.M)[1:]:
            frames = re.findall(r"^(.+):(\d+|\?)", part, flags=re.M)
            outside = [frame for frame in frames if not os.path.normpath(frame[0]).startswith(own)]
            file, line = [*outside, *frames, ("", "0")][0]
            places.append((file, int(line) if line.isdigit() else 0))
        return places


@contextmanager
def own_program(kernel: OwnKernel) -> Iterator[Program]:
    """The program for a kernel of your own, in a folder that is deleted at the end.  Raises CompileError."""
    compiler()
    with tempfile.TemporaryDirectory(prefix="minires-kernel-") as folder:
        unit = Path(folder) / "unit.cpp"
        added = f'static const emulation::Add added{{emulation::describe("{kernel.name}", &{kernel.name})}};'
        unit.write_text(f'#include "launch.h"\n{translated(kernel)}\n#line 1 "launch"\n{added}\n')
        with ThreadPoolExecutor() as pool:
            compiled = pool.submit(_compile, unit, Path(folder) / "unit.o", watched=True, include=kernel.path.parent)
            objects = [*pool.map(_runtime_object, RUNTIME), compiled.result()]
        program = _linked(objects, Path(folder) / "program")
        used = sum(bytes for _, _, bytes in program.variables)
        if used > STATIC_SHARED:
            remedy = "use extern __shared__ and shared=BYTES in the launch line"
            raise CompileError(
                f"{kernel.path}:{kernel.line}: {kernel.name} has {used} bytes of static shared memory; "
                f"a GPU allows {STATIC_SHARED}; {remedy}"
            )
        yield program


def ladder_program(files: Sequence[Path]) -> Program:
    """The program for these files of csrc/cuda, from the cache."""
    name = "-".join(file.stem for file in files)
    path = cache_folder() / f"{name}-{_hash()}"
    if path.exists():
        return Program(path, _variables(path))
    with ThreadPoolExecutor() as pool:
        rungs = [pool.submit(_rung_object, file) for file in files]
        objects = [*pool.map(_runtime_object, RUNTIME), *(rung.result() for rung in rungs)]
    return _linked(objects, path)


@functools.cache
def compiler() -> str:
    """The version of g++.  Raises BackendUnavailable without g++ and binutils on Linux."""
    missing = [tool for tool in ("g++", "addr2line", "nm") if shutil.which(tool) is None]
    if missing or sys.platform != "linux":
        reason = f"{missing[0]} was not found (apt install g++)" if missing else f"this system is {sys.platform}"
        raise BackendUnavailable(f"checking and profiling kernels needs g++ on Linux: {reason}")
    return _output(["g++", "-dumpfullversion", "-dumpmachine"])


def _compile(source: Path, out: Path, watched: bool, include: Path | None = None) -> Path:
    flags = [*FLAGS, *(WATCHED if watched else ()), f"-I{emulation_sources()}", f"-I{sources()}"]
    flags += [f"-I{include.resolve()}"] if include else []
    made = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    if include:
        assembly = made.with_suffix(".s")
        _output(["g++", *flags, "-S", str(source), "-o", str(assembly)])
        assembly.write_text(_with_red_zones(assembly.read_text(encoding="utf-8")), encoding="utf-8")
        source, flags = assembly, []
    _output(["g++", *flags, "-c", str(source), "-o", str(made)])
    os.replace(made, out)  # another process may compile the same file
    return out


def _with_red_zones(assembly: str) -> str:
    """The assembly with `RED_ZONE` unused bytes around each array in shared memory: an overrun meets no other array."""
    section = re.compile(r"\t\.section\tcuda_shared,.*\n(?:\t\.(?:align|type|size|zero)\s.*\n|[\w.$]+:\n)*")
    zone = f"\t.zero\t{RED_ZONE}\n"

    def padded(found: re.Match[str]) -> str:
        head, rest = found[0].split("\n", 1)
        return f"{head}\n{zone}" + re.sub(r"(?<=:\n)(\t\.zero\t.*\n)", rf"\1{zone}", rest)

    return section.sub(padded, assembly)


def _runtime_object(name: str) -> Path:
    out = cache_folder() / f"{name}-{_hash()}.o"
    return out if out.exists() else _compile(emulation_sources() / f"{name}.cpp", out, watched=False)


def kernels_of(file: Path) -> list[str]:
    """The names of the kernels in a file of csrc/cuda."""
    return re.findall(r"^KERNEL\((\w+)\)", file.read_text(encoding="utf-8"), flags=re.M)


def _rung_object(file: Path) -> Path:
    out = cache_folder() / f"{file.stem}-{_hash()}.o"
    if out.exists():
        return out
    table = ", ".join(f'emulation::describe("{name}", &{name})' for name in kernels_of(file))
    unit = out.with_suffix(f".{os.getpid()}.cpp")
    added = f"static const emulation::Add added_{file.stem}{{{table}}};"
    unit.write_text(f'#include "launch.h"\nnamespace single_precision {{\n#include "{file}"\n{added}\n}}\n')
    try:
        return _compile(unit, out, watched=True)
    finally:
        unit.unlink()


def _linked(objects: Sequence[Path], out: Path) -> Program:
    made = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    _output(["g++", "-no-pie", *map(str, objects), "-o", str(made)])
    os.replace(made, out)
    return Program(out, _variables(out))


def _variables(file: Path) -> tuple[tuple[str, int, int], ...]:
    symbols, begin, end = [], 0, 0
    for line in _output(["nm", "-S", "-C", str(file)]).splitlines():
        if found := re.fullmatch(r"([0-9a-f]+) (?:([0-9a-f]+) )?\w (.*)", line):
            address, name = int(found[1], 16), found[3]
            begin = address if name == "__start_cuda_shared" else begin
            end = address if name == "__stop_cuda_shared" else end
            if found[2]:
                symbols.append((name.rpartition("::")[2], address, int(found[2], 16)))
    return tuple(symbol for symbol in symbols if begin <= symbol[1] < end)


@functools.cache
def _hash() -> str:
    digest = hashlib.sha256(repr((compiler(), FLAGS, WATCHED)).encode())
    folders = (emulation_sources(), sources())
    for file in sorted(file for folder in folders for file in folder.iterdir() if file.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _output(command: Sequence[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line or "undefined reference" in line]
        raise CompileError((errors or done.stderr.splitlines() or ["the compiler failed"])[0])
    return done.stdout
