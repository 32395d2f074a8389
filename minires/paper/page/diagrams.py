"""Figures 2 and 5 as SVG, with the gradient's path through a recorded block: shapes forward, norms backward."""

from __future__ import annotations

from html import escape

from minires.inspect import Trace
from minires.inspect.tracing.events import Event

FORWARD, BACKWARD = "#1763b5", "#b3261e"
WIDTH, STEP, BOX, LEFT, RIGHT, TOP = 540, 60, 150, 190, 320, 20  # pixels


def diagram(recorded: Trace, block: str) -> str:
    """The block at this module path.  Blue: the output's shape of each operation; red: the norm of its gradient.

    Where two paths meet at x, each arrow has its own part of the gradient, and their sum stands beside x.
    """
    forward = {event.number: event for event in recorded.events if event.phase == "forward"}
    backward = {event.number: event for event in recorded.events if event.phase == "backward"}
    inside = [event for event in forward.values() if event.module == block or event.module.startswith(f"{block}.")]
    shortcut = [event for event in inside if "downsample" in event.module]
    path = [event for event in inside if event not in shortcut]
    producer = path[0].parents[0]
    assert producer is not None
    y = TOP + STEP
    places: dict[int, int] = {}
    parts = [_text(LEFT, TOP + 5, "x", "middle", weight=600)]
    through = {join.source == path[0].number: join.view.statistics.norm for join in backward[producer].joins}
    parts += _edge(forward[producer], through.get(True, _norm(backward[producer])), TOP)
    for event in path:
        places[event.number] = y
        parts += [_arrow(LEFT - 5, y - STEP + 16, y - 16, FORWARD), _arrow(LEFT + 5, y - 16, y - STEP + 16, BACKWARD)]
        parts.append(_box(event, y))
        parts += _edge(event, _norm(backward[event.number]), y)
        y += STEP
    add = next(event for event in path if event.operation == "Add")
    parts += _shortcut(TOP, places[add.number])
    label = "identity" if not shortcut else " and ".join(_name(event) for event in shortcut)
    parts.append(_text(RIGHT + 20, TOP + 5, f"shortcut: {label}", "start", FORWARD))
    if len(through) == 2:
        parts.append(_text(RIGHT + 20, TOP + 25, f"‖g‖ = {through[False]:.3g}", "start", BACKWARD))
        total = f"sum at x: ‖g‖ = {_norm(backward[producer]):.3g}"
        parts.append(_text(LEFT - 16, TOP + 26, total, "end", BACKWARD))
    head = f'<svg class="diagram" viewBox="0 0 {WIDTH} {y - 10}" role="img" aria-label="{escape(block)}">'
    return head + "".join(parts) + "</svg>"


def _name(event: Event) -> str:
    names = {"BatchNorm": "batch norm", "Add": "+", "Slice": "every second pixel", "Pad": "zero channels"}
    if event.operation == "Conv2d":
        O, _, KH, KW = event.arrays[1].statistics.shape
        stride = ", /2" if "stride=(2" in event.options else ""
        return f"{KH}×{KW} conv, {O}{stride}"
    return names.get(event.operation, event.operation)


def _box(event: Event, y: float) -> str:
    if event.operation == "Add":
        circle = f'<circle cx="{LEFT}" cy="{y}" r="15" fill="#fff" stroke="#1d2733"/>'
        return circle + _text(LEFT, y + 6, "+", "middle", size=20)
    fill = "#d8e6f5" if event.operation == "Conv2d" else "#ffffff"
    box = f'<rect x="{LEFT - BOX / 2}" y="{y - 15}" width="{BOX}" height="30" rx="5" fill="{fill}" stroke="#1d2733"/>'
    return box + _text(LEFT, y + 5, _name(event), "middle")


def _norm(backward: Event) -> float:
    """Of the gradient that arrives at an operation's output."""
    return backward.arrays[0].statistics.norm


def _edge(event: Event, norm: float, y: float) -> list[str]:
    """An operation's output: left of it the shape; below, on the gradient's arrow, its norm."""
    shape = "×".join(map(str, event.results[0].statistics.shape))
    return [
        _text(LEFT - BOX / 2 - 12, y + 5, shape, "end", FORWARD),
        _text(LEFT + 14, y + 33, f"‖g‖ = {norm:.3g}", "start", BACKWARD),
    ]


def _text(
    x: float, y: float, text: str, anchor: str, colour: str = "#1d2733", size: int = 13, weight: int = 400
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _arrow(x: float, y1: float, y2: float, colour: str) -> str:
    """Upward or downward."""
    back = -7 if y2 > y1 else 7
    tip = f'<path d="M {x - 4} {y2 + back} L {x} {y2} L {x + 4} {y2 + back} z" fill="{colour}"/>'
    return f'<line x1="{x}" y1="{y1}" x2="{x}" y2="{y2}" stroke="{colour}" stroke-width="1.6"/>' + tip


def _shortcut(top: float, bottom: float) -> list[str]:
    """From x to the addition, and back for the gradient."""
    lines = []
    for offset, colour in ((0, FORWARD), (8, BACKWARD)):
        x, y1, y2 = RIGHT + offset, top - 4 + offset, bottom + 4 - offset
        line = f'd="M {LEFT + 16} {y1} H {x} V {y2} H {LEFT + 20}" fill="none" stroke="{colour}" stroke-width="1.6"'
        at, tip = (LEFT + 15, y2) if colour == FORWARD else (LEFT + 10, y1)
        head = f'd="M {at + 7} {tip - 4} L {at} {tip} L {at + 7} {tip + 4} z" fill="{colour}"'
        lines += [f'<path class="shortcut" {line}/>', f"<path {head}/>"]
    return lines
