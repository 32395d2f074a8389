"""Errors, backends and output of the commands.  This file loads only the core, which keeps `minires --help` quick."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minires import backends
from minires._atomic import write_bytes
from minires._repr import printable, wrapped

# Errors that a wrong operation may raise.
ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
UNCUT = 10_000  # columns of a file or a pipe: long lines stay whole, so that a search finds them


class UsageError(Exception):
    """The command line is wrong; the message is one line."""


@contextlib.contextmanager
def computing_on(backend: str | None, flag: str = "--backend") -> Iterator[None]:
    """Makes the backend of --backend active; without the flag the default backend stays active.

    MINIRES_BACKEND passes the name of your own backend to child processes.
    """
    with contextlib.ExitStack() as held:
        if backend is not None:
            try:
                held.enter_context(backends.backend(backend))
            except (TypeError, ValueError) as error:
                text = str(error)
                rest = text.removeprefix("backend") if text.startswith("backend ") else f": {text}"
                raise UsageError(f"{flag}{rest}") from None
            if own_backend(backend):
                outer = os.environ.get("MINIRES_BACKEND", "")
                held.callback(os.environ.__setitem__, "MINIRES_BACKEND", outer)
                os.environ["MINIRES_BACKEND"] = backend
        yield


def own_backend(backend: str | None) -> bool:
    """Whether the name is module:object, a backend of your own, or has options, as in emulated:gemm=mine.cu.

    A command enters such a backend by `computing_on` and leaves `Config.backend` None.
    """
    return backend is not None and ":" in backend


class _Lossy:
    """A stream that drops its text after the first failed write."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, method: Callable[..., object], *arguments: object) -> None:
        try:
            method(*arguments)
        except (OSError, ValueError):  # ValueError: the stream is closed
            with contextlib.suppress(OSError, ValueError):  # at exit the interpreter flushes the buffer
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            self.stream = open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lossy_stderr() -> Iterator[None]:
    """A context in which a full disk or a closed pipe behind stderr ends no command; later messages are lost.

    Replaces a closed stdout too.  Otherwise print would fail, or write into a file that has reused the descriptor.
    """
    outer = sys.stdout, sys.stderr
    for stream in outer:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × gets a ?, not a traceback
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = _Lossy(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout, sys.stderr = outer


def columns(stream: Any) -> int:
    """The width of the terminal; `UNCUT` for a file or a pipe, even if a parent process exports COLUMNS."""
    return shutil.get_terminal_size().columns if stream.isatty() else UNCUT


def say(*words: object, indent: int | None = 0, error: bool = False) -> None:
    """Prints one line on stdout or stderr.  Commands print text through this function alone.

    indent   column at which a wrapped line continues; None: the line is never wrapped, because it is code or a path

    Foreign text, such as the names of files and classes, is shown literally (`printable`).
    """
    stream = sys.stderr if error else sys.stdout
    text = printable(" ".join(map(str, words)))
    lines = [text] if indent is None else wrapped(text, columns(stream), indent)
    print(*lines, sep="\n", file=stream, flush=error)


def print_csv(text: str) -> None:
    print(text, end="")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Prints JSON on stdout.  NaN and infinities, which JSON lacks, become null."""
    print(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def raised(error: Exception) -> str:
    """An operation's error on one line, with its notes, which name the layer and the place of the call."""
    return " ".join(f"{type(error).__name__}: {'; '.join([str(error), *getattr(error, '__notes__', ())])}".split())


def folder_for_output(path: Path, flag: str = "--out") -> Path:
    """Creates the folder `path`; raises UsageError if it is not writable.  Commands call it before they compute."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"{flag}: nothing can be written in {path}: {error.strerror or error}") from None
    return path


def write(path: Path, content: bytes) -> Path:
    write_bytes(path, content)
    return path


def print_files(files: Sequence[Path], as_json: bool) -> None:
    """The files that a command has written, one a line."""
    if as_json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        say(file, indent=None)
