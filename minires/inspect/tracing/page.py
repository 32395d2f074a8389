"""Traces as one HTML file that opens from disk: page.html with the traces inserted as JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from minires.autograd import Function
from minires.inspect.sources import Source, reference_functions
from minires.inspect.tracing.embedded import Pool, embedded
from minires.inspect.tracing.events import Event, View

MARK, STYLE = "/*TRACES*/", "/*STYLE*/"


def stylesheet() -> str:
    """The CSS that the pages of minires share."""
    return (resources.files("minires.inspect.tracing") / "style.css").read_text(encoding="utf-8")


def page(contents: Sequence[Mapping[str, Any]]) -> str:
    """The HTML page of one trace (see `Trace.content`), or of several side by side with shared charts."""
    # "<" inside of a script element could end it.
    text = json.dumps(contents, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = (resources.files("minires.inspect.tracing") / "page.html").read_text(encoding="utf-8")
    title = " and ".join(content["title"] for content in contents).replace("&", "&amp;").replace("<", "&lt;")
    template = template.replace(STYLE, stylesheet())
    return template.replace("<title></title>", f"<title>{title}</title>").replace(MARK, text)


def content(
    title: str,
    loss: float,
    runs: int,
    events: Sequence[Event],
    classes: Mapping[str, type[Function]],
    command: str,
    budget: int,
) -> dict[str, Any]:
    """A trace as the page's JSON.  An output is the next node's input, so each distinct picture is stored once.

    command   of the shell that computes the same bits; "": none
    budget    bytes of arrays
    """
    pictures: dict[str, int] = {}
    pool = Pool(budget)
    calls = {e.number: embedded(e.call, pool) for e in events if e.phase == "forward" and e.call is not None}
    return {
        "command": command,
        "calls": calls,
        "arrays": pool.arrays,
        "title": title,
        "loss": _finite(loss),
        "runs": runs,
        "events": [_event(event, pictures) for event in events],
        "places": places(events),
        "sources": {name: _source(cls) for name, cls in classes.items()},
        "pictures": list(pictures),
    }


def places(events: Sequence[Event]) -> dict[int, list[Any]]:
    """Node -> what `at` selects it, and which of the stops there it is, in forward and in backward, from 1.

    A module that holds further modules is selected by a pattern, as its path would select these too.
    """
    forward = [event for event in events if event.phase == "forward"]
    modules = {event.module for event in forward}
    found: dict[int, list[Any]] = {}
    stops: dict[str, list[int]] = {}
    for event in forward:
        inner = any(module.startswith(f"{event.module}.") for module in modules)
        at = event.module or event.operation
        if event.module and inner:
            at = f"{event.module[:-1]}[{event.module[-1]}]"
        stops.setdefault(at, []).append(event.number)
    backward = [event.number for event in events if event.phase == "backward"]
    for at, numbers in stops.items():
        back = [number for number in backward if number in numbers]
        for number in numbers:
            last = back.index(number) + 1 if number in back else 0
            found[number] = [at, numbers.index(number) + 1, last]
    return found


def _event(event: Event, pictures: dict[str, int]) -> dict[str, Any]:
    return {
        "n": event.number,
        "op": event.operation,
        "ms": round(1e3 * event.seconds, 4),
        "in": [_view(view, pictures) for view in event.arrays],
        "out": [_view(view, pictures) for view in event.results],
        "joins": [{"from": join.source, **_view(join.view, pictures)} for join in event.joins],
        **{name: getattr(event, name) for name in ("phase", "module", "options", "place")},
        **{name: getattr(event, name) for name in ("macs", "params", "kept", "alive")},
    }


def _view(view: View, pictures: dict[str, int]) -> dict[str, Any]:
    picture = None
    if view.picture is not None:
        picture = pictures.setdefault(base64.b64encode(view.picture).decode(), len(pictures))
    statistics = {name: _finite(value) for name, value in vars(view.statistics).items()}
    return {"name": view.name, "leaf": view.leaf, "hist": view.histogram, "pic": picture, **statistics}


def _finite(value: Any) -> Any:
    """None in place of a NaN or an infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _source(cls: type[Function]) -> dict[str, Any]:
    """The class's source, and the lines of forward and backward (first, last), from 0; inherited: the class's first.

    reference   for each phase the functions of the reference backend that compute it
    """
    source: dict[str, Any] = {"forward": [0, 0], "backward": [0, 0], "reference": {"forward": [], "backward": []}}
    try:
        whole = Source.of(cls)
    except (OSError, TypeError):  # typed at a prompt
        return source | {"file": "", "first": 1, "lines": ["(the source is not available)"]}
    source |= vars(whole)
    for phase in ("forward", "backward"):
        if phase in cls.__dict__:
            own = Source.of(cls.__dict__[phase])
            source[phase] = [own.first - whole.first, own.first - whole.first + len(own.lines) - 1]
        source["reference"][phase] = [vars(Source.of(function)) for function in reference_functions(cls, phase)]
    return source
