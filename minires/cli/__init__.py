"""The command line: `minires COMMAND ...`.

Each command is a file in this folder, which is loaded when a user chooses the command.  The file has a docstring (the
description in --help), EXAMPLES, `flags(parser)` and `run(arguments)`, which returns the exit code.  It imports what it
needs at its top.  `minires --help` loads no command, and so no room beyond the core.

Results go to stdout, progress and errors to stderr.  If stderr is closed or full, the command goes on and its messages
are lost.  If stdout is closed, the command completes its work and exits with 1.  EPILOG lists the exit codes.
A command exits with 141 if the reader of its pipe has closed it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

import minires
from minires import backends
from minires._checks import suggest
from minires.backends.native.compiled import INSTRUCTION_SETS
from minires.cli.common import UsageError, computing_on, lossy_stderr, own_backend, say
from minires.cli.parser import Parser

# Group -> command -> its line in `minires --help`, which loads no command.
GROUPS = {
    "Train": {
        "train": "train a network",
        "evaluate": "measure errors and confusion matrix of a trained network",
        "predict": "classify pictures",
    },
    "Look inside": {
        "models": "list the networks, with parameters and multiply-adds",
        "summary": "list the layers of a network, with shapes and costs",
        "draw": "draw networks side by side, as in Figure 3",
        "step": "step through an operation in a debugger",
        "trace": "record one forward and backward pass as an HTML page",
    },
    "Verify": {
        "verify": "check the gradients of a network against finite differences",
        "lockstep": "compare two backends on one batch, node by node",
        "gradcheck": "check the gradients of operations against finite differences",
    },
    "Learn": {"exercise": "solve exercises, which name the mistake in a wrong solution"},
    "Reproduce": {"paper": "reproduce tables and figures of the paper"},
    "Speed": {
        "kernels": "list the hand-written CUDA kernels",
        "bench": "compare the speed with PyTorch, onnxruntime and OpenVINO",
    },
    "Files": {
        "weights": "show what a weight file holds, and which network fits it",
        "convert": "convert a weight file or run to safetensors",
        "export": "write a network as an ONNX file",
        "doctor": "show the versions, backends, processor and data found here",
    },
}
ALIASES = {"debug": "step", "compare": "lockstep"}
COMMANDS = {command: summary for group in GROUPS.values() for command, summary in group.items()}
EPILOG = """\
exit codes: 0 done, 1 a check or a run failed, 2 wrong usage, 3 a backend is missing,
            4 an unsafe or broken file, 130 interrupted
`minires COMMAND --help` lists flags and examples."""

# Errors that a user can cause, by room and class name: looking one up loads no room.
EXIT_CODES = {
    1: ("data.DataError", "training.Diverged", "parallel.RanksDisagree"),
    2: ("cli.UsageError", "training.ConfigError", "data.DataPathError", "weights.WeightsMismatch"),
    3: ("backends.BackendUnavailable", "weights.OnnxMissing"),
    4: ("training.CheckpointError", "data.DataFileError", "weights.WeightsError"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    argv   the words after `minires`; None: the arguments of this process
    """
    closed = sys.stdout is None
    with lossy_stderr():
        code = _main(list(sys.argv[1:] if argv is None else argv))
        if closed and code == 0:
            say("error: stdout is closed: the result cannot be printed", error=True)
            return 1
    return code


def _main(words: list[str]) -> int:
    parser: Parser | None = None
    try:
        if not words or words[0] in ("-h", "--help"):
            say_help()
            return _flushed(0)
        if words[0] in ("-V", "--version"):
            say(f"minires {minires.__version__}")
            return _flushed(0)
        command, parser = _chosen(words)
        arguments = command.understand(words[1:])
        _check_environment()
        if not arguments.ranks and minires.parallel.launched()[1] > 1:
            message = "mpirun is for `minires train` alone: with any other command every process would do the same work"
            raise UsageError(message)
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
        message = _one_line(error, () if parser is None else parser.flags())
        return _failed(error, message, failure, parser)


