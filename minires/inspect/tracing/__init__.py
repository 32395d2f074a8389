"""One forward and backward, traced node by node: as a page to look at, a timeline, or a graph."""

from minires.inspect.tracing.tracer import Trace, trace

__all__ = ["Trace", "trace"]
