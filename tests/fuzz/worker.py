"""One target under Atheris: `python -m tests.fuzz.worker TARGET FINDINGS libFuzzer's arguments`.

An exception is written down as a finding, once for each place that raises it, and the run goes on.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["minires.weights", "minires.data", "zipfile", "tarfile"]):
    from tests.fuzz.targets import TARGETS, run_one

name, findings, *arguments = sys.argv[1:]
target, folder, seen = TARGETS[name], Path(findings), set()


def test_one_input(content: bytes) -> None:
    try:
        run_one(target, content)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
        if kind not in seen:
            seen.add(kind)
            (folder / kind).write_bytes(content)
            (folder / f"{kind}.txt").write_text("".join(traceback.format_exception(error)))


atheris.Setup([sys.argv[0], *arguments], test_one_input)
atheris.Fuzz()
