"""What the commands have in common: usage errors, groups of flags, tables, files."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minires._checks import suggest
from minires._repr import printable

if TYPE_CHECKING:
    from rich.console import Console

    from minires._table import Cell


# What an operation that is wrong may well end in.
ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


WORDS = ("stride_in", "zero_channels")  # what a weight file may leave open


BACKEND_HELP = "what computes: a name, or module:object, your own (default: $MINIRES_BACKEND, else native)"


class UsageError(Exception):
    """The command line asks for something that cannot be; the message is one line."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the program.

    remedies   flag without a value -> what to write instead of a value
    """

    remedies: Mapping[str, str] = {}

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(r"argument (\S+): ignored explicit argument (.*)", message, re.DOTALL):
            message = self.without_value(found[1], found[2])
        raise UsageError(message)

    def without_value(self, flag: str, shown: str) -> str:
        return f"{flag} takes no value, got {shown}{self.remedies.get(flag, '')}"


def add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the data")
    group.add_argument("--data", metavar="NAME", help="digits, fashion-mnist, cifar10 or folder")
    group.add_argument("--data-dir", metavar="DIR", help="look here first, then in $MINIRES_DATA and the usual places")
    group.add_argument("--download", action="store_true", help="fetch the data if they are missing")


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the machine")
    group.add_argument("--backend", metavar="NAME", help=BACKEND_HELP)
    group.add_argument("--threads", type=int, metavar="N", help="of the CPU backends, BLAS included (default: all)")
    group.add_argument("--workers", type=int, metavar="N", help="threads that prepare batches (default: 2)")


def checkpoint(path: str, argument: str) -> Path:
    """The checkpoint at `path`; `argument` is what gave it: RUN, --weights."""
    from minires.training import find_checkpoint
    from minires.training.checkpoint import is_checkpoint

    if Path(path).is_file() and not is_checkpoint(Path(path)):
        raise UsageError(f"{path} is no checkpoint: weight files are for minires predict and minires convert")
    try:
        return find_checkpoint(Path(path))
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"{argument}: {error}") from None


def is_run(path: str) -> bool:
    """Whether --weights names a run folder or checkpoint of minires, and not another program's weight file."""
    from minires.training.checkpoint import is_checkpoint

    return Path(path).is_dir() or is_checkpoint(Path(path))


def weight_file(path: str) -> Path:
    if not Path(path).exists():
        raise UsageError(f"--weights: no file {path}")
    no_mere_folder(Path(path), "--weights: ")
    return Path(path)


def no_mere_folder(path: Path, who: str = "") -> None:
    """A folder is as good as no file, unless it is a run."""
    from minires.training.checkpoint import is_checkpoint

    if path.is_dir() and not is_checkpoint(path):
        raise UsageError(f"{who}{path} is a folder without a checkpoint: name a weight file or a run")


def known_data(name: str | None) -> None:
    """A folder of images is chosen by two flags."""
    from minires import data

    if name is not None and name not in data.names() and os.path.isdir(name):
        raise UsageError(
            f"--data must name a data set, got the folder {name}; to read it: --data folder --data-dir {name}"
        )


def known_network(name: str) -> None:
    from minires import models

    if name not in models.names():
        raise UsageError(
            f"unknown network {name!r}; known are {', '.join(models.names())}.{suggest(name, models.names())}"
        )


@contextlib.contextmanager
def computing_on(backend: str | None, flag: str = "--backend") -> Iterator[None]:
    """Within it the backend of --backend is the active one; without the flag the default one stays.

    Child processes find the name of the reader's own in the environment.
    """
    from minires import backends

    if backend is not None and backend not in backends.names() and not own_backend(backend):
        known = ", ".join(backends.names())
        told = f"{flag} must be one of {known}, or module:object, your own; got {backend!r}"
        raise UsageError(f"{told}.{suggest(backend, backends.names())}")
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
    """Whether it is the reader's own, module:object.

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


UNCUT = 10_000  # columns where no terminal sets a limit: a table in a file or a pipe is searched, not looked at


def columns(stream: Any) -> int:
    """The width of the terminal; `UNCUT` in a file or a pipe, whatever COLUMNS a parent process exports."""
    return shutil.get_terminal_size().columns if stream.isatty() else UNCUT


def say(*words: object, indent: int | None = 0, error: bool = False) -> None:
    """Prints one line on stdout, or stderr: the only way in which a command prints text.

    indent   where the line continues if the terminal is too narrow; None: it is never wrapped (code, a path)

    Whatever comes from outside (names of files and classes, messages about them) is shown literally: `printable`.
    """
    from minires._table import wrapped

    stream = sys.stderr if error else sys.stdout
    text = printable(" ".join(map(str, words)))
    lines = [text] if indent is None else wrapped(text, columns(stream), indent)
    print(*lines, sep="\n", file=stream, flush=error)


def console(stderr: bool = False) -> Console:
    """Renders text literally: names may look like markup or emoji codes."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # rich's own ends the program with 1
            raise BrokenPipeError

    width = columns(sys.stderr if stderr else sys.stdout)
    # With a height too, or a dumb terminal would be 80 columns wide.
    return Plain(width=width, height=25, highlight=False, markup=False, emoji=False, stderr=stderr)


def print_table(head: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "", **form: Any) -> None:
    """A `FittedTable` on stdout; `form`: its right, drop and sections."""
    from minires._table import FittedTable

    console().print(FittedTable(head, rows, title, **form), crop=False)


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
    from minires._atomic import write_bytes

    write_bytes(path, content)
    return path
