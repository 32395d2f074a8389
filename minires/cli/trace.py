"""`minires trace`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minires.cli.subject import add_subject, subject
from minires.cli.words import UsageError, folder_for_output, say, write

SUFFIXES = {"html": "html", "chrome": "json", "dot": "dot"}


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "trace",
        help="record a forward and backward, to look at",
        description="Records one forward and backward, node by node, and writes one HTML file that opens from disk and "
        "needs nothing else: the network as a graph, every operation's source, arrays and gradients as pictures, and "
        "charts over depth.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_trace)
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="see `minires models`")
    parser.add_argument("--compare", nargs=2, metavar="NETWORK", help="two networks beside one another, on one page")
    parser.add_argument("--out", metavar="FILE", help="default: trace.html, trace.json or trace.dot")
    parser.add_argument("--format", metavar="NAME", default="html", help="html, chrome (for Perfetto) or dot")
    add_subject(parser)
    return parser


def _trace(arguments: argparse.Namespace) -> int:
    from minires.inspect import trace
    from minires.inspect.tracing.page import page

    if (arguments.network is None) == (arguments.compare is None):
        raise UsageError("a NETWORK is needed, or --compare with two of them")
    if arguments.format not in SUFFIXES:
        raise UsageError(f"--format must be one of {', '.join(SUFFIXES)}, got {arguments.format!r}")
    if arguments.compare is not None and arguments.format != "html":
        raise UsageError("--compare makes a page: --format must be html")
    if arguments.compare is not None and arguments.weights is not None:
        raise UsageError("--weights belong to one network; they cannot be given with --compare")
    out = Path(arguments.out or f"trace.{SUFFIXES[arguments.format]}")
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {out}")
    folder_for_output(out.parent)
    traces = []
    for network in arguments.compare or [arguments.network]:
        with subject(network, arguments) as found:
            traces.append(trace(found.model, found.images, found.labels, found.told))
    made = {
        "html": lambda: page([traced.content() for traced in traces]),
        "chrome": traces[0].timeline,
        "dot": traces[0].graph,
    }[arguments.format]()
    for traced in traces:
        say(f"{traced.title}: loss {traced.loss:.4f}, {len(traced.events)} steps")
    say(write(out, made.encode()), indent=None)
    return 0
