"""Check the gradients of a network against finite differences, in float64.

There are three checks.  The first covers every element of the gradients of each operation that the network uses.  The
second covers each layer's own gradient inside the whole network, along a random direction.  The third covers the
gradient of the whole network with respect to each parameter.  If the third fails, the report names the first layer in
backward order whose own gradient is wrong, with its input, index and both numbers.

Without NETWORK, every operation is checked.

--exact compares with exact arithmetic instead: every element of outputs and gradients, with an a-priori rounding bound.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

import minires as mr
from minires import BackendUnavailable, backends
from minires._checks import suggest
from minires.cli import gradcheck
from minires.cli.common import ERRORS, UsageError, computing_on, own_backend, print_json, raised, say
from minires.cli.parser import OPTIONS, Parser, Whole, add, given
from minires.cli.tables import console, print_table
from minires.models import input_shape
from minires.tensor import Tensor
from minires.verify import audit, planted, variants
from minires.verify import network as verification

EXAMPLES = ("verify resnet20 --against reference", "verify --exact conv2d --backend native")
SIDES = {32: 16, 224: 48}  # side of the network's images -> side here: finite differences take hundreds of passes


def flags(parser: Parser) -> None:
    add(parser, "NETWORK", nargs="?")
    parser.add_argument(
        "--ops", nargs="*", metavar="OPERATION", help="operations to check, as in `minires gradcheck` (default: all)"
    )
    parser.add_argument(
        "--against",
        metavar="WHAT",
        help="second implementation: torch, a backend, or the module:object of your own backend (default: none)",
    )
    add(parser, "--backend")
    parser.add_argument(
        "--cases", type=Whole(1), metavar="N", help="awkward cases per operation (default: 5; with --ops: 20)"
    )
    add(parser, "--seed", type=Whole(0), help="seed of weights, images and directions (default: 0)")
    add(parser, "--batch-size", help="number of images (default: 2)")
    parser.add_argument(
        "--size",
        type=Whole(1),
        metavar="N",
        help="height and width in pixels (default: 16 for CIFAR, else 48)",
    )
    add(parser, "--shortcut --stride-in --width --eval --json")
    parser.add_argument(
        "--exact", nargs="?", const="operations", metavar="WHAT", help="comparison with exact arithmetic: an operation "
        "or a network (WHAT: every operation; backends: reference, native and emulated)",
    )  # fmt: skip
    parser.add_argument(
        "--planted", nargs="?", const="operations", metavar="WHAT", help="test of the checks: bugs planted in the "
        "source of operations and layers, one at a time, each of which must be caught (WHAT: operations)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    if arguments.planted is not None:
        return _planted(arguments)
    if arguments.exact is not None:
        return _exact(arguments)
    if arguments.ops is not None and arguments.network is not None:
        raise UsageError("--ops checks operations: it cannot be given with a NETWORK")
    if arguments.network is None and (useless := [flag for flag in _given(arguments) if flag in OF_A_NETWORK]):
        raise UsageError(f"{useless[0]} needs a NETWORK")
    arguments.cases, arguments.seed = arguments.cases or (5 if arguments.ops is None else 20), arguments.seed or 0
    if arguments.network is None:
        return gradcheck.check(arguments.ops or (), arguments)
    arguments.batch_size = arguments.batch_size or 2
    against = arguments.against
    if against is not None and against != "torch" and against not in backends.names() and not own_backend(against):
        known = ", ".join(backends.names())
        raise UsageError(f"--against must be torch, module:object or one of {known}; got {against!r}")
    with computing_on(arguments.backend):
        if against is not None and against in (backends.active().name, arguments.backend):
            raise UsageError(f"--against must differ from the backend that computes, got {against} for both")
        with computing_on(against if own_backend(against) else None, "--against"):
            pass  # reports an error now, not after the checks
        return _network(arguments)


OF_A_NETWORK = ("--against", "--batch-size", "--size", "--shortcut", "--stride-in", "--width", "--eval")


def _given(arguments: argparse.Namespace) -> list[str]:
    """The flags that the user gave, except --json and --planted."""
    names = ("ops", "backend", "cases", "seed", *(flag[2:].replace("-", "_") for flag in OF_A_NETWORK))
    return [f"--{name.replace('_', '-')}" for name in given(arguments, names)]


def _planted(arguments: argparse.Namespace) -> int:
    others = [*(["a NETWORK"] if arguments.network is not None else []), *_given(arguments)]
    if others:
        raise UsageError(f"--planted allows no other argument than --json, got {others[0]}")
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


def _exact(arguments: argparse.Namespace) -> int:
    what = arguments.exact if arguments.network is None else arguments.network
    if arguments.network is not None and arguments.exact != "operations":
        raise UsageError(f"--exact checks one thing, got {arguments.exact!r} and the network {arguments.network!r}")
    of_a_network = what in mr.models.names()
    known = ["operations", *variants.OPERATIONS]
    if not of_a_network and what not in known:
        message = f"--exact must be an operation or a network, got {what!r}; operations are {', '.join(known[1:])}"
        raise UsageError(f"{message}.{suggest(what, [*known, *mr.models.names()])}")
    allowed = ("backend", "seed", "cases") if not of_a_network else ("backend", "seed", *OF_A_NETWORK[1:-1])
    names = [flag for flag in _given(arguments) if flag.strip("-").replace("-", "_") not in {
        name.strip("-").replace("-", "_") for name in allowed}]  # fmt: skip
    if names:
        raise UsageError(f"{names[0]} cannot be given with --exact {what}")
    arguments.seed, arguments.cases = arguments.seed or 0, arguments.cases or 6
    named = [arguments.backend] if arguments.backend else [n for n in variants.BACKENDS if not backends.available()[n]]
    for name in named:
        if name not in variants.BACKENDS:
            raise UsageError(f"--backend must be one of {', '.join(variants.BACKENDS)} with --exact, got {name!r}")
        with computing_on(name):
            pass  # reports a missing backend
    with console(stderr=True).status("") if sys.stderr.isatty() else contextlib.nullcontext() as status:

        def step(text: str) -> None:
            if status is not None:
                status.update(text)

        if of_a_network:
            return _exact_network(what, named, arguments, step)
        operations = list(variants.OPERATIONS) if what == "operations" else [what]
        chosen = [variant for name in named for variant in variants.of_backend(name)]
        audits = variants.check(operations, chosen, arguments.cases, arguments.seed, step)
    return _print_exact(audits, arguments)


def _exact_network(name: str, named: list[str], arguments: argparse.Namespace, step: Any) -> int:
    """Every node of forward and backward in training mode, then the bound of the logits in evaluation mode."""
    C, side, _ = input_shape(name)
    size, rng = arguments.size or SIDES[side], np.random.default_rng(arguments.seed)
    model = _made(name, given(arguments, OPTIONS), arguments, rng).astype("float32")
    images = rng.standard_normal((arguments.batch_size or 2, C, size, size)).astype(np.float32)
    audits, logits = [], {}
    for variant in (variant for backend in named for variant in variants.of_backend(backend)[:2]):
        step(str(variant))
        with backends.backend(variant.backend, **variant.options):
            audits.append(audit.Audit(str(variant), variant.backend, **variant.options))
            with verification.unchanged(model), audits[-1]:
                y = model.train()(Tensor(images, requires_grad=True))
                y.backward(rng.standard_normal(y.shape).astype(np.float32))
            forward = audit.Audit(str(variant), variant.backend, **variant.options)
            with forward, mr.no_grad():
                model.eval()(Tensor(images))
            logits[str(variant)] = audit.logits(model, images, forward)
    return _print_exact(audits, arguments, logits)


def _print_exact(audits: list[Any], arguments: argparse.Namespace, logits: dict[str, Any] | None = None) -> int:
    rows, logits = audit.merged(audits), logits or {}
    passed = all(row.ratio <= 1 for row in rows) and all(found.ratio <= 1 for found in logits.values())
    elements = sum(row.elements for row in rows)
    if arguments.json:
        by_backend = [
            {"backend": one.label, "rows": [asdict(row) for row in one.rows.values()]} for one in audits
        ]  # fmt: skip
        carried = {
            label: {"error": found.error.max(), "bound": found.bound.max(), "ratio": found.ratio}
            for label, found in logits.items()
        }
        content = {"passed": passed, "elements": elements, "rows": [asdict(row) for row in rows]}
        print_json(content | {"backends": by_backend} | ({"logits": carried} if logits else {}))
        return 0 if passed else 1
    print_table(
        ("operation", "result", "elements", "error / bound", "where"),
        [(row.operation, row.output, f"{row.elements:,}", f"{row.ratio:.3f}", row.where) for row in rows],
        "error against the exact result, as a share of its a-priori bound",
        right=("elements", "error / bound"), drop=("where",),
    )  # fmt: skip
    for one in audits:
        worst = max(one.rows.values(), key=lambda row: row.ratio)
        count = sum(row.elements for row in one.rows.values())
        say(
            f"{one.label:32} {count:>13,} elements; largest {worst.ratio:.3f}, {worst.operation} {worst.output}",
            indent=34,
        )
    for label, found in logits.items():
        say(
            f"{label:32} logits: error {found.error.max():.2e}, carried bound {found.bound.max():.2e}, "
            f"largest error / bound {found.ratio:.4f}", indent=34,
        )  # fmt: skip
    say(f"{elements:,} elements {'within their bounds' if passed else 'compared: a bound is exceeded'}")
    return 0 if passed else 1


def _network(arguments: argparse.Namespace) -> int:
    name, against = arguments.network, arguments.against
    C, side, _ = input_shape(name)
    size = arguments.size or SIDES[side]
    rng = np.random.default_rng(arguments.seed)
    options = given(arguments, OPTIONS)
    model = _made(name, options, arguments, rng)
    narrow = options | {"width": 1, "num_classes": 3} | ({"hidden": 4} if name.startswith("vgg") else {})
    small = _made(name, narrow, arguments, rng)
    images = rng.standard_normal((arguments.batch_size, C, size, size))
    small_images = rng.standard_normal((2, C, 33, 35) if side == 224 else (2, C, 9, 12))
    backend = backends.active()
    if getattr(backend, "array_module", np) is not np:
        raise UsageError(f"--backend must compute with NumPy arrays, got {backend.name!r}: use lockstep for it")
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
    except ERRORS as error:  # a forward failed: no check has run
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
        content = {"network": name, "backend": backend.name, "images": images.shape, "options": options}
        content |= {"passed": passed, "culprit": None if report.culprit is None else report.culprit.module}
        found = asdict(report)
        content |= {"whole_network": found.pop("network")} | found
        content |= {"against": against, "differences": [asdict(d) for d in compared]}
        print_json(content | ({"error": incomparable} if incomparable else {}))
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
    mr.manual_seed(arguments.seed)
    try:
        model = mr.models.create(name, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    return verification.disturb(model.astype("float64").train(not arguments.eval), rng)


def _peer(name: str, options: dict[str, Any]) -> Any:
    try:
        from minires.verify import torch_networks
    except ModuleNotFoundError as error:
        message = f"--against torch needs {error.name}, which is not installed: pip install 'minires[parity]'"
        raise BackendUnavailable(message) from None
    return torch_networks.create(name, **options)


def _shapes(layer: Any) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in layer.shapes) + " → " + "×".join(map(str, layer.output))
