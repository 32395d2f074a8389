"""How far a command is, on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minires.cli.words import say


@contextmanager
def counting(what: str, total: int, every: float = 5.0) -> Iterator[Callable[[], None]]:
    """A function to be called after each of `total` things, such as "pictures"."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
        # stdout is left alone: it may be a file, where the results belong.
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
