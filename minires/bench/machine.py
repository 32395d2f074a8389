"""What machine a figure was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from pathlib import Path


def processor() -> str:
    """The processor's name and what of its vector units matters here."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in lines.items()}
    flags = told.get("flags", told.get("Features", "")).split()
    vectors = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "scalar")
    return f"{told.get('model name', platform.machine())} ({vectors})"


class Others:
    """How much others take, from now on, of the processors that this process may use: it disturbs what is measured."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.monotonic(), _busy_seconds(), sum(os.times()[:4])

    def share(self) -> float | None:
        """Of all their time, none of it this process's or that of its children which have ended; None: unknown."""
        busy = _busy_seconds()
        if busy is None or self.busy is None:
            return None
        others = busy - self.busy - (sum(os.times()[:4]) - self.own)
        return max(0.0, others) / (len(os.sched_getaffinity(0)) * (time.monotonic() - self.began))


def _busy_seconds() -> float | None:
    """Seconds that these processors were not idle, or were taken away from this virtual machine."""
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
    """Machine, date and versions, for the head of a table."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "processors": os.cpu_count() or 1,
        "threads": threads,
        "python": platform.python_version(),
        **versions,
    }
