"""The parsers of the commands.  Flags that several commands share are declared here, once."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import minires
from minires import backends, models
from minires._checks import integer, suggest
from minires._repr import shown
from minires.backends.threads import MOST_THREADS
from minires.cli.common import UsageError

# Former name of a flag -> present name.  A command accepts the former name of each flag that it has.
FORMER_FLAGS = {
    "--batch": "--batch-size",
    "--model": "--network",
    "--networks": "--network",
    "--onnx": "--out",
    "--classes": "--num-classes",
}

REMEDIES = {"--plot": "; --out DIR is the folder of the plots"}  # flag without a value -> the flag that takes the value


@dataclass(frozen=True)
class Whole:
    """The type of a flag: an integer from `minimum` to `maximum`."""

    minimum: int
    maximum: int = 2**31 - 1

    def __call__(self, text: str) -> int:
        try:
            return integer(int(text), "", self.minimum, self.maximum)
        except ValueError as error:
            message = str(error) if str(error).startswith(" must") else f"must be an integer, got {shown(text)}"
            raise argparse.ArgumentTypeError(message.strip()) from None


def network(name: str) -> str:
    if name not in models.names():
        known = ", ".join(models.names())
        raise argparse.ArgumentTypeError(
            f"unknown network {shown(name)}; known are {known}.{suggest(name, models.names())}"
        )
    return name


def names_of(one: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """The type of a flag for comma-separated names; `one` is the type of a single name."""
    return lambda text: tuple(dict.fromkeys(one(word.strip()) for word in text.split(",")))


def backend(name: str) -> str:
    if name not in backends.names() and ":" not in name:
        known = ", ".join(backends.names())
        message = f"must be one of {known}, or module:object for your own; got {shown(name)}"
        raise argparse.ArgumentTypeError(f"{message}.{suggest(name, backends.names())}")
    return name


def data_set(name: str) -> str:
    """The type of --data.  Refuses a folder, which needs two flags; `minires.data` refuses unknown names."""
    if os.path.isdir(name) and name not in minires.data.names():
        raise argparse.ArgumentTypeError(
            f"must name a data set, got the folder {name}; to read it: --data folder --data-dir {name}"
        )
    return name


def image_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be channels, height and width such as 3x224x224, got {shown(text)}")
    return int(match[1]), int(match[2]), int(match[3])


def _flag(help: str = "", **settings: Any) -> dict[str, Any]:
    return {"help": help, **settings}


DATA_DIR = "folder to search first (default: $MINIRES_DATA, then the usual places)"
BACKEND = (
    "backend that computes: a name, NAME:option=value such as emulated:gemm=mine.cu, or module:object for your own "
    "(default: $MINIRES_BACKEND, else native)"
)
SHORTCUT = "kind of shortcut where dimensions increase (default: A for CIFAR networks, else B)"
STRIDE_IN = "convolution of a bottleneck that has the stride (default: 1x1)"
THREADS = "threads of the CPU backends, BLAS included (default: all processors)"
FLAGS = {
    "NETWORK": _flag("network name; `minires models` lists the names", type=network),
    "--data": _flag("data set: digits, fashion-mnist, cifar10 or folder", type=data_set, metavar="NAME"),
    "--data-dir": _flag(DATA_DIR, metavar="DIR"),
    "--download": _flag("download of missing data", action="store_true"),
    "--backend": _flag(BACKEND, type=backend, metavar="NAME"),
    "--threads": _flag(THREADS, type=Whole(1, MOST_THREADS)),
    "--workers": _flag("threads that prepare batches (default: 2)", type=Whole(0, 256)),
    "--weights": _flag("run, checkpoint or weight file (default: fresh weights)", metavar="FILE"),
    "--network": _flag("network in the weight file (default: recognised)", type=network, metavar="NETWORK"),
    "--shortcut": _flag(SHORTCUT, choices=("A", "B", "C")),
    "--stride-in": _flag(STRIDE_IN, choices=("1x1", "3x3")),
    "--zero-channels": _flag(
        "place of the zero channels of shortcut A: all at the end, or half on both sides (default: end)",
        choices=("end", "both"),
    ),
    "--width": _flag("filters of the first stage (default: the network's)", type=Whole(1)),
    "--num-classes": _flag("outputs of the last layer (default: the network's)", type=Whole(1)),
    "--input": _flag(
        "shape of an image, such as 3x224x224 (default: the network's)", type=image_shape, metavar="CxHxW"
    ),
    "--seed": _flag("seed of the initial weights (default: 0)", type=Whole(0, 2**63 - 1)),
    "--batch-size": _flag("images at a time", type=Whole(1)),
    "--eval": _flag("evaluation mode: running statistics, no dropout (default: training mode)", action="store_true"),
    "--json": _flag("result as JSON on stdout", action="store_true"),
    "--force": _flag("replacement of an existing file", action="store_true"),
    "--out": _flag(metavar="PATH"),
    "--quiet": _flag("no progress on stderr", action="store_true"),
}
SHORT = {"--out": "-o", "--quiet": "-q"}
OPTIONS = ("shortcut", "stride_in", "zero_channels", "width", "num_classes")  # options of `models.create`


def add(parser: Any, flags: str, **changes: Any) -> None:
    """Adds flags of `FLAGS` to a parser or group; `changes` override their settings."""
    for flag in flags.split():
        names = [flag.lower()] if flag.isupper() else [*filter(None, [SHORT.get(flag)]), flag]
        settings = FLAGS[flag] | ({"metavar": flag} if flag.isupper() else {}) | changes
        if isinstance(settings.get("type"), Whole):
            settings.setdefault("metavar", "N")
        parser.add_argument(*names, **settings)


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of these flags that the user gave; flags that the command lacks are left out."""
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None and value is not False}


