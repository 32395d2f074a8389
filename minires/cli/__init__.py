"""The command line: `minires COMMAND ...`.  Every command is a file, and a call into one of the rooms of the package.

Results go to stdout, progress and errors to stderr.  Exit codes: 0 done, 1 a check or a run failed, 2 wrong usage,
3 a backend is missing, 4 an unsafe or broken file, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence

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
from minires.cli.words import Parser, UsageError

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × gets a ?, not a traceback
    try:
        arguments = _parse(list(sys.argv[1:] if argv is None else argv))
        _known_environment()
        code: int = arguments.command(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("minires: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `minires models | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        failure = _exit_code(error)
        if failure is None:
            raise
        print(f"minires: {_one_line(error)}", file=sys.stderr)
        return failure


def _known_environment() -> None:
    from minires import backends

    allowed = {
        "MINIRES_BACKEND": backends.names(),
        "MINIRES_ISA": ("auto", "avx512", "avx2", "portable"),
        "MINIRES_WINOGRAD": ("0", "1"),
    }
    for variable, words in allowed.items():
        word = os.environ.get(variable)
        if word and word not in words:
            raise UsageError(f"{variable} must be one of {', '.join(words)}, got {word!r}.{suggest(word, words)}")


def _exit_code(error: Exception) -> int | None:
    """The code of an error that a user can cause; None for a bug, which deserves its traceback."""
    from minires import BackendUnavailable
    from minires.data import DataError, DataFileError, DataPathError
    from minires.training import CheckpointError, ConfigError, Diverged
    from minires.weights import OnnxMissing, WeightsError, WeightsMismatch

    if isinstance(error, (UsageError, ConfigError, DataPathError, WeightsMismatch)):
        return 2
    if isinstance(error, (BackendUnavailable, OnnxMissing)):
        return 3
    if isinstance(error, (CheckpointError, DataFileError, WeightsError)):
        return 4
    if isinstance(error, (DataError, Diverged, MemoryError, OSError)):  # CuPy's OutOfMemoryError is a MemoryError
        return 1
    return None


def _one_line(error: Exception) -> str:
    """The message on one line; a setting of the configuration is called by the name of its flag."""
    text = " ".join(str(error).split())
    text = re.sub(
        r"\S{300,}", lambda word: f"{word[0][:60]}…{word[0][-20:]}", text
    )  # what nobody would read to its end
    return re.sub(r"^([a-z]+(?:_[a-z]+)*)(?= must )", lambda word: "--" + word[0].replace("_", "-"), text)


def _parse(argv: list[str]) -> argparse.Namespace:
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
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = parsers[word]._option_string_actions
        raise UsageError(f"unknown argument {unknown[0]!r} of minires {word}.{suggest(unknown[0], flags)}")
    return arguments
