"""One forward and backward, recorded node by node: as a page to look at, a timeline, or a graph."""

from minires.inspect.tracing.record import Trace, trace

__all__ = ["Trace", "trace"]
