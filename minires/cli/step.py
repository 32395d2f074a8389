"""Step through an operation in a debugger.

Runs one forward and backward pass and stops inside the forward or backward of an operation.  Each stop first prints a
card: the operation with its arrays and their statistics.  `c` continues to the next stop, `q` quits.  The variable
PYTHONBREAKPOINT selects another debugger than pdb.  With --explain no debugger starts: the command prints the numbers
that one output or one gradient was made of.
"""

from __future__ import annotations

import argparse
import bdb
import warnings
from typing import Any

from minires import inspect
from minires._checks import suggest
from minires.cli.common import UsageError, say
from minires.cli.model_and_batch import add_flags, model_and_batch
from minires.cli.parser import Parser, Whole, add

EXAMPLES = (
    "step resnet20 --at layer2.0.conv1 --when backward",
    "step resnet20 --at layer1.0.conv1 --explain 0,5,3,3",
)


def flags(parser: Parser) -> None:
    add(parser, "NETWORK")
    where = parser.add_argument_group("Where it stops")
    where.add_argument(
        "--at",
        metavar="PLACE",
        help="module path such as layer2.0, pattern of paths, or operation such as Conv2d (default: every operation)",
    )
    phases, ends = ("forward", "backward", "both"), ("entry", "return")
    where.add_argument("--when", choices=phases, default="forward", help="phase to stop in (default: forward)")
    where.add_argument(
        "--stop",
        choices=ends,
        default="entry",
        help="start of the phase, or its end with the result (default: entry)",
    )
    where.add_argument("--not-finite", action="store_true", help="stops only at arrays with a NaN or an Inf")
    where.add_argument(
        "--norm-above", type=float, metavar="X", help="stops only at arrays whose norm is above X (default: any norm)"
    )
    where.add_argument("--times", type=Whole(1), metavar="N", help="maximum number of stops (default: no limit)")
    where.add_argument(
        "--explain", type=_index, metavar="N,C,H,W",
        help="index of the output to explain, instead of stopping. With --when backward: of the gradient of x. "
        "As weight:O,C,P,Q: of the weight's gradient (default: none)",
    )  # fmt: skip
    add_flags(parser)


def _index(text: str) -> tuple[str, tuple[int, ...]]:
    """(name of the input, index)"""
    name, _, numbers = text.rpartition(":")
    try:
        return name, tuple(int(number) for number in numbers.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers joined by commas, such as 0,5,3,3, got {text}") from None


def _explain(arguments: argparse.Namespace) -> int:
    """Prints the explanation of the first call at the place."""
    name, index = arguments.explain
    with model_and_batch(arguments.network, arguments) as found:
        with inspect.record(arguments.at) as calls:
            found.run()
        if not calls:
            raise UsageError(f"--at: {_nowhere(found.model, arguments.at)}")
        backward = name or arguments.when == "backward"
        which: dict[str, Any] = {"gradient": index, "of": name or "x"} if backward else {"output": index}
        try:
            explanation = inspect.explain(calls[0], **which)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--explain: {error}") from None
        say(found.title)
        for line in str(explanation).split("\n"):
            say(line, indent=None)
    return 0 if explanation.agrees else 1


def _nowhere(model: Any, at: str) -> str:
    places = [path for path, _ in model.named_modules() if path]
    return f"no operation is at {at!r}; modules are {', '.join(places[:6])}, ...{suggest(at, places)}"


def run(arguments: argparse.Namespace) -> int:
    if arguments.explain is not None:
        return _explain(arguments)
    try:
        conditions: list[Any] = [inspect.not_finite] if arguments.not_finite else []
        if arguments.norm_above is not None:
            conditions.append(inspect.norm_above(arguments.norm_above))

        def condition(node: Any, arrays: Any) -> bool:
            return all(one(node, arrays) for one in conditions)

        stop = inspect.breakpoint(
            arguments.at, arguments.when, condition if conditions else None, arguments.stop, arguments.times
        )
    except (TypeError, ValueError) as error:
        raise UsageError("--" + str(error).replace("limit", "norm-above", 1)) from None
    with model_and_batch(arguments.network, arguments) as found:
        say(found.title)
        try:
            with warnings.catch_warnings(), stop:
                warnings.simplefilter("ignore")
                found.run()
        except bdb.BdbQuit:  # `q`
            return 0
        if not stop.reached:
            raise UsageError(f"--at: {_nowhere(found.model, arguments.at)}")
    say(f"stopped {stop.stops} time{'' if stop.stops == 1 else 's'}")
    return 0
