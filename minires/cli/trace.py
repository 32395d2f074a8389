"""Record one forward and backward pass, node by node, and write it as one HTML file, which needs no server.

The page shows the network as a graph, the source of every operation, arrays and gradients as pictures, and charts over
depth.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from minires.cli.common import UsageError, folder_for_output, print_json, say, write
from minires.cli.model_and_batch import add_flags, model_and_batch
from minires.cli.parser import Parser, add, network
from minires.inspect import trace
from minires.inspect.tracing.page import page

SUFFIXES = {"html": "html", "chrome": "json", "dot": "dot"}
EXAMPLES = (
    "trace resnet20 --data digits --index 3 --out build/trace.html",
    "trace --compare plain56 resnet56 --out build/compare.html",
)


def flags(parser: Parser) -> None:
    add(parser, "NETWORK", nargs="?")
    parser.add_argument(
        "--compare", nargs=2, type=network, metavar="NETWORK", help="two networks on one page, instead of NETWORK"
    )
    add(parser, "--out", metavar="FILE", help="file to write (default: trace.html, trace.json or trace.dot)")
    parser.add_argument(
        "--format",
        choices=SUFFIXES,
        default="html",
        help="HTML page, timeline for Perfetto, or Graphviz graph (default: html)",
    )
    add(parser, "--json")
    add_flags(parser)


def step_command(network: str, arguments: argparse.Namespace) -> str:
    """The `minires step` that computes the same: the flags that select network, images and backend."""
    flags = Parser()
    add_flags(flags)
    words = ["minires", "step", network]
    for action in flags._actions:
        value = getattr(arguments, action.dest, None)
        if value is None or value is False or not action.option_strings:
            continue
        words += [action.option_strings[-1]] + ([] if value is True else [str(value)])
    return shlex.join(words)


def run(arguments: argparse.Namespace) -> int:
    if (arguments.network is None) == (arguments.compare is None):
        raise UsageError("give one NETWORK, or --compare with two networks")
    if arguments.compare is not None and arguments.format != "html":
        raise UsageError(f"--format must be html with --compare, got {arguments.format}")
    if arguments.compare is not None and arguments.weights is not None:
        raise UsageError("--weights cannot be given with --compare: they fit one network")
    out = Path(arguments.out or f"trace.{SUFFIXES[arguments.format]}")
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {out}")
    folder_for_output(out.parent)
    traces = []
    for name in arguments.compare or [arguments.network]:
        with model_and_batch(name, arguments) as found:
            traces.append(trace(found.model, found.images, found.labels, found.title))
            traces[-1].command = step_command(name, arguments)
    made = {
        "html": lambda: page([traced.content() for traced in traces]),
        "chrome": traces[0].timeline,
        "dot": traces[0].graph,
    }[arguments.format]()
    write(out, made.encode())
    if arguments.json:
        runs = [{"title": one.title, "loss": one.loss, "steps": len(one.events)} for one in traces]
        print_json({"file": str(out), "traces": runs})
        return 0
    for one in traces:
        say(f"{one.title}: loss {one.loss:.4f}, {len(one.events)} steps")
    say(out, indent=None)
    return 0
