"""Traces for other programs: the tape as a graph for Graphviz, the times as a timeline for Perfetto."""

from __future__ import annotations

import json
from typing import Any

from minires.inspect.tracing.events import Event


def graph(title: str, events: list[Event]) -> str:
    """For `dot -Tsvg`: nodes in clusters of their modules, edges from the node that made an input."""
    forward = [event for event in events if event.phase == "forward"]
    lines = [f"digraph {_quoted(title)} {{", "  node [shape=box, fontname=Helvetica, fontsize=10];"]
    tree: dict[str, Any] = {}
    for event in forward:
        place = tree
        for name in filter(None, event.module.split(".")):
            place = place.setdefault(name, {})
        place.setdefault("", []).append(event)
    lines += _cluster(tree, "", "  ")
    for event in forward:
        lines += [f"  n{parent} -> n{event.number};" for parent in event.parents if parent is not None]
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(tree: dict[str, Any], path: str, indent: str) -> list[str]:
    lines = []
    for event in tree.get("", []):
        label = f"{event.operation}\\n{'×'.join(map(str, event.results[0].statistics.shape))}"
        lines.append(f"{indent}n{event.number} [label={_quoted(label)}];")
    for name, inner in tree.items():
        if not name:
            continue
        below = f"{path}.{name}" if path else name
        lines.append(f"{indent}subgraph {_quoted(f'cluster_{below}')} {{")
        lines.append(f"{indent}  label={_quoted(below)}; color=gray70; fontname=Helvetica; fontsize=9;")
        lines += _cluster(inner, below, indent + "  ")
        lines.append(f"{indent}}}")
    return lines


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def timeline(title: str, events: list[Event]) -> str:
    """For ui.perfetto.dev and chrome://tracing: forward and backward on two tracks, operations inside their modules.

    Times are in microseconds.  Format: complete events ("ph": "X") of
    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    entries: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"minires: {title}"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "forward"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 2, "args": {"name": "backward"}},
    ]
    for tid, phase in enumerate(("forward", "backward"), start=1):
        own = [event for event in events if event.phase == phase]
        entries += _modules(own, tid, 0)
        for event in own:
            shapes = ", ".join(str(view.statistics.shape) for view in event.arrays)
            more = {"module": event.module, "options": event.options, "shapes": shapes, "multiply_adds": event.macs}
            entries.append(_complete(event.operation, tid, event, event, more))
    return json.dumps({"traceEvents": entries, "displayTimeUnit": "ms"})


def _modules(events: list[Event], tid: int, depth: int) -> list[dict[str, Any]]:
    """A span for each run of events that share the first `depth` + 1 names of their path, and the spans inside it."""
    entries: list[dict[str, Any]] = []
    start = 0
    while start < len(events):
        path = events[start].module.split(".")
        if len(path) <= depth or not path[0]:
            start += 1
            continue
        end = start
        while end < len(events) and events[end].module.split(".")[: depth + 1] == path[: depth + 1]:
            end += 1
        inside = events[start:end]
        entries.append(_complete(".".join(path[: depth + 1]), tid, inside[0], inside[-1], {}))
        entries += _modules(inside, tid, depth + 1)
        start = end
    return entries


def _complete(name: str, tid: int, first: Event, last: Event, args: dict[str, Any]) -> dict[str, Any]:
    span = {"ts": 1e6 * first.begin, "dur": 1e6 * (last.begin + last.seconds - first.begin)}
    return {"name": name, "ph": "X", "pid": 1, "tid": tid, **span, "args": args}
