"""What machine a figure was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
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
