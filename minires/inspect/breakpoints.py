"""Stops a debugger at a node of the tape.

pdb      `breakpoint(at="layer3.0.conv2")` around a run, or a line and a condition from the shell:
             python -m pdb -c "b minires/ops/conv2d.py:37, self.module == 'layer3.0.conv2'" -c c script.py
         `breakpoint()` in your own code stops too; from there `s` steps into `model(x)`.
VS Code  The debugger skips installed packages by default.  With this `.vscode/launch.json` it stops in them too:
             {
               "version": "0.2.0",
               "configurations": [
                 {
                   "name": "Python with minires",
                   "type": "debugpy",
                   "request": "launch",
                   "program": "${file}",
                   "justMyCode": false
                 }
               ]
             }
         For `minires step`: "module": "minires", "args": ["step", "resnet20"] in place of "program".
PyCharm  Clear "Do not step into library scripts" in Settings | Build, Execution, Deployment | Debugger | Stepping.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from minires._checks import choice, flag, integer, iterable, number
from minires._repr import shown
from minires.arrays import Array, array_module, as_array, is_array
from minires.autograd import Function
from minires.context import Observer
from minires.inspect import rewrite
from minires.inspect.card import backward_card, forward_card

Condition = Callable[[Function, Sequence[Array]], Any]

SKIPPED = 'the debugger skips installed packages and does not stop in {file}: set "justMyCode": false in launch.json'


def not_finite(node: Function, arrays: Sequence[Array]) -> bool:
    """Condition: any of the arrays holds a NaN or an Inf."""
    for a in iterable(arrays, "arrays", "arrays"):
        if not is_array(a):
            raise TypeError(f"arrays must hold arrays, got {type(a).__name__}")
        if a.dtype.kind not in "biuf":
            raise TypeError(f"arrays must hold real numbers, got dtype {a.dtype}")
    return any(not bool(array_module(a).isfinite(a).all()) for a in arrays)


def norm_above(limit: float) -> Condition:
    """Condition: the Euclidean norm of any array is above the limit, or is NaN."""
    number(limit, "limit", 0)

    def condition(node: Function, arrays: Sequence[Array]) -> bool:
        return any(not float(np.linalg.norm(a.astype(np.float64).ravel())) <= limit for a in arrays)

    return condition


class breakpoint(Observer):
    """A context manager: the debugger stops in the frame of a node's forward or backward, and prints the node's card.

        with mr.inspect.breakpoint(at="layer3.0.conv2", when="backward"):
            loss.backward()

    at          a module's path (with all modules below it), a glob pattern of paths ("layer?.0.conv*"), or an
                operation's name ("BatchNorm"); None: any node
    when        "forward", "backward" or "both"
    condition   a function of the node and its arrays, such as `not_finite` or `norm_above(x)`; a true result stops the
                debugger.  None: every node at the place stops it
    stop        "entry": before the first line; the arrays are the inputs, in backward grad_output.  "return": before
                the result is returned; the arrays are the results, `y` in forward and `grads` in backward
    times       number of stops at most; None: no limit
    card        print the card

    The debugger is the one that Python's `breakpoint()` opens: pdb, VS Code's, PyCharm's or that of PYTHONBREAKPOINT.
    If VS Code's debugger skips the operation's file, a line on stderr names the setting to change.
    In a Jupyter notebook IPython's debugger opens below the cell, unless a visual debugger is attached.
    Warns at the end if no node was at the place.  RuntimeError for a node that another breakpoint or detect_anomaly
    already watches.  TypeError or ValueError names the argument.
    """

    def __init__(
        self,
        at: str | None = None,
        when: str = "forward",
        condition: Condition | None = None,
        stop: str = "entry",
        times: int | None = None,
        card: bool = True,
    ) -> None:
        if at is not None and not isinstance(at, str):
            raise TypeError(f"at must be a module path, a pattern or the name of an operation, got {shown(at)}")
        if condition is not None and not callable(condition):
            raise TypeError(f"condition must be a function of a node and its arrays, got {shown(condition)}")
        self.at = at
        self.when = choice(when, "when", ("forward", "backward", "both"))
        self.condition = condition
        self.stop = choice(stop, "stop", ("entry", "return"))
        self.left = float("inf") if times is None else integer(times, "times", 1)
        self.card = flag(card, "card")
        self.stops = 0
        self.reached = False
        self._installed: list[tuple[Function, str]] = []

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        if self.when != "backward" and self._is_at(node):
            self._arm(node, "forward", [a for a in arrays if a is not None], lambda: forward_card(node, arrays))

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self._disarm()

    def before_backward(self, node: Function, grad_output: Array) -> None:
        if self.when != "forward" and self._is_at(node):
            self._arm(node, "backward", [grad_output], lambda: backward_card(node, grad_output))

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        self._disarm()

    def __exit__(self, *exc_info: object) -> None:
        self._disarm()
        super().__exit__(*exc_info)
        if not self.reached and exc_info[0] is None:
            warnings.warn(f"no node was at {self.at!r} in {self.when}", stacklevel=2)

    def _is_at(self, node: Function) -> bool:
        at = self.at
        found = at is None or node.name == at or fnmatchcase(node.module, at) or node.module.startswith(f"{at}.")
        self.reached |= found
        return found and self.left > 0

    def _arm(self, node: Function, method: str, arrays: Sequence[Array], card: Callable[[], Any]) -> None:
        def now() -> None:
            self.left -= 1
            self.stops += 1
            if self.card:
                print(card(), flush=True)  # where pdb writes
            file = getattr(type(node), method).__code__.co_filename
            if _skipped_by_debugpy(file):
                print(f"minires: {SKIPPED.format(file=file)}", file=sys.stderr, flush=True)

        def on_return(result: Any) -> bool:
            results = [as_array(r) for r in (result if isinstance(result, tuple) else (result,)) if r is not None]
            stops = self.condition is None or bool(self.condition(node, results))
            if stops:
                now()
            return stops

        if self.stop == "entry":
            if self.condition is not None and not self.condition(node, arrays):
                return
            rewrite.install(node, method, rewrite.ENTRY)
            now()
        else:
            rewrite.install(node, method, rewrite.RETURN, on_return)
        self._installed.append((node, method))

    def _disarm(self) -> None:
        while self._installed:
            rewrite.uninstall(*self._installed.pop())


def _skipped_by_debugpy(file: str) -> bool:
    """Whether VS Code's debugger is attached and skips this file; by default it skips installed packages."""
    debugger: Any = getattr(sys.modules.get("pydevd"), "get_global_debugger", lambda: None)()
    if not hasattr(debugger, "get_use_libraries_filter"):  # no debugger, or another one
        return False
    return bool(debugger.get_use_libraries_filter() and not debugger.in_project_roots_filename_uncached(file))
