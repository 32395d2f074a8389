"""A backend of your own: an object, a class, or the "module:object" that names one."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from minires.backends.contract import check, has_any

__all__ = ["check_options", "has_any", "imported", "made"]


def imported(path: str, argument: str) -> Any:
    """The object of "module:object"; the current folder is searched after the installed modules.

    Raises ValueError where no such object exists; an error in the module itself passes through.
    """
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise ValueError(f"{argument} must be written module:object, such as mine:Mine; got {path!r}")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, one that it imports is not
        raise ValueError(f"{argument} {path!r}: no module {error.name!r} in {os.getcwd()} or installed") from None
    file = getattr(found, "__file__", None) or "built in"
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{argument} {path!r}: the module ({file}) has no attribute {attribute!r}")
        found = getattr(found, name)
    if not has_any(found):
        raise ValueError(f"{argument} {path!r} is no backend: it has no function of minires.backends.contract")
    return found


def made(backend: Any, options: Mapping[str, Any]) -> Any:
    """The backend, checked; of a class an object, made with the options."""
    create = backend if isinstance(backend, type) else None
    check_options(getattr(backend, "__name__", type(backend).__name__), create, options)
    backend = create(**options) if create else backend
    check(backend)
    return backend


def check_options(who: str, create: Callable[..., Any] | None, options: Mapping[str, Any]) -> None:
    """Raises TypeError for an option that is no argument of `create`."""
    known = tuple(inspect.signature(create).parameters) if create else ()
    for option in options:
        if option not in known:
            raise TypeError(f"backend {who} has no option {option!r}; it has {', '.join(known) or 'none'}")
