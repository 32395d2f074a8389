"""The process of a solution: `python -P -m minires.exercises.child FOLDER`.

Reads inputs from the folder, calls the solution, and writes what it returned.  The folder holds inputs only, no
expected results.  `process.py` starts this process, reads its files without unpickling, and judges.

The protocol guards against accidents, not against fraud.  The solution runs in this process with the user's rights, so
that its file can forge the records or replace the functions that write them.  Imports of the reference solutions fail
(see `hide`), and `--seed random` draws inputs that a file cannot contain.  Where grades matter, read the file as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import math
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minires import exercises
from minires.exercises.calls import called, own_lines, poisoned
from minires.exercises.layer import Layer

FILE_BYTES = 64 << 20  # largest file that the process may write
GRADING = "MINIRES_GRADING"  # environment variable that `--grade-tests` sets: its files import wrong versions


def main(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    with np.load(folder / "inputs.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    limit(task["memory"], task["seconds"])
    if not os.environ.get(GRADING):
        hide()
    (folder / "ready").touch()  # the solution's time begins
    loaded: dict[str, Any] = {}
    try:
        module = load(Path(task["file"]))
        function: Any = getattr(module, task["name"], None)
        loaded = description(module, function, task)
    except BaseException as error:
        loaded = {"error": own_lines(error, file=task["file"]), "kind": type(error).__name__}
    write(folder / "loaded.json", loaded)
    if loaded.get("callable"):
        for number, encoded in enumerate(task["cases"]):
            call = called(function, [decoded(one, arrays) for one in encoded], task["parameters"], task["outputs"])
            kept = {str(k): one for k, one in enumerate(call.outputs) if isinstance(one, np.ndarray)}
            np.savez(folder / f"{number}.npz", **kept)  # type: ignore[arg-type]
            complaints = {str(k): one for k, one in enumerate(call.outputs) if isinstance(one, str)}
            fields = {"raised": call.raised, "kind": call.kind, "changed": call.changed, "complaints": complaints}
            write(folder / f"{number}.json", fields)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # threads of the solution may still run


def limit(memory: int, seconds: float) -> None:
    """Limits memory in bytes, file sizes, and the processor time to `seconds` on every core.

    Each process that the solution starts inherits the limits.  Windows has no such limits.
    """
    processor = math.ceil(time.process_time() + seconds * (os.cpu_count() or 1)) + 1
    with contextlib.suppress(ImportError):
        import resource

        for kind, size in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CPU, processor),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (size, size))


def hide() -> None:
    """Makes imports of the solutions, the catalogue and the check's modules fail; `exercises.check` still works."""
    package = exercises.__name__
    for name in list(sys.modules):
        if name.startswith(f"{package}.") and name != Layer.__module__:
            sys.modules[name] = None  # type: ignore[assignment]
            vars(exercises).pop(name.removeprefix(f"{package}."), None)


def load(file: Path) -> ModuleType:
    """Runs the solution's file.  Files beside it can be imported; they hide no installed module."""
    sys.path.append(str(file.parent))
    sys.argv = [str(file)]
    spec = importlib.util.spec_from_file_location(f"solution_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with poisoned():
        spec.loader.exec_module(module)
    return module


def description(module: ModuleType, function: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Whether the file has the function, which functions it has, and the parameters if they do not fit."""
    found = {"callable": callable(function), "functions": [n for n, v in vars(module).items() if inspect.isfunction(v)]}
    if callable(function):
        try:
            signature = inspect.signature(function)
            signature.bind(*task["parameters"])
        except TypeError:
            found |= {"callable": False, "parameters": str(signature)}
        except ValueError:  # a builtin without a signature
            pass
    return found


def decoded(encoded: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """An argument from its JSON form; see `process.encoded`."""
    ((kind, value),) = encoded.items()
    if kind == "array":
        return arrays[value].copy(order="K")
    if kind == "seed":
        return np.random.default_rng(value)
    if kind == "layer":
        return Layer(value["kind"], tuple(arrays[key] for key in value["arrays"]), value["stride"], value["padding"])
    return tuple(value) if kind == "tuple" else value


def write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
