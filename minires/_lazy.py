"""Public names of a module: `dir()` lists only them, and some load on first use (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def directory(module: dict[str, Any]) -> Callable[[], list[str]]:
    """The `__dir__` of a module with these globals: the names in `__all__`, and Python's own such as `__file__`."""
    return lambda: [*module["__all__"], *(name for name in module if name.startswith("__") and name.endswith("__"))]


def loader(module: dict[str, Any], places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package with these globals; Python calls it for names that the package lacks.

    places   name -> the module that defines it; a submodule's name -> ""
    """

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        if not places[name]:
            return importlib.import_module(f"{module['__name__']}.{name}")
        module[name] = getattr(importlib.import_module(places[name]), name)
        return module[name]

    return load
