"""Compare two backends on one forward and backward pass, node by node.

The own error of a node is the second backend's error on the first backend's operands.  The grown error is the
difference between the two whole runs at that node.  Both are relative norms.  Both are also given in units in the last
place (ulp) of the array's root mean square.

If an own error exceeds its tolerance, the exit code is 1.  The command then saves the operands of the first such node
and prints the lines that reproduce the error.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from minires import backends
from minires.cli.common import ERRORS, UsageError, folder_for_output, own_backend, print_json, raised, say
from minires.cli.model_and_batch import add_flags, model_and_batch
from minires.cli.parser import Parser, add
from minires.cli.tables import print_table
from minires.verify.lockstep import lockstep

EXAMPLES = ("lockstep resnet20 --backends reference,native", "lockstep resnet20 --backends native,native:winograd=0")


def flags(parser: Parser) -> None:
    add(parser, "NETWORK")
    parser.add_argument(
        "--backends", default="reference,native", metavar="A,B", help="two backends: names, or module:object; "
        "options may follow, as in native:isa=portable (default: reference,native)",
    )  # fmt: skip
    dtypes = ("float32", "float64")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="type of the computation (default: float32)")
    add(parser, "--out", default=".", metavar="DIR", help="folder for the operands of a wrong node (default: .)")
    add(parser, "--json")
    add_flags(parser, backend=False)


def run(arguments: argparse.Namespace) -> int:
    first, second = _backends(arguments.backends)
    folder = folder_for_output(Path(arguments.out))
    with model_and_batch(arguments.network, arguments) as found:
        model = found.model.to("cpu").astype(arguments.dtype)
        images = found.images.numpy().astype(arguments.dtype)
        _usable(first, second)
        try:
            result = lockstep(model, images, found.labels, (first, second))
        except ERRORS as error:  # an error of an operation is a finding too
            if arguments.json:
                subject = {"subject": found.title, "first": first, "second": second, "passed": False}
                print_json(subject | {"error": raised(error)})
            else:
                say(f"{found.title}: {second} beside {first}, {arguments.dtype}: {raised(error)}")
            return 1
    fault, path = result.fault, result.save_fault(folder)
    if arguments.json:
        rows = [asdict(step) for step in result.steps]
        content: dict[str, Any] = {"subject": found.title, "first": first, "second": second, "losses": result.losses}
        content |= {"passed": result.passed, "other_form": result.other_form}
        content["fault"] = asdict(fault) if fault else None
        print_json({**content, "file": str(path) if path else None, "steps": rows})
        return 0 if result.passed else 1
    lines = [
        (
            step.phase, step.module, step.operation, step.array,
            f"{step.own:.1e}" + ("" if step.passed else " LEFT"), f"{step.own_ulp:,.0f}",
            f"{step.grown:.1e}", f"{step.grown_ulp:,.0f}", f"{step.tolerance:.1e}",
        )
        for step in result.steps
    ]  # fmt: skip
    head = ("phase", "module", "operation", "worst", "own", "ulp", "grown", "ulp", "tolerance of own")
    title = f"{found.title}: {second} beside {first}, {arguments.dtype}"
    print_table(head, lines, title, drop=("ulp", "worst", "grown", "operation", "tolerance of own"))
    say(f"loss           {result.losses[0]:.9g} {first}, {result.losses[1]:.9g} {second}", indent=15)
    own = max(result.steps, key=lambda step: (isnan(step.own), step.own / step.tolerance))
    grown = max(result.steps, key=lambda step: (isnan(step.grown), step.grown))
    say(f"{'nearest' if own.passed else 'farthest':15}{own.own:.1e} of {own.tolerance:.1e} at {_place(own)}", indent=15)
    say(f"grown most     {grown.grown:.1e} at {_place(grown)}", indent=15)
    bits = f"other bits in {', '.join(result.other_form[:3])} ..." if result.other_form else "the same bits"
    say(f"fused form     {second} gives {bits}", indent=15)
    if fault is None:
        say(f"in step        all of {len(result.steps)} steps within their tolerance", indent=15)
        return 0 if result.passed else 1
    say(f"first above its tolerance: {_place(fault)}, {fault.array}: {fault.own:.1e} above {fault.tolerance:.1e}")
    say(
        f"worst at       index {fault.index}: {fault.numbers[0]:.9g} {first}, {fault.numbers[1]:.9g} {second}",
        indent=15,
    )
    say("from minires.verify.recorded import load_call")
    say(f"call = load_call({str(path)!r})", indent=None)
    say(f"print(call.compare({first!r}, {second!r}))", indent=None)
    say(path, indent=None)
    return 1


def _usable(first: str, second: str) -> None:
    try:
        with backends.backend(first), backends.backend(second):
            pass
    except (TypeError, ValueError) as error:
        raise UsageError(f"--backends: {error}") from None


def _place(step: Any) -> str:
    return f"{step.phase} of {step.operation} of {step.module or 'the network'}"


def _backends(text: str) -> tuple[str, str]:
    """'reference,native:winograd=0,isa=avx2' -> 'reference', 'native:winograd=0,isa=avx2'."""
    names: list[str] = []
    for word in map(str.strip, text.split(",")):
        if names and "=" in word and ":" not in word.partition("=")[0]:
            names[-1] += f",{word}"  # another option of the backend before it
        else:
            names.append(word)
    if len(names) != 2:
        raise UsageError(f"--backends must name two, such as reference,native; got {text!r}")
    for name in names:
        if name not in backends.names() and not own_backend(name):
            raise UsageError(f"--backends: unknown backend {name!r}; known are {', '.join(backends.names())}")
    return names[0], names[1]
