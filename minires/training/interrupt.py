"""Ctrl-C as a request: the iteration in progress is finished first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Within it SIGINT and SIGTERM only set `requested`; a second one takes effect at once.

    more   further signals that ask to stop

    Outside of the main thread, where Python delivers no signals, it does nothing; a signal that this process ignores
    stays ignored.
    """

    requested = False

    def __init__(self, *more: signal.Signals) -> None:
        self.signals = (signal.SIGINT, signal.SIGTERM, *more)

    def __enter__(self) -> StopRequest:
        self._outer: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._outer[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._outer.items():
            signal.signal(number, handler)
        self._outer = {}
