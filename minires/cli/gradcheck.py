"""`minires gradcheck`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from minires._checks import suggest
from minires.cli.words import BACKEND_HELP, UsageError, computing_on, print_json, print_table, say


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "gradcheck",
        help="operations against finite differences",
        description="Awkward cases of operations, in float64 and float32: forward against a naive oracle, every "
        "element of every gradient against central differences for a random cotangent, and what the operation must do "
        "at ties, kinks and extremes.",
        epilog="The verdict is about the backend named; the others have their own kernels.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_gradcheck)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help="e.g. conv2d batch_norm (default: all)")
    parser.add_argument("--cases", type=int, default=20, metavar="N", help="of each operation (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the cases (default: 0)")
    parser.add_argument("--backend", metavar="NAME", help=BACKEND_HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _gradcheck(arguments: argparse.Namespace) -> int:
    return run(arguments.operations, arguments)


def run(operations: Sequence[str], arguments: argparse.Namespace) -> int:
    """Of the operations named, or of all; `minires verify` without a network is this too."""
    from minires import backends
    from minires.verify.cases import CASES
    from minires.verify.network import check_cases
    from minires.verify.properties import PROPERTIES

    for name in operations:
        if name not in CASES:
            raise UsageError(f"unknown operation {name!r}; known are {', '.join(CASES)}.{suggest(name, CASES)}")
    if arguments.cases < 1:
        raise UsageError(f"--cases must be at least 1, got {arguments.cases}")
    if arguments.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {arguments.seed}")
    with computing_on(arguments.backend):
        backend = backends.active().name
        complaints = {}
        for name in operations or CASES:
            try:
                check_cases(name, arguments.cases, arguments.seed)
                complaints[name] = ""
            except Exception as error:  # a bug may well end in an error of NumPy's
                complaints[name] = f"{type(error).__name__}: {error}"
    wrong = sum(map(bool, complaints.values()))
    if arguments.json:
        print_json({"backend": backend, "cases": arguments.cases, "complaints": complaints})
        return 1 if wrong else 0
    lines = [
        (name, str(arguments.cases), str(len(PROPERTIES.get(name, ()))), complaint or "right")
        for name, complaint in complaints.items()
    ]
    numbers = ("cases", "properties")
    print_table(("operation", *numbers, "verdict"), lines, f"backend {backend}", right=numbers, drop=numbers[::-1])
    say(f"{len(complaints) - wrong} of {len(complaints)} operations right on the backend {backend}")
    return 1 if wrong else 0
