"""Traces as one HTML file that opens from disk: page.html with the traces inserted as JSON."""

from __future__ import annotations

import base64
import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import minires
from minires.autograd import Function
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
    title: str, loss: float, runs: int, events: Iterable[Event], classes: Mapping[str, type[Function]]
) -> dict[str, Any]:
    """A trace as the page's JSON.  An output is the next node's input, so each distinct picture is stored once."""
    pictures: dict[str, int] = {}
    return {
        "title": title,
        "loss": _finite(loss),
        "runs": runs,
        "events": [_event(event, pictures) for event in events],
        "sources": {name: _source(cls) for name, cls in classes.items()},
        "pictures": list(pictures),
    }


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
    """The class's source, and the lines of forward and backward (first, last), from 0; inherited: the class's first."""
    source: dict[str, Any] = {"forward": [0, 0], "backward": [0, 0]}
    try:
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):  # typed at a prompt
        return source | {"file": "", "first": 1, "lines": ["(the source is not available)"]}
    file = Path(inspect.getfile(cls))
    home = Path(minires.__file__).parent.parent
    source |= {"file": str(file.relative_to(home) if file.is_relative_to(home) else file.name)}
    source |= {"first": first, "lines": [line.rstrip("\n") for line in lines]}
    for phase in {"forward", "backward"} & cls.__dict__.keys():
        body, start = inspect.getsourcelines(cls.__dict__[phase])
        source[phase] = [start - first, start - first + len(body) - 1]
    return source
