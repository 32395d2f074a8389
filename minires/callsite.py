"""Where in the user's code an operation was called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Frames of these files lie between an operation and the code that called for it.
_HOME = Path(__file__).parent
_ENGINE = (
    *(str(_HOME / name) for name in ("autograd.py", "callsite.py", "operators.py", "functional.py", "_losses.py")),
    *(str(_HOME / name) + os.sep for name in ("ops", "nn", "models")),
)
_engine_files: dict[str, bool] = {}  # asked at every node: comparing prefixes each time would be slow


def callsite() -> tuple[str, int]:
    """File and line of the first frame, from here outward, that is not the engine's."""
    frame = sys._getframe(1)
    while True:
        code = frame.f_code
        engine = _engine_files.get(code.co_filename)
        if engine is None:
            engine = _engine_files[code.co_filename] = code.co_filename.startswith(_ENGINE)
        if not engine or frame.f_back is None:
            return code.co_filename, frame.f_lineno
        frame = frame.f_back
