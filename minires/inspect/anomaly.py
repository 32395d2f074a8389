"""Finds the first node that makes a NaN or an Inf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires.arrays import Array, array_module, as_array
from minires.autograd import Function
from minires.context import Observer
from minires.inspect import rewrite
from minires.inspect.card import input_names
from minires.statistics import Statistics

Named = list[tuple[str, Array]]


class AnomalyError(ArithmeticError):
    """A result is not finite.  The traceback ends in the frame of the forward or backward that computed it.

    That frame is missing for a class without source, such as one typed at the prompt.

    node    the operation
    phase   "forward" or "backward"
    """

    def __init__(self, message: str, node: Function, phase: str) -> None:
        super().__init__(message)
        self.node, self.phase = node, phase


class detect_anomaly(Observer):
    """A context manager: the first result that holds a NaN or an Inf, forward or backward, raises AnomalyError.

        with mr.inspect.detect_anomaly():
            loss = F.cross_entropy(model(x), labels)
            loss.backward()

    The error names the node's inputs that were not finite.  In the error's last frame the result is `y` in forward and
    `grads` in backward.
    Each check costs one pass over a result.  NumPy's own overflow warnings are off inside the context.
    """

    def __enter__(self) -> Any:
        self.quiet = np.errstate(all="ignore")
        self.quiet.__enter__()
        return super().__enter__()

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        given = [(name, a) for name, a in zip(input_names(node), arrays, strict=True) if a is not None]
        self._watch(node, "forward", lambda output: _judge(node, "forward", [("the output", output)], given))

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self._unwatch(output)

    def before_backward(self, node: Function, grad_output: Array) -> None:
        names = input_names(node)

        def look(grads: Any) -> AnomalyError | None:
            grads = grads if isinstance(grads, tuple) else (grads,)
            needed = zip(names, grads, node.needs_input_grad, strict=False)
            results = [(f"the gradient of {name}", g) for name, g, needs in needed if g is not None and needs]
            return _judge(node, "backward", results, [("grad_output", grad_output)])

        self._watch(node, "backward", look)

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        self._unwatch(grads)

    def _watch(self, node: Function, method: str, look: Callable[[Any], AnomalyError | None]) -> None:
        self.watched, self.look_later = (node, method), None
        try:
            rewrite.install(node, method, rewrite.RAISE, look)
        except rewrite.SourceMissing:  # `_unwatch` raises the error, after the frame is gone
            self.look_later = look

    def _unwatch(self, result: Any) -> None:
        rewrite.uninstall(*self.watched)
        if self.look_later is not None and (error := self.look_later(result)) is not None:
            error.add_note("the source of this class is not available, so the traceback lacks the operation's frame")
            raise error

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(self, "watched"):
            rewrite.uninstall(*self.watched)
        super().__exit__(*exc_info)
        self.quiet.__exit__(None, None, None)


def _judge(node: Function, phase: str, results: Named, given: Named) -> AnomalyError | None:
    bad = [f"{name} holds {counts}" for name, counts in _not_finite(results)]
    if not bad:
        return None
    already = [f"{name} ({counts})" for name, counts in _not_finite(given)]
    origin = f"already bad: {', '.join(already)}" if already else "all of its inputs are finite"
    of = f" of {node.module}" if node.module else ""
    place = f"; its forward was called at {node.place}" if node.place else ""
    return AnomalyError(f"{phase} of {node.name}{of}: {'; '.join(bad)}; {origin}{place}", node, phase)


def _not_finite(arrays: Named) -> list[tuple[str, str]]:
    """The named arrays that hold NaN or Inf: (name, counts in words)."""
    found = []
    for name, array in ((name, as_array(value)) for name, value in arrays):
        if not bool(array_module(array).isfinite(array).all()):
            held = Statistics.of(array)
            parts = [f"{count:,} {what}" for count, what in ((held.nans, "NaN"), (held.infs, "Inf")) if count]
            found.append((name, f"{' and '.join(parts)} among {held.size:,} numbers"))
    return found
