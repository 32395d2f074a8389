"""Where in the user's code an operation was called."""

from __future__ import annotations

import sys
from itertools import count, takewhile
from operator import attrgetter
from pathlib import Path

# Frames of these files lie between an operation and the code that called for it.
_HOME = Path(__file__).parent
_MODULES = (_HOME / f"{name}.py" for name in ("autograd", "callsite", "operators", "functional", "_losses"))
_ROOMS = (file for room in ("ops", "nn", "models") for file in (_HOME / room).glob("*.py"))
_ENGINE = frozenset(map(str, (*_MODULES, *_ROOMS)))
_file = attrgetter("f_code.co_filename")


def callsite() -> tuple[str, int]:
    """File and line of the first frame, from here outward, that is not the engine's.

    The frames are counted without a line of Python for each of them: a debugger that steps stops at every line.
    """
    files = map(_file, map(sys._getframe, count()))
    try:
        frame = sys._getframe(len([*takewhile(_ENGINE.__contains__, files)]))
    except ValueError:  # a thread that began inside the engine: its outermost frame
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