class Help(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions, but not the lines of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = textwrap.dedent(text).strip().split("\n\n")
        wrapped = [p if "\n  " in p else textwrap.fill(" ".join(p.split()), width) for p in paragraphs]
        return "\n\n".join(wrapped)


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the program.

    examples   command lines without `minires`, for the end of the help
    """

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        epilog = "\n".join(["examples:", *(f"  minires {example}" for example in examples)]) if examples else None
        super().__init__(epilog=epilog, allow_abbrev=False, formatter_class=Help, **options)

    def usage_line(self) -> str:
        """The positional arguments and the required flags, on one line."""
        formatter = self._get_formatter()
        required = [a for a in self._actions if a.option_strings and a.required]
        shown = [f"{a.option_strings[-1]} {formatter._format_args(a, a.dest.upper())}" for a in required]
        places = [formatter._format_args(a, a.dest.upper()) for a in self._get_positional_actions()]
        return " ".join([f"usage: {self.prog}", *places, *shown, "[flags]"])

    def format_help(self) -> str:
        self.usage = self.usage_line().removeprefix("usage: ").replace("%", "%%")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raises argparse's complaint as a UsageError of the form `FLAG must be ..., got ...`."""
        if found := re.fullmatch(r"argument (?:-\w/)?([^:]+): (.*)", message, re.DOTALL):
            flag, reason = found.groups()
            reason = re.sub(r"^invalid float value: ", "must be a number, got ", reason)
            reason = re.sub(
                r"^ignored explicit argument (.*)", rf"takes no value, got \1{REMEDIES.get(flag, '')}", reason
            )
            reason = re.sub(r"^not allowed with argument (?:-\w/)?", "cannot be given with ", reason)
            reason = re.sub(r"^expected (one|at least one|\d+) argument", r"needs \1 value", reason)
            message = reason if reason.startswith("unknown ") else f"{flag} {reason}"
        raise UsageError(re.sub(r"(?<=[ ,])-\w/(?=--)", "", message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(repr, action.choices))
            message = f"must be one of {known}; got {shown(value)}.{suggest(value, action.choices)}"
            raise argparse.ArgumentError(action, message)

    def of_item(self, words: Sequence[str]) -> Parser:
        """The parser of the item that the words name, as in `minires paper ITEM`; `self` without items."""
        items = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return next((choices[word] for choices in items for word in words if word in choices), self)

    def flags(self) -> dict[str, argparse.Action]:
        return self._option_string_actions

    def understand(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses the words.  Reports an unknown flag before a missing flag: it may be the missing flag, misspelt."""
        parser, flags = self.of_item(words), self.of_item(words).flags()
        end = words.index("--") if "--" in words else len(words)
        words = [*map(parser._renamed, words[:end]), *words[end:]]
        unknown = [word for word in words[:end] if word.startswith("--") and word.partition("=")[0] not in flags]
        if not unknown:
            arguments, unknown = self.parse_known_args(words)
        if unknown:
            word, before = unknown[0], words[words.index(unknown[0]) - 1]
            if not word.startswith("-") and before in flags and flags[before].nargs == 0:
                raise UsageError(f"{before} takes no value, got {shown(word)}{REMEDIES.get(before, '')}")
            raise UsageError(f"unknown argument {shown(word)} of {parser.prog}.{suggest(word, flags)}")
        return arguments

    def _renamed(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        new, flags = FORMER_FLAGS.get(flag), self._option_string_actions
        return new + equals + value if new in flags and flag not in flags and new is not None else word


def not_with(arguments: argparse.Namespace, names: Iterable[str], reason: str) -> None:
    """Raises UsageError for the first of these flags that the user gave."""
    for name in given(arguments, names):
        raise UsageError(f"--{name.replace('_', '-')} {reason}")