def say_help() -> None:
    say("usage: minires COMMAND ...")
    say()
    say("Residual networks from scratch: train, inspect, verify and benchmark them.")
    for group, commands in GROUPS.items():
        say()
        say(f"{group}:")
        for name, summary in commands.items():
            also = "".join(f" (also {alias})" for alias, command in ALIASES.items() if command == name)
            say(f"  {name:10} {summary}{also}", indent=13)
    say()
    say("  -V, --version  -h, --help")
    say()
    for line in EPILOG.splitlines():
        say(line, indent=None)


def parser_of(name: str) -> Parser:
    """Loads the file of a command and returns its parser."""
    module: Any = importlib.import_module(f"{__name__}.{name}")
    parser = Parser(prog=f"minires {name}", description=module.__doc__, examples=module.EXAMPLES)
    parser.set_defaults(command=module.run, ranks=name == "train")
    module.flags(parser)
    return parser


def _chosen(words: Sequence[str]) -> tuple[Parser, Parser]:
    """The parser of the command that the first word names, and the parser of its item, as in `minires paper ITEM`."""
    name = ALIASES.get(words[0], words[0])
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}; known are {', '.join(COMMANDS)}.{suggest(name, COMMANDS)}")
    parser = parser_of(name)
    return parser, parser.of_item(words[1:])


def _failed(error: BaseException, message: str, code: int, parser: Parser | None = None) -> int:
    """Prints the error once and returns the exit code.  An error of a single rank ends all ranks."""
    ranks, whose = minires.parallel.begun(), minires.parallel.agreed(error)
    if ranks is not None and whose is None:  # the other ranks may be waiting for this rank
        say(f"error: {ranks.name} failed: {message}", error=True)
        ranks.abort(code)
    rank, _ = minires.parallel.launched()
    if rank > 0 and ranks is None:
        time.sleep(10)  # normally rank 0 reports the same error meanwhile, and mpirun ends this rank
        whose = f"rank {rank}"
    if rank == 0 or ranks is None:
        say(f"error: {whose} failed: {message}" if whose else f"error: {message}", error=True)
        if code == 2:
            say("usage: minires COMMAND ..." if parser is None else parser.usage_line(), indent=7, error=True)
            say(f"try {'minires' if parser is None else parser.prog} --help", error=True)
    return code


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    return code


def _unread() -> int:
    """Ends `minires models | head -1` quietly, with the exit code of a program that SIGPIPE kills."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if (ranks := minires.parallel.begun()) is not None:  # the other ranks may be waiting for this rank
        ranks.abort(128 + 13)
    return 128 + 13


def _check_environment() -> None:
    allowed = {
        "MINIRES_BACKEND": backends.names(),
        "MINIRES_ISA": ("auto", *INSTRUCTION_SETS),
        "MINIRES_WINOGRAD": ("0", "1"),
    }
    for variable, words in allowed.items():
        word = os.environ.get(variable)
        if variable == "MINIRES_BACKEND" and own_backend(word):
            with computing_on(word, variable):  # reports an error now, not at the first operation
                continue
        if word and word not in words:
            raise UsageError(f"{variable} must be one of {', '.join(words)}, got {word!r}.{suggest(word, words)}")


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that a user can cause; None for a bug, which ends with a traceback."""
    for kind in type(error).__mro__:  # a class is found before its base
        _, _, path = kind.__module__.partition("minires.")
        name = f"{path.partition('.')[0]}.{kind.__name__}"
        for code, names in EXIT_CODES.items():
            if name in names:
                return code
    # CuPy's OutOfMemoryError is a MemoryError
    return 1 if isinstance(error, (MemoryError, OSError)) else None


def _one_line(error: Exception, flags: Collection[str]) -> str:
    """The message on one line.  A setting becomes the name of its flag, if the command has that flag."""

    def called(word: re.Match[str]) -> str:
        flag = "--" + word[0].replace("_", "-")
        return flag if flag in flags else word[0]

    text = " ".join(str(error).split())
    text = re.sub(r"\S{300,}", lambda word: f"{word[0][:60]}…{word[0][-20:]}", text)
    return re.sub(r"^[a-z]+(?:_[a-z]+)*(?= must | does not apply | is ')", called, text)
