"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minires.cli.common import say


@contextmanager
def counting(what: str, total: int, every: float = 5.0) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` items, such as "pictures"."""
    if sys.stderr.isatty():
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
        # stdout may be a file, for the results.
        with Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)
        return
    done, last = 0, time.monotonic()

    def count() -> None:
        nonlocal done, last
        done += 1
        if done < total and time.monotonic() - last >= every:
            last = time.monotonic()
            say(f"{done:,} of {total:,} {what}", error=True)

    yield count
