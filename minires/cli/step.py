"""`minires step`."""

from __future__ import annotations

import argparse
import bdb
import warnings
from typing import Any

from minires._checks import suggest
from minires.cli.subject import add_subject, subject
from minires.cli.words import UsageError, say


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "step",
        help="stop in a debugger inside an operation",
        description="Runs one forward and backward and stops in the debugger in the frame of an operation's forward or "
        "backward, after printing its card.  `c` goes on to the next stop, `q` ends.  PYTHONBREAKPOINT chooses another "
        "debugger than pdb.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_step)
    parser.add_argument("network", metavar="NETWORK", help="see `minires models`")
    where = parser.add_argument_group("where it stops")
    where.add_argument(
        "--at", metavar="PLACE", help="module path such as layer2.0, a pattern of one, or an operation's name"
    )
    where.add_argument("--when", metavar="PHASE", default="forward", help="forward, backward or both")
    where.add_argument("--stop", metavar="WHERE", default="entry", help="entry, or return: with the result at hand")
    where.add_argument("--not-finite", action="store_true", help="only where an array holds a NaN or an Inf")
    where.add_argument("--norm-above", type=float, metavar="X", help="only where an array's norm is above X")
    where.add_argument("--times", type=int, metavar="N", help="at most so often")
    add_subject(parser)
    return parser


def _step(arguments: argparse.Namespace) -> int:
    from minires import inspect

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
    with subject(arguments.network, arguments) as found:
        say(found.told)
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
