"""`minires bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires._checks import integer, suggest
from minires.cli.words import (
    UsageError,
    computing_on,
    folder_for_output,
    known_network,
    own_backend,
    print_json,
    print_table,
    say,
    write,
)

if TYPE_CHECKING:
    from minires.bench.run import Plan, Progress

WHAT = ("layers", "networks", "all")


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="our speed beside PyTorch's, onnxruntime's and OpenVINO's",
        description="Times single convolutions and whole networks, side by side with PyTorch (eager and compiled), "
        "onnxruntime, OpenVINO and the reference backend: the same weights and images, float32, the same number of "
        "threads, each side in a process of its own, taking turns; their results are compared.  For figures to rely "
        "on, nothing else should be running.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_bench)
    add_flags(parser)
    parser.add_argument("--out", metavar="DIR", help="write bench.json and bench.md there")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", default="all", metavar="WHAT", help="layers, networks or all (default)")
    parser.add_argument("--networks", metavar="A,B", help="these; of layers, theirs (default: those of the paper)")
    parser.add_argument("--batch", type=int, metavar="N", help="images (default: what is usual for each)")
    peers = "torch, torch.compile, onnxruntime, openvino, reference, or none (default: all; --quick: not torch.compile)"
    parser.add_argument("--peers", metavar="A,B", help=peers)
    parser.add_argument("--quick", action="store_true", help="little, and once: a minute, to see that it works")
    parser.add_argument("--rounds", type=int, metavar="K", help="at most so many of everything (default: 9)")
    parser.add_argument("--minutes", type=float, metavar="M", help="that all of it should take (default: 10)")
    parser.add_argument("--backend", metavar="NAME", help="ours: native (default), reference or module:object")
    parser.add_argument("--threads", type=int, metavar="N", help="of every side (default: all)")


def _bench(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    out = None if arguments.out is None else folder_for_output(Path(arguments.out))
    found, agree = measured(plan)
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


def measured(plan: Plan) -> tuple[dict[str, Any], bool]:
    """What the run found, and whether all results agree; where not, stderr says whose."""
    from minires.bench import report
    from minires.bench.run import run

    _announce(plan)
    with progress() as report_progress:
        found = run(plan, report_progress)
    wrong = report.disagreements(found)
    for who in wrong:
        say(f"minires: {who} disagree: their times are of different computations", error=True)
    return found, not wrong


def _announce(plan: Plan) -> None:
    """Which peers are missing, and how long the run takes, before it begins."""
    from minires.bench.peers import missing
    from minires.bench.race import FEWEST

    for peer, reason in missing(plan.peers).items():
        say(f"without {peer}: {reason}; to add it: pip install 'minires[bench]'", error=True)
    if plan.quick and plan.rounds == 1:
        say("this takes about a minute", error=True)
    else:
        fewest = "one round" if plan.rounds == 1 else f"{min(FEWEST, plan.rounds)} rounds"
        longest = f"this takes up to {plan.minutes:g} minutes (--minutes)"
        say(f"{longest}, longer only if {fewest} of every measurement takes longer", error=True)


def plan_of(arguments: argparse.Namespace) -> Plan:
    from minires import backends
    from minires.backends.threads import MOST_THREADS
    from minires.bench.peers import PEERS
    from minires.bench.run import RACED, TABLE_1, Plan

    if arguments.what not in WHAT:
        raise UsageError(f"{arguments.what!r} is not one of {', '.join(WHAT)}.{suggest(arguments.what, WHAT)}")
    for name, most in (("batch", 2**31), ("rounds", 2**31), ("threads", MOST_THREADS)):
        value = getattr(arguments, name)
        if value is not None:
            try:
                integer(value, name, 1, most)
            except ValueError as error:
                raise UsageError(f"--{error}") from None
    if arguments.minutes is not None and not 0 < arguments.minutes < 1e6:
        raise UsageError(f"--minutes must be above 0, got {arguments.minutes}")
    if arguments.backend not in (None, "native", "reference") and not own_backend(arguments.backend):
        told = "native or reference, or module:object, your own"
        raise UsageError(f"--backend must be {told}; got {arguments.backend!r}")
    with computing_on(arguments.backend if own_backend(arguments.backend) else None):
        pass  # an error here, not in another process
    names = _list(arguments.networks)
    for name in names or ():
        known_network(name)
    usual = tuple(peer for peer in PEERS if not (arguments.quick and peer == "torch.compile"))  # it takes a minute
    peers = usual if arguments.peers is None else () if arguments.peers == "none" else _list(arguments.peers)
    for peer in peers:
        if peer not in PEERS:
            raise UsageError(f"--peers: {peer!r} is not one of {', '.join(PEERS)}.{suggest(peer, PEERS)}")
    layers, networks = (("resnet18",), ("resnet20",)) if arguments.quick else (TABLE_1, RACED)
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else Plan.rounds
    return Plan(
        layers=(names or layers) if arguments.what != "networks" else (),
        networks=(names or networks) if arguments.what != "layers" else (),
        batch=arguments.batch,
        threads=arguments.threads or backends.get_num_threads(),
        rounds=rounds,
        minutes=arguments.minutes or Plan.minutes,
        backend=arguments.backend or Plan.backend,
        peers=peers,
        quick=arguments.quick,
    )


def _list(words: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in words.split(","))) if words else ()


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """How far it is, on stderr: a bar on a terminal, a line for everything that begins elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, told: say(f"{done}/{total}  {told}", error=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # It draws when there is news, not by the clock: a thread that wakes up would disturb what is measured.
    with Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False) as bar:
        task = bar.add_task("")
        yield lambda done, total, told: bar.update(task, completed=done, total=total, description=told, refresh=True)


def show(found: dict[str, Any]) -> None:
    """The tables and remarks, on stdout."""
    from minires.bench import report

    for title, (head, lines) in _tables(found).items():
        numbers = [name for name in head if name not in report.WORDS]
        print_table(head, lines, title, right=numbers, drop=numbers[:0:-1])
    for remark in report.remarks(found):
        say(remark, indent=4)
    say(", ".join(f"{key} {value}" for key, value in found["machine"].items()), indent=4)


def _tables(found: dict[str, Any]) -> dict[str, Any]:
    """Title -> table, those that have lines."""
    from minires.bench import report

    beside = "in brackets: our time divided by theirs"
    tables = {
        f"single convolutions, {beside}": report.layer_table(found),
        f"whole networks, {beside}": report.network_table(found),
        "goals": report.goal_table(found),
    }
    return {title: table for title, table in tables.items() if table[1]}


def _page(found: dict[str, Any]) -> str:
    from minires.bench import report

    parts = [f"## {title}\n\n{report.markdown(table)}" for title, table in _tables(found).items()]
    parts += report.remarks(found)
    parts.append(", ".join(f"{key} {value}" for key, value in found["machine"].items()))
    return "\n\n".join(parts) + "\n"
