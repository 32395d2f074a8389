"""The recording for Perfetto (ui.perfetto.dev) and chrome://tracing.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (complete events, "ph": "X").
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.inspect.tracing.record import Event, Trace


def timeline(trace: Trace) -> str:
    """Forward and backward on two tracks, operations inside of their modules; times in microseconds."""
    told: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"minires: {trace.title}"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "forward"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 2, "args": {"name": "backward"}},
    ]
    for tid, phase in enumerate(("forward", "backward"), start=1):
        events = [event for event in trace.events if event.phase == phase]
        told += _modules(events, tid, 0)
        told += [
            _complete(
                event.operation,
                tid,
                event.begin,
                event.begin + event.seconds,
                module=event.module,
                options=event.options,
                shapes=", ".join(str(view.statistics.shape) for view in event.arrays),
                multiply_adds=event.macs,
            )
            for event in events
        ]
    return json.dumps({"traceEvents": told, "displayTimeUnit": "ms"})


def _modules(events: list[Event], tid: int, depth: int) -> list[dict[str, Any]]:
    """A span for each run of neighbouring events that share the first `depth` + 1 names of their path; and inside."""
    told: list[dict[str, Any]] = []
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
        last = inside[-1]
        told.append(_complete(".".join(path[: depth + 1]), tid, inside[0].begin, last.begin + last.seconds))
        told += _modules(inside, tid, depth + 1)
        start = end
    return told


def _complete(name: str, tid: int, begin: float, end: float, **args: Any) -> dict[str, Any]:
    return {"name": name, "ph": "X", "pid": 1, "tid": tid, "ts": 1e6 * begin, "dur": 1e6 * (end - begin), "args": args}
