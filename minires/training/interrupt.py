"""Ctrl-C as a request: the current iteration ends before the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """A context manager in which SIGINT and SIGTERM only set `requested`; a second signal takes effect at once.

    more   further signals that request a stop

    Outside the main thread it has no effect, because Python handles signals there.  An ignored signal stays ignored.
    """

    requested = False

    def __init__(self, *more: signal.Signals) -> None:
        self.signals = (signal.SIGINT, signal.SIGTERM, *more)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
