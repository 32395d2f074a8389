"""Check operations on awkward cases, in float64 and float32.

Compares each forward with a naive implementation.  Compares every element of every gradient with central differences,
for a random cotangent.  Checks the required behaviour at ties, kinks and extremes.

The verdict holds for one backend, because each backend has its own kernels.  `minires verify --ops` does the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from minires import backends
from minires._checks import suggest
from minires.cli.common import UsageError, computing_on, print_json, say
from minires.cli.parser import Parser, Whole, add
from minires.cli.tables import print_table
from minires.verify.cases import CASES
from minires.verify.network import check_cases
from minires.verify.properties import PROPERTIES

EXAMPLES = ("gradcheck conv2d batch_norm", "gradcheck --backend reference --cases 5 --json")


def flags(parser: Parser) -> None:
    parser.add_argument(
        "operations", nargs="*", metavar="OPERATION", help="operation to check, such as conv2d (default: all)"
    )
    parser.add_argument("--cases", type=Whole(1), default=20, metavar="N", help="cases per operation (default: 20)")
    add(parser, "--seed", default=0, help="seed of the cases (default: 0)")
    add(parser, "--backend --json")


def run(arguments: argparse.Namespace) -> int:
    return check(arguments.operations, arguments)


def check(operations: Sequence[str], arguments: argparse.Namespace) -> int:
    """Checks the named operations, or all if none is named; returns the exit code."""
    for name in operations:
        if name not in CASES:
            raise UsageError(f"unknown operation {name!r}; known are {', '.join(CASES)}.{suggest(name, CASES)}")
    with computing_on(arguments.backend):
        backend = backends.active().name
        complaints = {}
        for name in operations or CASES:
            try:
                check_cases(name, arguments.cases, arguments.seed)
                complaints[name] = ""
            except Exception as error:  # a bug may raise any of NumPy's errors
                complaints[name] = f"{type(error).__name__}: {error}"
    wrong = sum(map(bool, complaints.values()))
    if arguments.json:
        print_json({"passed": not wrong, "backend": backend, "cases": arguments.cases, "complaints": complaints})
        return 1 if wrong else 0
    lines = [
        (name, str(arguments.cases), str(len(PROPERTIES.get(name, ()))), complaint or "right")
        for name, complaint in complaints.items()
    ]
    numbers = ("cases", "properties")
    print_table(("operation", *numbers, "verdict"), lines, f"backend {backend}", right=numbers, drop=numbers[::-1])
    say(f"{len(complaints) - wrong} of {len(complaints)} operations right on the backend {backend}")
    return 1 if wrong else 0
