"""`minires lockstep`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from minires._checks import choice
from minires.cli.subject import add_subject, subject
from minires.cli.words import ERRORS, UsageError, folder_for_output, own_backend, print_json, print_table, raised, say


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "lockstep",
        help="the same batch through two backends, node by node",
        description="One forward and backward through two backends.  At every node: the second backend's own error, on "
        "the first one's operands, and the grown one, of the two runs; as relative norm and in units in the last place "
        "(of the array's root mean square).  Ends with 1 if an own error leaves its tolerance; the operands of the "
        "first such node are saved, with the lines that reproduce it.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_lockstep)
    parser.add_argument("network", metavar="NETWORK", help="see `minires models`")
    parser.add_argument(
        "--backends", default="reference,native", metavar="A,B", help="names, or module:object, your own; the second "
        "may have options, as in native:isa=portable or native:winograd=0 (default: reference,native)",
    )  # fmt: skip
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64 (default: float32)")
    parser.add_argument("--out", default=".", metavar="DIR", help="where operands go (default: here)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_subject(parser, backend=False)
    return parser


def _lockstep(arguments: argparse.Namespace) -> int:
    from minires.verify.lockstep import lockstep

    first, second, options = _backends(arguments.backends)
    try:
        choice(arguments.dtype, "dtype", ("float32", "float64"))
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    folder = folder_for_output(Path(arguments.out))
    with subject(arguments.network, arguments) as found:
        model = found.model.to("cpu").astype(arguments.dtype)
        images = found.images.numpy().astype(arguments.dtype)
        _usable(first, second, options)
        try:
            result = lockstep(model, images, found.labels, (first, second), **options)
        except ERRORS as error:  # of an operation: a finding
            if arguments.json:
                told = {"subject": found.told, "first": first, "second": second, "passed": False}
                print_json(told | {"error": raised(error)})
            else:
                say(f"{found.told}: {second} beside {first}, {arguments.dtype}: {raised(error)}")
            return 1
    fault, path = result.fault, result.save_fault(folder)
    if arguments.json:
        rows = [asdict(step) for step in result.steps]
        said: dict[str, Any] = {"subject": found.told, "first": first, "second": second, "losses": result.losses}
        said |= {"passed": result.passed, "other_form": result.other_form}
        said["fault"] = asdict(fault) if fault else None
        print_json({**said, "file": str(path) if path else None, "steps": rows})
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
    title = f"{found.told}: {second} beside {first}, {arguments.dtype}"
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
    say(f"left the tolerance first: {_place(fault)}, {fault.array}: {fault.own:.1e} above {fault.tolerance:.1e}")
    say(
        f"worst at       index {fault.index}: {fault.numbers[0]:.9g} {first}, {fault.numbers[1]:.9g} {second}",
        indent=15,
    )
    told_options = "".join(f", {name}={value!r}" for name, value in options.items())
    say("from minires.verify.recorded import load_call")
    say(f"call = load_call({str(path)!r})", indent=None)
    say(f"print(call.compare({first!r}, {second!r}{told_options}))", indent=None)
    say(path, indent=None)
    return 1


def _usable(first: str, second: str, options: dict[str, Any]) -> None:
    from minires import backends

    try:
        with backends.backend(first), backends.backend(second, **options):
            pass
    except (TypeError, ValueError) as error:
        raise UsageError(f"--backends: {error}") from None


def _place(step: Any) -> str:
    return f"{step.phase} of {step.operation} of {step.module or 'the network'}"


def _backends(text: str) -> tuple[str, str, dict[str, Any]]:
    """'reference,native:winograd=0' -> names, and the options of the second."""
    from minires import backends

    parts = text.split(",", 1)
    if len(parts) != 2:
        raise UsageError(f"--backends must name two, such as reference,native; got {text!r}")
    second, _, rest = parts[1].partition(":")
    if ":" in parts[1] and second.strip() not in backends.names():  # the reader's own, module:object
        second, _, rest = parts[1].partition(",")
    names = [parts[0].strip(), second.strip()]
    for name in names:
        if name not in backends.names() and not own_backend(name):
            raise UsageError(f"--backends: unknown backend {name!r}; known are {', '.join(backends.names())}")
    options: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--backends: options are NAME=VALUE, got {word!r}")
        options[key] = {"0": False, "1": True}.get(value, value) if key == "winograd" else value
        if key == "seed":
            options[key] = int(value) if value.isdigit() else value
    return names[0], names[1], options
