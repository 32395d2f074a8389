"""Figures 2 and 5 as SVG, with the gradient's path through a recorded block: shapes forward, norms backward."""

from __future__ import annotations

from html import escape

from minires.inspect import Trace
from minires.inspect.tracing.events import Event

FORWARD, BACKWARD = "#1763b5", "#b3261e"
WIDTH, STEP, BOX, LEFT = 560, 58, 150, 190  # pixels


def diagram(recorded: Trace, block: str) -> str:
    """The block at this module path.  Blue: the output's shape of each operation; red: the norm of its gradient."""
    forward = {event.number: event for event in recorded.events if event.phase == "forward"}
    backward = {event.number: event for event in recorded.events if event.phase == "backward"}
    inside = [event for event in forward.values() if event.module == block or event.module.startswith(f"{block}.")]
    shortcut = [event for event in inside if "downsample" in event.module]
    path = [event for event in inside if event not in shortcut]
    producer = path[0].parents[0]
    assert producer is not None
    y = 66
    places: dict[int, int] = {}
    parts = [_text(LEFT, 22, "x", "middle", weight=600)]
    parts += _edge(forward[producer], backward[producer], 22)
    joins = backward[producer].joins
    for event in path:
        places[event.number] = y
        parts.append(_arrow(LEFT, y - STEP + (30 if event is path[0] else 26) + 0, LEFT, y - 16, FORWARD))
        parts.append(_box(event, y))
        parts += _edge(event, backward[event.number], y)
        y += STEP
    add = next(event for event in path if event.operation == "Add")
    end, right = places[add.number], LEFT + BOX / 2 + 22
    parts.append(
        _path(f"M {LEFT + 8} 30 C {right + 60} 30, {right + 60} {end}, {LEFT + 16} {end}", FORWARD, "shortcut")
    )
    label = "identity" if not shortcut else " and ".join(_name(event) for event in shortcut)
    parts.append(_text(right + 36, 44, f"shortcut: {label}", "start", FORWARD))
    if len(joins) == 2:
        numbers = {join.source: join.view.statistics.norm for join in joins}
        first = numbers.get(path[0].number)
        other = next((norm for number, norm in numbers.items() if number != path[0].number), None)
        if first is not None and other is not None:
            parts.append(_text(right + 36, 62, f"‖∂x‖ along it {other:.3g}, through F {first:.3g}", "start", BACKWARD))
    head = f'<svg class="diagram" viewBox="0 0 {WIDTH} {y - 16}" role="img" aria-label="{escape(block)}">'
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


def _edge(event: Event, backward: Event, y: float) -> list[str]:
    """Left and right of the line below an operation: the output's shape, and the norm of its gradient."""
    shape = "×".join(map(str, event.results[0].statistics.shape))
    norm = backward.arrays[0].statistics.norm
    return [
        _text(LEFT - BOX / 2 - 12, y + 5, shape, "end", FORWARD),
        _text(LEFT + 12, y + 31, f"↑ ‖g‖ = {norm:.3g}", "start", BACKWARD) if y > 30 else "",
        _text(LEFT - 14, 27, f"↑ ‖∂x‖ = {norm:.3g}", "end", BACKWARD) if y <= 30 else "",
    ]


def _text(
    x: float, y: float, text: str, anchor: str, colour: str = "#1d2733", size: int = 13, weight: int = 400
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    tip = f'<path d="M {x2 - 4} {y2 - 7} L {x2} {y2} L {x2 + 4} {y2 - 7} z" fill="{colour}"/>'
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="1.6"/>' + tip


def _path(d: str, colour: str, kind: str) -> str:
    return f'<path class="{kind}" d="{d}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
