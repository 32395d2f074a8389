"""Traces as one HTML file that opens from disk: page.html with the recording put in."""

from __future__ import annotations

import base64
import inspect
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import minires
from minires.autograd import Function

if TYPE_CHECKING:
    from minires.inspect.tracing.record import Event, Trace, View

MARK = "/*TRACES*/"


def page(traces: Sequence[Trace]) -> str:
    """One trace, or several beside one another with their charts in one."""
    told = [_trace(trace) for trace in traces]
    # "<" inside of a script element could end it.
    text = json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = (resources.files("minires.inspect.tracing") / "page.html").read_text(encoding="utf-8")
    title = " and ".join(trace.title for trace in traces)
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    return template.replace("<title></title>", f"<title>{safe}</title>").replace(MARK, text)


def _trace(trace: Trace) -> dict[str, Any]:
    pictures: dict[str, int] = {}
    return {
        "title": trace.title,
        "loss": _number(trace.loss),
        "runs": trace.runs,
        "events": [_event(event, pictures) for event in trace.events],
        "sources": {name: _source(cls) for name, cls in trace.classes.items()},
        "pictures": list(pictures),
    }


def _event(event: Event, pictures: dict[str, int]) -> dict[str, Any]:
    return {
        "n": event.number,
        "phase": event.phase,
        "op": event.operation,
        "module": event.module,
        "options": event.options,
        "place": event.place,
        "ms": round(1e3 * event.seconds, 4),
        "macs": event.macs,
        "params": event.params,
        "kept": event.kept,
        "alive": event.alive,
        "in": [_view(view, pictures) for view in event.arrays],
        "out": [_view(view, pictures) for view in event.results],
        "joins": [{"from": join.source, **_view(join.view, pictures)} for join in event.joins],
    }


def _view(view: View, pictures: dict[str, int]) -> dict[str, Any]:
    told = view.statistics
    picture = None
    if view.picture is not None:  # an output is the next one's input: each picture stands there once
        picture = pictures.setdefault(base64.b64encode(view.picture).decode(), len(pictures))
    return {
        "name": view.name,
        "leaf": view.leaf,
        "shape": told.shape,
        "dtype": told.dtype,
        "mean": _number(told.mean),
        "std": _number(told.std),
        "min": _number(told.min),
        "max": _number(told.max),
        "norm": _number(told.norm),
        "zeros": told.zeros,
        "nans": told.nans,
        "infs": told.infs,
        "size": told.size,
        "hist": view.histogram,
        "pic": picture,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _source(cls: type[Function]) -> dict[str, Any]:
    """The class as it stands in its file, and the lines of forward and backward (first, last), from 0."""
    try:
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):  # typed at a prompt
        return {"file": "", "first": 1, "lines": ["(the source is not at hand)"], "forward": [0, 0], "backward": [0, 0]}
    file = Path(inspect.getfile(cls))
    home = Path(minires.__file__).parent.parent
    told: dict[str, Any] = {"file": str(file.relative_to(home) if file.is_relative_to(home) else file.name)}
    told |= {"first": first, "lines": [line.rstrip("\n") for line in lines]}
    for phase in ("forward", "backward"):
        method = cls.__dict__.get(phase)  # an inherited one is told of by its first line
        if method is None:
            told[phase] = [0, 0]
            continue
        body, start = inspect.getsourcelines(method)
        told[phase] = [start - first, start - first + len(body) - 1]
    return told
