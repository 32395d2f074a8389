"""`minires verify`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import asdict
from typing import Any

from minires.cli.words import (
    BACKEND_HELP,
    ERRORS,
    UsageError,
    computing_on,
    console,
    known_network,
    own_backend,
    print_json,
    print_table,
    raised,
    say,
)

SIDES = {32: 16, 224: 48}  # small images verify the same operations: finite differences take hundreds of passes


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="a network's gradients against finite differences, layer by layer",
        description="In float64: every element of the gradients of each operation that the network uses; each layer's "
        "own gradient inside the whole network, along a random direction; the gradient of the whole network with "
        "respect to each parameter.  If that is wrong, the first layer in backward order whose own gradient is off is "
        "named, with its input, index and both numbers.  Without a NETWORK: every operation.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_verify)
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="see `minires models`")
    parser.add_argument(
        "--against", metavar="WHAT", help="torch or a backend (a name or module:object): compared with it too"
    )
    parser.add_argument("--backend", metavar="NAME", help=BACKEND_HELP)
    parser.add_argument("--cases", type=int, metavar="N", help="awkward cases of each operation (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights, images and directions (default: 0)")
    parser.add_argument("--batch", type=int, metavar="N", help="images (default: 2)")
    parser.add_argument(
        "--size", type=int, metavar="N", help="height and width (default: 16 for CIFAR networks, else 48)"
    )
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--eval", action="store_true", help="running statistics, no dropout (default: as in training)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--planted", nargs="?", const="operations", metavar="WHAT", help="instead: plant bugs in the source of "
        "operations and layers, one at a time; each must be caught (WHAT: operations, the default)",
    )  # fmt: skip
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    from minires import backends

    for name, least in (("cases", 1), ("seed", 0), ("batch", 1), ("size", 1)):
        value = getattr(arguments, name)
        if value is not None and not least <= value < 2**31:
            raise UsageError(f"--{name} must be at least {least} and below 2^31, got {value}")
    if arguments.planted is not None:
        return _planted(arguments)
    given = _given(arguments)
    if arguments.network is None and (useless := [flag for flag in given if flag in OF_A_NETWORK]):
        raise UsageError(f"{useless[0]} needs a NETWORK")
    arguments.cases, arguments.seed = arguments.cases or 5, arguments.seed or 0
    if arguments.network is None:
        from minires.cli.gradcheck import run

        return run((), arguments)
    arguments.batch = arguments.batch or 2
    known_network(arguments.network)
    against = arguments.against
    if against is not None and against != "torch" and against not in backends.names() and not own_backend(against):
        known = ", ".join(backends.names())
        raise UsageError(f"--against must be torch, module:object or one of {known}; got {against!r}")
    with computing_on(arguments.backend):
        if against is not None and against in (backends.active().name, arguments.backend):
            raise UsageError(f"--against must be another backend than {against}, which computes: see --backend")
        with computing_on(against if own_backend(against) else None, "--against"):
            pass  # an error here, not when all else is verified
        return _network(arguments)


OF_A_NETWORK = ("--against", "--batch", "--size", "--shortcut", "--stride-in", "--width", "--eval")


def _given(arguments: argparse.Namespace) -> list[str]:
    """The flags that stand on the command line, but for --json and --planted."""
    flags = ("backend", "cases", "seed", *(flag[2:].replace("-", "_") for flag in OF_A_NETWORK))
    values = {name: getattr(arguments, name) for name in flags}
    return [f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None and value is not False]


def _planted(arguments: argparse.Namespace) -> int:
    from minires.verify import planted

    others = [*(["a NETWORK"] if arguments.network is not None else []), *_given(arguments)]
    if others:
        raise UsageError(f"--planted stands alone, but for --json: {others[0]} says nothing about it")
    if arguments.planted != "operations":
        raise UsageError(f"--planted must be operations, got {arguments.planted!r}")
    say(f"this takes {planted.EXPECTED}", error=True)
    found = planted.report(say=lambda line: say(line, error=True))
    if arguments.json:
        print_json(found.as_dict())
        return 0 if found.holds else 1
    print_table(("kind", "where", "planted", "caught"), found.lines(), "planted bugs", drop=("kind",))
    for line in (*found.survivors, *found.unsound):
        say(line)
    say(found)
    return 0 if found.holds else 1


def _network(arguments: argparse.Namespace) -> int:
    import numpy as np

    from minires import backends
    from minires.models import input_shape
    from minires.tensor import Tensor
    from minires.verify import network as verification

    name, against = arguments.network, arguments.against
    C, side, _ = input_shape(name)
    size = arguments.size or SIDES[side]
    rng = np.random.default_rng(arguments.seed)
    chosen = {option: getattr(arguments, option) for option in ("shortcut", "stride_in", "width")}
    options = {option: value for option, value in chosen.items() if value is not None}
    model = _made(name, options, arguments, rng)
    narrow = options | {"width": 1, "num_classes": 3} | ({"hidden": 4} if name.startswith("vgg") else {})
    small = _made(name, narrow, arguments, rng)
    images = rng.standard_normal((arguments.batch, C, size, size))
    small_images = rng.standard_normal((2, C, 33, 35) if side == 224 else (2, C, 9, 12))
    backend = backends.active()
    if getattr(backend, "array_module", np) is not np:
        raise UsageError(f"--backend: verify computes with NumPy arrays, got {backend.name!r}; lockstep compares it")
    try:
        with verification.unchanged(model):
            model(Tensor(images))
    except ValueError as error:
        raise UsageError(str(error)) from None
    peer = _peer(name, options) if against == "torch" else None
    try:
        with console(stderr=True).status("") if sys.stderr.isatty() else contextlib.nullcontext() as status:
            report = verification.verify(
                model, images, small=small, small_images=small_images, seed=arguments.seed, cases=arguments.cases,
                on_step=lambda step: None if status is None else status.update(step),
            )  # fmt: skip
    except ERRORS as error:  # of a forward: without it there is nothing to report
        if arguments.json:
            print_json({"network": name, "backend": backend.name, "passed": False, "error": raised(error)})
            return 1
        say(f"{name} on the backend {backend.name}: {raised(error)}")
        say("not verified")
        return 1
    compared, incomparable = [], ""
    try:
        if peer is not None:
            compared = verification.against_torch(model, peer, images, arguments.seed)
        elif against is not None:
            compared = verification.against_backend(model, images, against, arguments.seed)
    except ERRORS as error:
        incomparable = raised(error)
    disagreeing = [difference for difference in compared if not difference.agrees]
    passed = report.passed and not disagreeing and not incomparable
    if arguments.json:
        told = {"network": name, "backend": backend.name, "images": images.shape, "options": options, "passed": passed}
        told |= asdict(report) | {"against": against, "differences": [asdict(d) for d in compared]}
        print_json(told | ({"error": incomparable} if incomparable else {}))
        return 0 if passed else 1

    lines = [(o.heading, f"{o.elements:,}", str(o.cases), o.complaint or "right") for o in report.operations]
    print_table(
        ("operation", "elements", "cases", "verdict"), lines, "every element of every gradient",
        right=("elements", "cases"), drop=("cases", "elements"),
    )  # fmt: skip
    rows = [
        (
            layer.module, layer.operation, _shapes(layer), "" if np.isnan(layer.error) else f"{layer.error:.1e}",
            str(layer.fault or "right"),
        )
        for layer in report.layers
    ]  # fmt: skip
    print_table(
        ("layer", "operation", "shapes", "error", "verdict"), rows, "each layer's own gradient, backward",
        right=("error",), drop=("shapes", "error", "operation"),
    )  # fmt: skip
    say(f"{name} on the backend {backend.name}, float64, images {'×'.join(map(str, images.shape))}")
    wrong = [operation for operation in report.operations if operation.complaint]
    elements = sum(operation.elements for operation in report.operations)
    say(f"operations         {len(lines) - len(wrong)} of {len(lines)} right, {elements:,} elements", indent=19)
    right = sum(layer.fault is None for layer in report.layers)
    say(f"layers             {right} of {len(rows)} right")
    say(f"whole network      {report.network or f'right, {report.parameters} arrays'}", indent=19)
    if compared:
        worst = max(compared, key=lambda d: (np.isnan(d.relative), d.relative))
        say(
            f"against {against:10} {len(compared) - len(disagreeing)} of {len(compared)} arrays agree; "
            f"worst {worst.name}: {worst.relative:.1e}, allowed {worst.tolerance:.0e}",
            indent=19,
        )
    if incomparable:
        say(f"against {against:10} {incomparable}", indent=19)
    if passed:
        say("verified")
        return 0
    culprit = report.culprit
    if culprit is not None:
        say(f"culprit            {culprit.heading}: {culprit.fault}", indent=19)
    elif report.network:
        say("culprit            no single layer: each one's own gradient is right")
    say("not verified")
    return 1


def _made(name: str, options: dict[str, Any], arguments: argparse.Namespace, rng: Any) -> Any:
    import minires as mr
    from minires.verify.network import disturb

    mr.manual_seed(arguments.seed)
    try:
        model = mr.models.create(name, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    return disturb(model.astype("float64").train(not arguments.eval), rng)


def _peer(name: str, options: dict[str, Any]) -> Any:
    from minires import BackendUnavailable

    try:
        from minires.verify import torch_networks
    except ModuleNotFoundError as error:
        told = f"--against torch needs {error.name}, which is not installed: pip install 'minires[parity]'"
        raise BackendUnavailable(told) from None
    return torch_networks.create(name, **options)


def _shapes(layer: Any) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in layer.shapes) + " → " + "×".join(map(str, layer.output))
