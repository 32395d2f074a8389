"""A backend of your own: an object, a class, or the "module:object" that names one.  Options in a backend's name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from minires.backends.contract import check, has_any

__all__ = ["check_options", "has_any", "imported", "made", "options_of"]


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


def options_of(name: str, text: str, create: Callable[..., Any] | None) -> dict[str, Any]:
    """The options of "NAME:option=value,option=value", each of the type that `create` has for it."""
    known = inspect.signature(create).parameters if create else {}
    options: dict[str, Any] = {}
    for word in text.split(","):
        option, equals, value = (part.strip() for part in word.partition("="))
        if not (equals and value) or option in options:
            has = f"options are NAME=VALUE[,NAME=VALUE], once each, of {', '.join(known) or 'none'}"
            raise ValueError(f"backend {name!r}: {has}; got {text!r}")
        kind = str(known[option].annotation) if option in known else "str"
        if "int" in kind and not value.isdecimal():
            raise ValueError(f"backend {name!r}: {option} must be an integer of at least 0, got {value!r}")
        if "bool" in kind and value not in ("0", "1"):
            raise ValueError(f"backend {name!r}: {option} must be 0 or 1, got {value!r}")
        options[option] = int(value) if "int" in kind else value == "1" if "bool" in kind else value
    return options


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
