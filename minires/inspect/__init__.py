"""Tools that look into a network and into a run, all of them observers of the tape."""

from minires._lazy import directory
from minires.inspect.anomaly import AnomalyError, detect_anomaly
from minires.inspect.breakpoints import breakpoint, norm_above, not_finite
from minires.inspect.card import Card, card
from minires.inspect.explaining import Call, Explanation, explain, record
from minires.inspect.memory import PeakMemory, peak_memory
from minires.inspect.summary import Row, Summary, summary
from minires.inspect.tracing import Trace, trace

__all__ = [
    "AnomalyError",
    "Call",
    "Card",
    "Explanation",
    "PeakMemory",
    "Row",
    "Summary",
    "Trace",
    "breakpoint",
    "card",
    "detect_anomaly",
    "explain",
    "norm_above",
    "not_finite",
    "peak_memory",
    "record",
    "summary",
    "trace",
]
__dir__ = directory(globals())
