"""`minires paper`: the tables and figures, an item each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires._checks import suggest
from minires.cli.words import (
    BACKEND_HELP,
    Parser,
    UsageError,
    checkpoint,
    computing_on,
    folder_for_output,
    own_backend,
    print_table,
    say,
    write,
)

if TYPE_CHECKING:
    from minires.paper.report import Report

ITEMS = {
    "table1": "the architectures for ImageNet, our multiply-adds beside the printed FLOPs",
    "table6": "the CIFAR-10 networks: parameters, and the errors of finished runs (--runs)",
    "figure3": "VGG-19, the plain and the residual network of 34 layers, side by side",
    "figure1": "plain-20 and plain-56 trained (--residual: and their residual kin, Figure 6)",
    "figure4": "18 and 34 layers trained, plain and residual",
    "figure7": "standard deviation of the layers' responses, of trained networks (--runs) or fresh ones",
    "gradients": "gradient norms over depth: plain and residual, with and without batch norm",
    "all": "everything above that needs no download, on one page",
}


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "paper",
        help="what can be reproduced of the paper; without an item, the list",
        description="Prints a table or figure, ours beside the paper's, and writes its CSV and picture.  Exit code 1 "
        "says that something was not reproduced.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_paper, item=None)
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="ITEM", help=", ".join(ITEMS) + "; ITEM --help: more")
    return parser


def _item_parser(item: str) -> argparse.ArgumentParser:
    """The flags of one item: those of another are no flags of it."""
    parser = Parser(prog=f"minires paper {item}", description=ITEMS[item], allow_abbrev=False)
    parser.add_argument("--out", metavar="DIR", default=".", help="where the files go (default: here)")
    if item == "table1":
        parser.add_argument("--time", action="store_true", help="measure a forward pass of each network")
        parser.add_argument("--shortcut", metavar="A|B|C", help="default: B")
        parser.add_argument("--stride-in", metavar="1x1|3x3", help="of the bottlenecks (default: 1x1)")
    if item in ("figure1", "figure4"):
        other = "cifar10" if item == "figure1" else "folder"
        parser.add_argument("--data", default="fashion-mnist", metavar="NAME", help=f"fashion-mnist or {other}")
    if item in ("figure1", "figure4", "all"):
        parser.add_argument("--quick", action="store_true", help="300 iterations instead of the whole run")
        parser.add_argument("--seeds", type=int, default=1, metavar="K", help="runs of each network (default: 1)")
        parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one a processor)")
        parser.add_argument("--backend", metavar="NAME", help=BACKEND_HELP)
    if item in ("figure1", "figure4", "figure7", "all"):
        parser.add_argument("--data-dir", metavar="DIR", help="look for the data here first")
    if item == "figure1":
        parser.add_argument("--residual", action="store_true", help="ResNet-20 and ResNet-56 too: Figure 6")
    if item in ("table6", "figure7"):
        what = "finished runs on cifar10" if item == "table6" else "finished runs of networks with batch norm"
        parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help=what)
    if item == "gradients":
        parser.add_argument("--steps", type=int, default=0, metavar="N", help="follow how far the weights turn")
    if item in ("gradients", "figure7"):
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the initialisation (default: 0)")
    return parser


def _paper(arguments: argparse.Namespace) -> int:
    if not arguments.rest:
        for name, told in ITEMS.items():
            say(f"{name:10} {told}", indent=11)
        return 0
    item, *words = arguments.rest
    if item not in ITEMS:
        raise UsageError(f"unknown item {item!r}; known are {', '.join(ITEMS)}.{suggest(item, ITEMS)}")
    parser = _item_parser(item)
    given, unknown = parser.parse_known_args(words)
    if unknown:
        flags = parser._option_string_actions
        raise UsageError(f"unknown argument {unknown[0]!r} of minires paper {item}.{suggest(unknown[0], flags)}")
    if getattr(given, "seeds", 1) < 1:
        raise UsageError(f"--seeds must be at least 1, got {given.seeds}")
    if (getattr(given, "jobs", None) or 1) < 1:
        raise UsageError(f"--jobs must be at least 1, got {given.jobs}")
    out = folder_for_output(Path(given.out))
    options = {name: value for name, value in vars(given).items() if name != "out" and value is not None}
    if "runs" in options:
        options["runs"] = [_run(Path(path)) for path in options["runs"]]
    mine = options.pop("backend") if own_backend(options.get("backend")) else None
    with computing_on(mine):
        return _all(out, options) if item == "all" else _one(item, out, options)


def _one(item: str, out: Path, options: Mapping[str, Any]) -> int:
    try:
        report = _reproduce(item, out, options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _show(report, out)
    return 0 if report.reproduced else 1


def _reproduce(item: str, out: Path, options: Mapping[str, Any]) -> Report:
    from minires.paper import items
    from minires.training.progress import on_stderr

    function: Callable[..., Report] = getattr(items, f"reproduce_{item}")
    if item in ("figure1", "figure4"):
        return function(out, **options, progress=on_stderr)
    return function(**options)


def _show(report: Report, out: Path) -> None:
    print_table(report.head, report.lines, report.title, right=report.right, drop=report.drop)
    for note in report.notes:
        say(note, indent=4)
    for name, content in report.files.items():
        say(write(out / name, content), indent=None)


def _all(out: Path, options: Mapping[str, Any]) -> int:
    """Every item; Figure 7 of the networks that Figure 1 has trained.  What Table 6 lacks needs a download."""
    from minires.data import DataError
    from minires.paper.report import markdown

    data_dir = {name: value for name, value in options.items() if name == "data_dir"}
    reports: list[Report] = []
    missing: dict[str, str] = {}
    failed = False
    for item in ITEMS:
        own: dict[str, Any] = {}
        if item in ("figure1", "figure4"):
            own = dict(options) | ({"residual": True} if item == "figure1" else {})
        elif item == "figure7":
            runs = [run for report in reports if report.name == "figure1" for run in report.runs]
            own = {"runs": runs, **data_dir} if runs else {}
        elif item == "all":
            break
        say(f"-- {item}", error=True)
        try:
            report = _reproduce(item, out, own)
        except DataError as error:
            missing[item] = " ".join(str(error).split())
            say(f"not reproduced: {missing[item]}")
            failed = True
            continue
        _show(report, out)
        reports.append(report)
        if item == "table6":
            missing["errors of Table 6"] = "they need CIFAR-10 and 64,000 iterations a network (--runs)"
        else:
            failed |= not report.reproduced
    say(write(out / "report.md", markdown(reports, missing).encode()), indent=None)
    return 1 if failed else 0


def _run(path: Path) -> Path:
    checkpoint(str(path), "--runs")
    return path
