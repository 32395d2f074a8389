"""Step through an operation in a debugger.

Runs one forward and backward pass and stops inside the forward or backward of an operation.  Each stop first prints a
card: the operation with its arrays and their statistics.  `c` continues to the next stop, `q` quits.  The variable
PYTHONBREAKPOINT selects another debugger than pdb.
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

EXAMPLES = ("step resnet20 --at layer2.0.conv1 --when backward", "step resnet20 --not-finite --backend reference")


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
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
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
            places = [path for path, _ in found.model.named_modules() if path]
            raise UsageError(
                f"--at: no operation is at {arguments.at!r}; modules are {', '.join(places[:6])}, ..."
                f"{suggest(arguments.at, places)}"
            )
    say(f"stopped {stop.stops} time{'' if stop.stops == 1 else 's'}")
    return 0
