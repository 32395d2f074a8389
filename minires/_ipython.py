"""Hooks for IPython and its Jupyter kernel: breakpoints stop, and a failed cell leaves no weights read-only."""

from __future__ import annotations

import sys
import traceback
from types import FrameType
from typing import Any

from minires.autograd import Function
from minires.tensor import Tensor


def connect() -> None:
    """Registers both helpers with the running IPython shell; no effect elsewhere."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.events.register("pre_run_cell", lambda info: release_failed_cell(shell, info.raw_cell))
        enable_breakpoint(shell)


def release_failed_cell(shell: Any, next_cell: str) -> None:
    """Clears the frames of the last traceback if they hold tensors or operations, when the next cell starts.

    IPython keeps the traceback, its frames keep the tape of the failed or interrupted cell, and the tape keeps the
    weights read-only: `optimizer.step()` would fail from then on.  A magic such as `%debug` still finds all variables.
    """
    if next_cell.lstrip().startswith("%"):
        return
    result = shell.last_execution_result
    for error in (
        getattr(sys, "last_value", None),
        result and result.error_in_exec,
    ):  # the second: `q` of the debugger
        while error is not None:
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            if any(_holds_tape(frame) for frame in frames):
                traceback.clear_frames(error.__traceback__)
                _ = [frame.f_locals for frame in frames]  # up to Python 3.12 a copy; the access updates it
            error = error.__cause__ or error.__context__


def _holds_tape(frame: FrameType) -> bool:
    session = frame.f_locals is frame.f_globals  # the frame of a cell: its variables are the notebook's
    return not session and any(isinstance(value, (Tensor, Function)) for value in frame.f_locals.values())


def enable_breakpoint(shell: Any) -> None:
    """Makes Python's `breakpoint()` stop in the cells of a kernel, the running one included.

    A kernel passes the call to debugpy, which ignores it while no visual debugger (JupyterLab's, VS Code's) is
    attached.  If one is attached when the cell starts, it stops.  Otherwise Python's own hook runs, which opens
    IPython's debugger below the cell and follows PYTHONBREAKPOINT.
    """
    visual = sys.breakpointhook
    if not str(getattr(visual, "__module__", "")).startswith("debugpy."):
        return
    debugpy = sys.modules["debugpy"]

    def choose(*_: object) -> None:
        if sys.breakpointhook in (visual, sys.__breakpointhook__):  # else the user has set another hook
            sys.breakpointhook = visual if debugpy.is_client_connected() else sys.__breakpointhook__

    choose()
    shell.events.register("pre_run_cell", choose)
