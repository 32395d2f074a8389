"""Finding a compiled module: the installed one, or another build of it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

from minires.backends.unavailable import BackendUnavailable


@cache
def load(name: str, variable: str, otherwise: str) -> ModuleType:
    """The compiled module minires.NAME, or the one in the folder that the environment variable names (another build).

    Raises BackendUnavailable(otherwise) where it is not part of the installation.
    """
    other = os.environ.get(variable)
    if not other:
        try:
            return importlib.import_module(f"minires.{name}")
        except ModuleNotFoundError:
            raise BackendUnavailable(otherwise) from None
        except ImportError as error:  # it is there, and does not fit this Python, NumPy or system
            raise BackendUnavailable(f"minires.{name} cannot be loaded: {error}") from None
    files = sorted(Path(other).glob(f"{name}*.so"))
    if not files:
        raise BackendUnavailable(f"{variable} names {other}, which holds no {name}*.so")
    spec = importlib.util.spec_from_file_location(name, files[0])
    assert spec is not None
    assert spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{files[0]} cannot be loaded: {error}") from None
    return module
