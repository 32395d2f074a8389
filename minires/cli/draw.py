"""`minires draw`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minires.cli.words import UsageError, folder_for_output, known_network, say, write


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "draw",
        help="networks drawn as in Figure 3",
        description="Draws networks side by side from the models themselves: one box a weight layer, shortcuts solid, "
        "or dotted where dimensions increase; as SVG and PNG.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_draw)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="see `minires models`")
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--out", metavar="STEM", help="files STEM.svg and STEM.png (default: the networks' names)")
    return parser


def _draw(arguments: argparse.Namespace) -> int:
    from minires.paper import drawing

    stem = Path(arguments.out or "-".join(arguments.networks))
    folder_for_output(stem.parent)
    drawings = [_drawing(name, arguments) for name in arguments.networks]
    for kind in ("svg", "png"):
        say(write(stem.parent / f"{stem.name}.{kind}", drawing.picture(drawings, kind)), indent=None)
    return 0


def _drawing(name: str, arguments: argparse.Namespace) -> Any:
    from minires import models
    from minires.paper import drawing

    known_network(name)
    chosen = {"shortcut": arguments.shortcut, "stride_in": arguments.stride_in, "width": arguments.width}
    options = {option: value for option, value in chosen.items() if value is not None}
    options = {option: value for option, value in options.items() if option in models.options(name)}
    try:
        return drawing.named(name, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
