"""Errors, backends and output of the commands.  This file loads the core alone: `minires --help` stays quick."""

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
UNCUT = 10_000  # columns of a file or a pipe, which is searched rather than read


class UsageError(Exception):
    """The command line is wrong; the message is one line."""


@contextlib.contextmanager
def computing_on(backend: str | None, flag: str = "--backend") -> Iterator[None]:
    """Makes the backend of --backend the active one; without the flag the default one stays.

    Child processes find the name of your own backend in the environment.
    """
    with contextlib.ExitStack() as held:
        if backend is not None:
            try:
                held.enter_context(backends.backend(backend))
            except (TypeError, ValueError) as error:
                raise UsageError(f"{flag}{str(error).removeprefix('backend')}") from None
            if own_backend(backend):
                outer = os.environ.get("MINIRES_BACKEND", "")
                held.callback(os.environ.__setitem__, "MINIRES_BACKEND", outer)
                os.environ["MINIRES_BACKEND"] = backend
        yield


def own_backend(backend: str | None) -> bool:
    """Whether it is your own, module:object.

    A run's configuration only records it: a command enters it by `computing_on` and leaves `Config.backend` None.
    """
    return backend is not None and ":" in backend


class _Lossy:
    """A stream whose text is lost once it cannot be written."""

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
        except (OSError, ValueError):  # ValueError: it was closed
            with contextlib.suppress(OSError, ValueError):  # the interpreter flushes what is left in its buffer
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            self.stream = open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lossy_stderr() -> Iterator[None]:
    """Within it a full disk or a closed pipe behind stderr ends no command: the rest of the progress is lost.

    A closed stdout is replaced too: print would otherwise fail, or write into a file that was opened since.
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
    """The width of the terminal; `UNCUT` in a file or a pipe, whatever COLUMNS a parent process exports."""
    return shutil.get_terminal_size().columns if stream.isatty() else UNCUT


def say(*words: object, indent: int | None = 0, error: bool = False) -> None:
    """Prints one line on stdout, or stderr: the only way in which a command prints text.

    indent   where the line continues if the terminal is too narrow; None: it is never wrapped (code, a path)

    Whatever comes from outside (names of files and classes, messages about them) is shown literally: `printable`.
    """
    stream = sys.stderr if error else sys.stdout
    text = printable(" ".join(map(str, words)))
    lines = [text] if indent is None else wrapped(text, columns(stream), indent)
    print(*lines, sep="\n", file=stream, flush=error)


def print_csv(text: str) -> None:
    print(text, end="")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Numbers that JSON has no word for (NaN, infinities) are null."""
    print(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def raised(error: Exception) -> str:
    """What an operation raised, in a line, with the layer and the place of its call, which its notes name."""
    return " ".join(f"{type(error).__name__}: {'; '.join([str(error), *getattr(error, '__notes__', ())])}".split())


def folder_for_output(path: Path, flag: str = "--out") -> Path:
    """`path`, made now: what cannot be written there should not be computed first."""
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
