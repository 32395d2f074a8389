"""The machine on which a figure was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from pathlib import Path


def processor() -> str:
    """The processor's name and its widest vector instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    vectors = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "scalar")
    return f"{fields.get('model name', platform.machine())} ({vectors})"


class Others:
    """The load of other programs, from now on, on the processors that this process may use."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.monotonic(), _busy_seconds(), sum(os.times()[:4])

    def share(self) -> float | None:
        """Their share of the processors' time; None if unknown.

        The time of this process and of its children that have ended does not count.
        """
        busy = _busy_seconds()
        if busy is None or self.busy is None:
            return None
        others = busy - self.busy - (sum(os.times()[:4]) - self.own)
        return max(0.0, others) / (len(os.sched_getaffinity(0)) * (time.monotonic() - self.began))


def _busy_seconds() -> float | None:
    """Seconds in which these processors were not idle, or were taken by another virtual machine."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for name, *numbers in (line.split() for line in path.read_text().splitlines()):
        if name in mine:
            user, nice, system, _, _, irq, softirq, steal = map(int, numbers[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def describe(threads: int, *packages: str) -> dict[str, str | int]:
    """Machine, date and versions, for the line below a table."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "processors": os.cpu_count() or 1,
        "threads": threads,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
