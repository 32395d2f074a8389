"""Compare the speed of minires with PyTorch (eager and compiled), onnxruntime, OpenVINO and the reference backend.

Times single convolutions and whole networks in float32, with the same weights, images and number of threads.  Each side
runs in its own process, and the sides take turns.  Their results are compared too.  Stop other programs first, because
they disturb the times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from minires import backends
from minires._checks import number, suggest
from minires.bench import report
from minires.bench.peers import PEERS, missing
from minires.bench.race import FEWEST
from minires.bench.run import RACED, TABLE_1, Plan, Report
from minires.bench.run import run as measure
from minires.cli.common import UsageError, computing_on, folder_for_output, own_backend, print_json, say, write
from minires.cli.parser import Parser, Whole, add, names_of, network
from minires.cli.tables import print_table

WHAT = ("layers", "networks", "all")
EXAMPLES = ("bench --quick", "bench layers --network resnet20 --peers torch --out build/bench")


def flags(parser: Parser) -> None:
    add_flags(parser)
    add(parser, "--out", metavar="DIR", help="folder for bench.json and bench.md (default: no files)")
    add(parser, "--json --quiet")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="all", choices=WHAT, metavar="WHAT", help="layers, networks or all (default: all)"
    )
    parser.add_argument(
        "--network",
        type=names_of(network),
        metavar="A,B",
        help="networks to time, whole or by layers (default: from the paper)",
    )
    add(parser, "--batch-size", help="images per batch (default: depends on the network)")
    peers = (
        "programs to compare with: torch, torch.compile, onnxruntime, openvino, reference, or none "
        "(default: all; with --quick all but torch.compile)"
    )
    parser.add_argument("--peers", type=names_of(_peer), metavar="A,B", help=peers)
    parser.add_argument("--quick", action="store_true", help="smoke test: one round, about a minute")
    parser.add_argument(
        "--rounds", type=Whole(1), metavar="N", help="maximum number of rounds (default: 9; with --quick 1)"
    )
    parser.add_argument("--minutes", type=_minutes, metavar="X", help="duration in minutes (default: 10)")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="backend to time: native, reference, or module:object for your own (default: native)",
    )
    add(parser, "--threads", help="threads of every side (default: all processors)")


def _peer(name: str) -> str:
    if name not in (*PEERS, "none"):
        raise argparse.ArgumentTypeError(f"must be among {', '.join(PEERS)}; got {name!r}.{suggest(name, PEERS)}")
    return name


def _minutes(text: str) -> float:
    try:
        return number(float(text), "", 0, 1e6, open_minimum=True)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}") from None


def run(arguments: argparse.Namespace) -> int:
    chosen = plan_of(arguments)
    out = None if arguments.out is None else folder_for_output(Path(arguments.out))
    found, agree = measured(chosen, arguments.quiet)
    if arguments.json:
        print_json(found)
    else:
        show(found)
    if out is not None:
        files = [write(out / "bench.json", json.dumps(found, indent=2).encode() + b"\n")]
        files.append(write(out / "bench.md", _page(found).encode()))
        for file in files:
            say(file, indent=None, error=arguments.json)
    return 0 if agree else 1


def measured(chosen: Plan, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """The measurements, and whether all results agree; stderr names the sides that disagree."""
    if not quiet:
        _announce(chosen)
    with contextlib.nullcontext(lambda *_: None) if quiet else progress() as report_progress:
        found = measure(chosen, report_progress)
    wrong = report.disagreements(found)
    for who in wrong:
        say(f"error: {who} disagree, so their times cannot be compared", error=True)
    return found, not wrong


def _announce(chosen: Plan) -> None:
    """Prints which peers are missing and how long the benchmark takes."""
    for peer, reason in missing(chosen.peers).items():
        say(f"without {peer}: {reason}; to add it: pip install 'minires[bench]'", error=True)
    if chosen.quick and chosen.rounds == 1:
        say("this takes about a minute", error=True)
    else:
        fewest = "one round" if chosen.rounds == 1 else f"{min(FEWEST, chosen.rounds)} rounds"
        longest = f"this takes up to {chosen.minutes:g} minutes (--minutes)"
        say(f"{longest}, or longer: every measurement takes at least {fewest}", error=True)


def plan_of(arguments: argparse.Namespace) -> Plan:
    own = arguments.backend if own_backend(arguments.backend) else None
    base = (arguments.backend or "native").partition(":")[0]
    if base not in ("native", "reference") and (own is None or base in backends.names()):
        raise UsageError(
            f"--backend must be native or reference, or module:object for your own; got {arguments.backend!r}"
        )
    with computing_on(own):
        pass  # reports an error now, not in a child process
    # Compiling takes a minute.
    peers = tuple(peer for peer in PEERS if not (arguments.quick and peer == "torch.compile"))
    if arguments.peers is not None:
        if "none" in arguments.peers[:-1] or "none" in arguments.peers[1:]:
            raise UsageError("--peers: 'none' cannot be combined with other names")
        peers = () if arguments.peers == ("none",) else arguments.peers
    names, what = arguments.network, arguments.what
    layers, networks = (("resnet18",), ("resnet20",)) if arguments.quick else (TABLE_1, RACED)
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else Plan.rounds
    return Plan(
        layers=(names or layers) if what != "networks" else (),
        networks=(names or networks) if what != "layers" else (),
        batch=arguments.batch_size,
        threads=arguments.threads or backends.get_num_threads(),
        rounds=rounds,
        minutes=arguments.minutes or Plan.minutes,
        backend=arguments.backend or Plan.backend,
        peers=peers,
        quick=arguments.quick,
    )


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Progress on stderr: a bar on a terminal, elsewhere a line for each measurement."""
    if not sys.stderr.isatty():
        yield lambda done, total, label: say(f"{done}/{total}  {label}", error=True)
        return
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Each update draws the bar: a thread that refreshes it would disturb the measurement.
    with Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False) as bar:
        task = bar.add_task("")
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=label, refresh=True)


def show(found: dict[str, Any]) -> None:
    """The tables and remarks, on stdout."""
    for title, (head, lines) in _tables(found).items():
        numbers = [name for name in head if name not in report.WORDS]
        print_table(head, lines, title, right=numbers, drop=numbers[:0:-1])
    for remark in report.remarks(found):
        say(remark, indent=4)
    say(", ".join(f"{key} {value}" for key, value in found["machine"].items()), indent=4)


def _tables(found: dict[str, Any]) -> dict[str, Any]:
    """Title -> table, for the tables that have lines."""
    beside = "in brackets: the time of minires divided by the peer's time"
    tables = {
        f"single convolutions, {beside}": report.layer_table(found),
        f"whole networks, {beside}": report.network_table(found),
        "goals": report.goal_table(found),
    }
    return {title: table for title, table in tables.items() if table[1]}


def _page(found: dict[str, Any]) -> str:
    parts = [f"## {title}\n\n{report.markdown(table)}" for title, table in _tables(found).items()]
    parts += report.remarks(found)
    parts.append(", ".join(f"{key} {value}" for key, value in found["machine"].items()))
    return "\n\n".join(parts) + "\n"
