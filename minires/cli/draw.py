"""Draw networks side by side, as in Figure 3 of the paper, into an SVG and a PNG file.

Each box is a layer with weights.  Shortcuts are solid lines, or dotted lines where dimensions increase.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minires import models
from minires.cli.common import UsageError, folder_for_output, print_files, write
from minires.cli.parser import OPTIONS, Parser, add, given
from minires.paper import drawing

EXAMPLES = ("draw resnet50", "draw plain34 resnet34 --out build/figure3")


def flags(parser: Parser) -> None:
    add(parser, "NETWORK", nargs="+")
    add(parser, "--shortcut --stride-in --width")
    add(parser, "--out", metavar="STEM", help="path of the files STEM.svg and STEM.png (default: the networks' names)")
    add(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    stem = Path(arguments.out or "-".join(arguments.network))
    folder_for_output(stem.parent)
    chosen = given(arguments, OPTIONS)
    try:
        drawings = [
            drawing.named(name, **{option: chosen[option] for option in chosen if option in models.options(name)})
            for name in arguments.network
        ]
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    files = [write(Path(f"{stem}.{kind}"), drawing.picture(drawings, kind)) for kind in ("svg", "png")]
    print_files(files, arguments.json)
    return 0
