"""The command line: `minires COMMAND ...`.  Every command is a file, and a call into one of the rooms of the package.

Results go to stdout, progress and errors to stderr.  A closed or full stderr ends no command: its text is lost.  A
closed stdout is exit code 1, after the work is done.  Exit codes: 0 done, 1 a check or a run failed, 2 wrong usage,
3 a backend is missing, 4 an unsafe or broken file, 130 interrupted, 141 nobody reads stdout on.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Collection, Sequence

from minires._checks import suggest
from minires.cli import (
    bench,
    convert,
    doctor,
    draw,
    evaluate,
    export,
    gradcheck,
    kernels,
    lockstep,
    models,
    paper,
    predict,
    step,
    summary,
    trace,
    train,
    verify,
    weights,
)
from minires.cli.words import Parser, UsageError, computing_on, known_data, lossy_stderr, own_backend, say

# In the order of `minires --help`.
COMMANDS = (
    *(train, evaluate, predict, models, summary, draw),
    *(step, trace),
    *(verify, lockstep, gradcheck),
    *(paper, kernels, bench),
    *(weights, convert, export, doctor),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    argv   the words after `minires`; None: those of this process
    """
    closed = sys.stdout is None
    with lossy_stderr():
        code = _main(list(sys.argv[1:] if argv is None else argv))
        if closed and code == 0:
            say("minires: stdout is closed: the result cannot be printed", error=True)
            return 1
    return code


def _main(words: list[str]) -> int:
    flags: Collection[str] = ()
    try:
        arguments, flags = _parse(words)
        _known_environment()
        _one_process_or_training(arguments)
        known_data(getattr(arguments, "data", None))
        code: int = arguments.command(arguments)
        return _flushed(code)
    except SystemExit as stop:  # argparse, after --help
        return _flushed(int(stop.code or 0))
    except KeyboardInterrupt as stop:
        return _failed(stop, "interrupted", 130)
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        failure = _exit_code(error)
        if failure is None:
            raise
        return _failed(error, _one_line(error, flags), failure)


def _failed(error: BaseException, told: str, code: int) -> int:
    """Prints what went wrong, once, and returns the exit code; an error of one rank alone ends all of them."""
    from minires import parallel

    ranks, whose = parallel.begun(), parallel.agreed(error)
    if ranks is not None and whose is None:  # the others may be waiting for this one
        say(f"minires: {ranks.name} failed: {told}", error=True)
        ranks.abort(code)
    rank, _ = parallel.launched()
    if rank > 0 and ranks is None:
        time.sleep(10)  # rank 0 says the same, and when it is gone mpirun ends the others: who is left says it alone
        whose = f"rank {rank}"
    if rank == 0 or ranks is None:
        say(f"minires: {whose} failed: {told}" if whose else f"minires: {told}", error=True)
    return code


def _one_process_or_training(arguments: argparse.Namespace) -> None:
    from minires import parallel

    if arguments.command is not train._train and parallel.launched()[1] > 1:
        raise UsageError("mpirun starts several processes that would all do the same: only `minires train` shares work")


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    return code


def _unread() -> int:
    """`minires models | head -1`: nobody reads on.  It ends quietly, with the code of a program that SIGPIPE ends."""
    from minires import parallel

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if (ranks := parallel.begun()) is not None:  # the others may be waiting for this one
        ranks.abort(128 + 13)
    return 128 + 13


def _known_environment() -> None:
    from minires import backends

    allowed = {
        "MINIRES_BACKEND": backends.names(),
        "MINIRES_ISA": ("auto", "avx512", "avx2", "portable"),
        "MINIRES_WINOGRAD": ("0", "1"),
    }
    for variable, words in allowed.items():
        word = os.environ.get(variable)
        if variable == "MINIRES_BACKEND" and own_backend(word):
            with computing_on(word, variable):  # an error here, not at the first operation
                continue
        if word and word not in words:
            raise UsageError(f"{variable} must be one of {', '.join(words)}, got {word!r}.{suggest(word, words)}")


def _exit_code(error: Exception) -> int | None:
    """The code of an error that a user can cause; None for a bug, which deserves its traceback."""
    from minires import BackendUnavailable
    from minires.data import DataError, DataFileError, DataPathError
    from minires.parallel import RanksDisagree
    from minires.training import CheckpointError, ConfigError, Diverged
    from minires.weights import OnnxMissing, WeightsError, WeightsMismatch

    if isinstance(error, (UsageError, ConfigError, DataPathError, WeightsMismatch)):
        return 2
    if isinstance(error, (BackendUnavailable, OnnxMissing)):
        return 3
    if isinstance(error, (CheckpointError, DataFileError, WeightsError)):
        return 4
    # CuPy's OutOfMemoryError is a MemoryError
    if isinstance(error, (DataError, Diverged, MemoryError, OSError, RanksDisagree)):
        return 1
    return None


def _one_line(error: Exception, flags: Collection[str]) -> str:
    """The message on one line; a setting that the command has a flag for is called by the name of its flag."""

    def called(word: re.Match[str]) -> str:
        flag = "--" + word[0].replace("_", "-")
        return flag if flag in flags else word[0]

    text = " ".join(str(error).split())
    text = re.sub(r"\S{300,}", lambda word: f"{word[0][:60]}…{word[0][-20:]}", text)  # what nobody reads to its end
    return re.sub(r"^[a-z]+(?:_[a-z]+)*(?= must | says nothing | is ')", called, text)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, Collection[str]]:
    """What the words say, and the flags that the command has."""
    from minires import __version__

    parser = Parser(
        prog="minires",
        description="Residual networks from scratch: train them, look into them.",
        epilog="Exit codes: 0 done, 1 a check or a run failed, 2 wrong usage, 3 a backend is missing, "
        "4 an unsafe or broken file, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    parsers = {command.__name__.rpartition(".")[2]: command.add(commands) for command in COMMANDS}
    if not argv:
        raise UsageError(f"a command is missing; known are {', '.join(parsers)}; minires --help says more")
    word = argv[0]
    if word not in parsers and word not in parser._option_string_actions:
        raise UsageError(f"unknown command {word!r}; known are {', '.join(parsers)}.{suggest(word, parsers)}")
    flags: Collection[str] = parsers[word]._option_string_actions if word in parsers else ()
    options = argv[1 : argv.index("--") if "--" in argv else None]
    given = [option for option in options if option.startswith("--")]
    # Before argparse says that another flag is required, which may be this one misspelt.
    unknown = [option for option in given if option.partition("=")[0] not in flags]
    if not unknown or word not in parsers or word == "paper":  # whose items have flags of their own
        arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = argv[argv.index(unknown[0]) - 1]
        if not unknown[0].startswith("-") and flag in flags and parsers[word]._option_string_actions[flag].nargs == 0:
            raise UsageError(parsers[word].without_value(flag, repr(unknown[0])))
        raise UsageError(f"unknown argument {unknown[0]!r} of minires {word}.{suggest(unknown[0], flags)}")
    return arguments, {*flags, *(option.partition("=")[0] for option in given)}
