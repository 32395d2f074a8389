"""Compiling a kernel of your own for the CPU: g++ with the emulator's sources, kept in a cache.

A result's folder in the cache is named by a hash of everything that it depends on: sources, flags, the compiler.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from minires._atomic import temporary, write_text
from minires.arrays import Array
from minires.backends.kernels.own import OwnKernel
from minires.backends.kernels.provider import emulation_sources, sources
from minires.backends.unavailable import BackendUnavailable

TRANSLATED = "minires_translated_kernel.cu"  # in the cache; no file beside a kernel may hide it or be hidden by it
FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas")
_DYNAMIC = re.compile(
    r"\bextern\s+__shared__\s+(?:(?:alignas|__align__)\s*\(\s*\d+\s*\)\s*)?(\w[\w\s]*?)\s+(\w+)\s*\[\s*\]"
)  # extern __shared__ float s[];


def library(kernel: OwnKernel, double: bool = False) -> Any:
    """The compiled kernel as a library of ctypes with `minires_launch` (csrc/emulation/own.cpp).

    Raises ValueError, with file and line, for a kernel that g++ refuses, BackendUnavailable without g++.
    """
    flags = ("-O2", "-g1", *FLAGS, *["-DMINIRES_DOUBLE"] * double)
    built = build(kernel, emulation_sources() / "own.cpp", "own.so", (*flags, "-shared"), scheduler(("-O2", *FLAGS)))
    found = ctypes.CDLL(str(built))
    found.minires_launch.restype = ctypes.c_char_p
    return found


def launch(
    compiled: Any, grid: Sequence[int], block: Sequence[int], shared: int, arrays: Sequence[Array],
    integers: Sequence[int], seed: int,
) -> None:  # fmt: skip
    """Runs a compiled kernel.  Raises RuntimeError, with file and line, for what the emulator refuses."""
    values = [*(ctypes.c_void_p(a.ctypes.data) for a in arrays), *map(ctypes.c_int, integers)]
    addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    three = ctypes.c_uint * 3
    error = compiled.minires_launch(three(*grid), three(*block), shared, addresses, seed)
    if error is not None:
        raise RuntimeError(error.decode())


def scheduler(flags: Sequence[str]) -> tuple[Path, ...]:
    """The object files of the emulator's scheduler, compiled with these flags."""
    return tuple(
        _compiled(f"{name}.o", ("-c", *flags), (emulation_sources() / f"{name}.cpp",)) for name in ("launch", "fiber")
    )


def build(kernel: OwnKernel, driver: Path, output: str, flags: Sequence[str], objects: Sequence[Path]) -> Path:
    """`output`: the driver, which includes the kernel, linked with the objects.

    Dynamic shared memory becomes a pointer to the emulator's; debuggers and errors show the lines of the kernel's file.
    """
    text = translated(kernel)
    folders = _folders(kernel)
    flags = (*flags, f"-DKERNEL_FILE=<{TRANSLATED}>", f"-DKERNEL_NAME={kernel.name}", *(f"-I{f}" for f in folders))
    try:
        return _compiled(output, flags, (driver, *objects), text, folders)
    except CompileError as error:
        place = re.search(
            rf"(?:^|/){re.escape(kernel.path.name)}:(\d+):(?:\d+:)? (?:fatal )?error: (.*)", str(error), re.M
        )
        line, message = place.groups() if place else (kernel.line, _first_error(str(error)))
        raise ValueError(f"{kernel.path}:{line}: g++ refuses the kernel: {message}") from None


def translated(kernel: OwnKernel) -> str:
    """The kernel's text for g++, with its lines: `extern __shared__` as the emulator declares it."""
    text = _DYNAMIC.sub(lambda m: f"EMULATION_DYNAMIC_SHARED({m[1]}, {m[2]})" + "\n" * m[0].count("\n"), kernel.text)
    return f'#line 1 "{str(kernel.path.resolve()).translate({34: "?", 92: "?"})}"\n{text}'


class CompileError(RuntimeError):
    """g++ failed; the message is what it printed."""


def _first_error(printed: str) -> str:
    lines = printed.strip().splitlines() or ["without a message"]
    return next((line for line in lines if "error" in line), lines[0])


def _compiled(
    output: str, flags: Sequence[str], inputs: Sequence[Path], text: str = "", folders: Sequence[Path] = ()
) -> Path:
    """The file that g++ makes of the inputs; `text` becomes the file TRANSLATED, which an input includes."""
    common = (*sorted(emulation_sources().glob("*.h")), emulation_sources().parent / "signature.h")
    included = dict.fromkeys((*inputs, *common, *_included(text, folders)))
    state = [_version(), output, text, *flags, *(path.read_bytes().hex() for path in included)]
    folder = cache_folder() / hashlib.blake2b("\0".join(state).encode(), digest_size=16).hexdigest()
    result = folder / output
    if result.exists():
        return result
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TRANSLATED, text)
    written = temporary(result)
    command = ["g++", f"-I{folder}", *flags, f"-I{emulation_sources()}", *map(str, inputs), "-o", str(written)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        written.unlink(missing_ok=True)
        raise CompileError(ran.stderr)
    os.replace(written, result)
    return result


def digest_of_included(kernel: OwnKernel) -> str:
    """A digest of the files that the kernel includes, without the system's headers."""
    content = [path.read_bytes() for path in _included(kernel.text, _folders(kernel))]
    return hashlib.blake2b(b"\0".join(content), digest_size=8).hexdigest()


def _folders(kernel: OwnKernel) -> tuple[Path, Path]:
    return kernel.path.resolve().parent, sources()


def _included(text: str, folders: Sequence[Path]) -> list[Path]:
    """The files that the text may include, and those that they may include: each candidate in a folder searched."""
    found: dict[Path, None] = {}
    texts: list[tuple[str, tuple[Path, ...]]] = [(text, tuple(folders))]
    while texts:
        content, searched = texts.pop()
        for name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', content, re.M):
            for path in (folder / name for folder in searched):
                if path.is_file() and path.resolve() not in found:
                    found[path.resolve()] = None
                    texts.append((path.read_text(encoding="utf-8", errors="replace"), (path.parent, *folders)))
    return [*found]


@cache
def _version() -> str:
    if shutil.which("g++") is None:
        raise BackendUnavailable("a kernel of your own is compiled by g++, which is not installed (apt install g++)")
    return subprocess.run(
        ["g++", "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True, check=False
    ).stdout


@cache
def cache_folder() -> Path:
    """$XDG_CACHE_HOME/minires/kernels, by default in ~/.cache, for this user alone.

    Where that folder is not writable or has another owner: a folder that is deleted at the end of the process.
    """
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative path is ignored, as its specification demands
        folder = (root if root.is_absolute() else Path.home() / ".cache") / "minires" / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)  # another user's library would run as this user
            with tempfile.TemporaryFile(dir=folder):
                return folder
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        pass
    folder = Path(tempfile.mkdtemp(prefix="minires-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
