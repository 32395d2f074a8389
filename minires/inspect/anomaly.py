"""The first node that makes a NaN or an Inf."""

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


class AnomalyError(ArithmeticError):
    """A result is not finite; its traceback ends in the frame of the forward or backward that computed it.

    (Of a class without source, such as one typed at the prompt, that frame is gone.)

    node    the operation
    phase   "forward" or "backward"
    """

    def __init__(self, message: str, node: Function, phase: str) -> None:
        super().__init__(message)
        self.node, self.phase = node, phase


class detect_anomaly(Observer):
    """Within it the first result that holds a NaN or an Inf, forward or backward, raises AnomalyError.

        with mr.inspect.detect_anomaly():
            loss = F.cross_entropy(model(x), labels)
            loss.backward()

    The error names the inputs of the node that were not finite.  In the frame that it comes from, the result is `y` in
    forward and `grads` in backward.
    Every result is looked at, which costs a pass over each.  NumPy's own warnings of overflow are silent meanwhile.
    """

    def __enter__(self) -> Any:
        self.quiet = np.errstate(all="ignore")
        self.quiet.__enter__()
        return super().__enter__()

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        names = input_names(node)
        given = [(name, a) for name, a in zip(names, arrays, strict=True) if a is not None]
        self._watch(node, "forward", lambda output: _judge(node, "forward", [("the output", output)], given))

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self._unwatch(output)

    def before_backward(self, node: Function, grad_output: Array) -> None:
        names = input_names(node)

        def look(grads: Any) -> AnomalyError | None:
            grads = grads if isinstance(grads, tuple) else (grads,)
            wanted = zip(names, grads, node.needs_input_grad, strict=False)
            results = [(f"the gradient of {name}", g) for name, g, needed in wanted if g is not None and needed]
            return _judge(node, "backward", results, [("grad_output", grad_output)])

        self._watch(node, "backward", look)

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        self._unwatch(grads)

    def _watch(self, node: Function, method: str, look: Callable[[Any], AnomalyError | None]) -> None:
        self.watched, self.look_later = (node, method), None
        try:
            rewrite.install(node, method, rewrite.RAISE, look)
        except rewrite.SourceMissing:  # then the error comes from here, after the frame is gone
            self.look_later = look

    def _unwatch(self, result: Any) -> None:
        rewrite.uninstall(*self.watched)
        if self.look_later is not None and (error := self.look_later(result)) is not None:
            error.add_note("the source of this class is not at hand, so that the frame that made it cannot be shown")
            raise error

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(self, "watched"):
            rewrite.uninstall(*self.watched)
        super().__exit__(*exc_info)
        self.quiet.__exit__(None, None, None)


def _judge(
    node: Function, phase: str, results: list[tuple[str, Array]], given: list[tuple[str, Array]]
) -> AnomalyError | None:
    bad = [f"{name} holds {told}" for name, told in _not_finite(results)]
    if not bad:
        return None
    already = [f"{name} ({told})" for name, told in _not_finite(given)]
    origin = f"already bad: {', '.join(already)}" if already else "all of its inputs are finite"
    of = f" of {node.module}" if node.module else ""
    place = f"; its forward was called at {node.place}" if node.place else ""
    return AnomalyError(f"{phase} of {node.name}{of}: {'; '.join(bad)}; {origin}{place}", node, phase)


def _not_finite(arrays: list[tuple[str, Array]]) -> list[tuple[str, str]]:
    """Those of the named arrays that hold NaN or Inf, and how many."""
    found = []
    for name, array in ((name, as_array(value)) for name, value in arrays):
        if not bool(array_module(array).isfinite(array).all()):
            told = Statistics.of(array)
            parts = [f"{told.nans:,} NaN"] if told.nans else []
            parts += [f"{told.infs:,} Inf"] if told.infs else []
            found.append((name, f"{' and '.join(parts)} among {told.size:,} numbers"))
    return found
