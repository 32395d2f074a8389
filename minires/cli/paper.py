"""Reproduce a table or figure of the paper: print its numbers beside the paper's, and write a CSV file and pictures.

Without ITEM, the command lists the items.  The exit code is 1 if a claim of the paper was not reproduced.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minires.cli.common import UsageError, computing_on, folder_for_output, own_backend, print_json, say, write
from minires.cli.parser import Parser, Whole, add
from minires.cli.runs import checkpoint
from minires.cli.tables import print_table
from minires.data import DataError
from minires.paper import items
from minires.paper.page import Evidence, ResultError, page
from minires.paper.page.claims import CLAIMS
from minires.paper.report import Report, markdown
from minires.training.progress import on_stderr

EXAMPLES = ("paper figure3 --out build", "paper figure1 --residual --quick --out build")
ITEMS = {
    "table1": "the ImageNet networks: their multiply-adds beside the paper's FLOPs",
    "table6": "the CIFAR-10 networks: their parameters, and the errors of finished runs (--runs)",
    "figure3": "VGG-19, the plain and the residual network of 34 layers, side by side",
    "figure1": "training of plain-20 and plain-56 (--residual: also of ResNet-20 and ResNet-56, as in Figure 6)",
    "figure4": "training of networks with 18 and 34 layers, plain and residual",
    "figure7": "standard deviation of each layer's responses, in trained (--runs) or untrained networks",
    "gradients": "gradient norms over depth: plain and residual, with and without batch norm",
    "all": "all items above as far as they need no download, on one page",
    "page": "the paper section by section beside the code, its recorded arrays and verdicts: one HTML file",
}


def flags(parser: Parser) -> None:
    subparsers = parser.add_subparsers(dest="item", metavar="ITEM", parser_class=Parser)
    add(parser, "--json")
    for item, text in ITEMS.items():
        _flags_of_item(item, subparsers.add_parser(item, help=text, description=f"{text[0].upper()}{text[1:]}."))


def _flags_of_item(item: str, parser: Parser) -> None:
    add(parser, "--json", default=argparse.SUPPRESS)
    if item == "page":
        add(parser, "--out", metavar="FILE", default="paper.html", help="file to write (default: paper.html)")
        parser.add_argument(
            "--results", type=Path, metavar="DIR",
            help="folder of results that `paper all` or single items wrote (default: what needs training is not run)",
        )  # fmt: skip
        return
    add(parser, "--out", metavar="DIR", default=".", help="folder of the files to write (default: .)")
    if item == "table1":
        parser.add_argument("--time", action="store_true", help="time of each network's forward pass, measured")
        add(parser, "--shortcut", help="shortcuts where dimensions increase (default: B)")
        add(parser, "--stride-in")
    if item in ("figure1", "figure4"):
        sets = ("fashion-mnist", "cifar10" if item == "figure1" else "folder")
        add(parser, "--data", choices=sets, default=sets[0], help="data set (default: fashion-mnist)")
    if item in ("figure1", "figure4", "all"):
        parser.add_argument("--quick", action="store_true", help="300 iterations instead of the whole run")
        parser.add_argument(
            "--seeds",
            type=Whole(1),
            default=1,
            metavar="N",
            help="runs per network, each with its own seed (default: 1)",
        )
        parser.add_argument("--jobs", type=Whole(1), metavar="N", help="runs in parallel (default: one per processor)")
        add(parser, "--backend --quiet")
    if item in ("figure1", "figure4", "figure7", "all"):
        add(parser, "--data-dir")
    if item == "figure1":
        parser.add_argument("--residual", action="store_true", help="also ResNet-20 and ResNet-56, as in Figure 6")
    if item in ("table6", "figure7"):
        which = "on cifar10" if item == "table6" else "of networks with batch norm"
        parser.add_argument(
            "--runs", nargs="+", default=[], metavar="RUN", help=f"finished runs {which} (default: none)"
        )
    if item == "gradients":
        parser.add_argument(
            "--steps", type=Whole(0), default=0, metavar="N",
            help="training steps before the angle by which the weights have turned is measured (default: 0)",
        )  # fmt: skip
    if item in ("gradients", "figure7"):
        add(parser, "--seed", default=0)


def run(arguments: argparse.Namespace) -> int:
    if arguments.item is None:
        if arguments.json:
            print_json(ITEMS)
        for name, summary in ({} if arguments.json else ITEMS).items():
            say(f"{name:10} {summary}", indent=11)
        return 0
    options = {name: value for name, value in vars(arguments).items() if value is not None}
    item, as_json, quiet = options.pop("item"), options.pop("json"), options.pop("quiet", False)
    for name in ("command", "ranks"):
        del options[name]
    if item == "page":
        return _page(Path(options["out"]), options.get("results"), as_json)
    out = folder_for_output(Path(options.pop("out")))
    if "runs" in options:
        for path in options["runs"]:
            checkpoint(path, "--runs")
        options["runs"] = [Path(path) for path in options["runs"]]
    own = options.pop("backend") if own_backend(options.get("backend")) else None
    with computing_on(own):
        return (_all if item == "all" else _one)(item, out, options, as_json, quiet)


def _page(out: Path, results: Path | None, as_json: bool) -> int:
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {out}")
    folder_for_output(out.parent)
    try:
        evidence = Evidence(results)
    except ResultError as error:
        raise UsageError(f"--results: {error}") from None
    write(out, page(evidence).encode())
    if as_json:
        print_json({"file": str(out), "claims": {c.name: c.verdict(evidence).status for c in CLAIMS}})
    else:
        say(out, indent=None)
    return 0


def _one(item: str, out: Path, options: Mapping[str, Any], as_json: bool, quiet: bool) -> int:
    try:
        report = _reproduce(item, out, options, quiet)
    except ValueError as error:
        raise UsageError(str(error)) from None
    shown = _show(report, out, as_json)
    if as_json:
        print_json(shown)
    return 0 if report.reproduced else 1


def _reproduce(item: str, out: Path, options: Mapping[str, Any], quiet: bool) -> Report:
    function: Callable[..., Report] = getattr(items, f"reproduce_{item}")
    if item in ("figure1", "figure4"):
        return function(out, **options, progress=items.silent if quiet else on_stderr)
    return function(**options)


def _show(report: Report, out: Path, as_json: bool) -> dict[str, Any]:
    """Writes the files, prints the table unless --json is given, and returns the content of the JSON."""
    names = ("name", "title", "head", "lines", "notes", "reproduced")
    shown = {name: getattr(report, name) for name in names}
    files = [write(out / name, content) for name, content in report.files.items()]
    shown["files"] = [str(file) for file in files]
    files.append(write(out / f"{report.name}.json", json.dumps(shown, ensure_ascii=False, indent=1).encode()))
    if not as_json:
        print_table(report.head, report.lines, report.title, right=report.right, drop=report.drop)
        for note in report.notes:
            say(note, indent=4)
        for file in files:
            say(file, indent=None)
    return shown


def _all(every: str, out: Path, options: Mapping[str, Any], as_json: bool, quiet: bool) -> int:
    """Reproduces every item.  Figure 7 uses the networks of Figure 1.  Table 6 has no errors: they need a download."""
    shown = []
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
        elif item == every:
            break
        if not quiet:
            say(f"-- {item}", error=True)
        try:
            report = _reproduce(item, out, own, quiet)
        except DataError as error:
            missing[item] = " ".join(str(error).split())
            say(f"not reproduced: {missing[item]}", error=as_json)
            failed = True
            continue
        shown.append(_show(report, out, as_json))
        reports.append(report)
        if item == "table6":
            missing["errors of Table 6"] = "they need CIFAR-10 and 64,000 iterations a network (--runs)"
        else:
            failed |= not report.reproduced
    page = write(out / "report.md", markdown(reports, missing).encode())
    if as_json:
        print_json({"items": shown, "missing": missing, "file": str(page)})
    else:
        say(page, indent=None)
    return 1 if failed else 0
