"""Checks a file in a process of its own, with limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minires._checks import suggest
from minires.exercises.calls import LARGEST, Call
from minires.exercises.checking import Workbook, judged, signature_complaint, workbook
from minires.exercises.layer import Layer
from minires.exercises.result import Result, failed
from minires.exercises.task import Case, Exercise, Seed

SECONDS = 20  # for all geometries together
STARTING = 60  # seconds that the process may take before it loads the file
MEMORY = 4  # GiB
PRINTED = 2000  # characters of the solution's prints that are shown
LARGEST_JSON = 1 << 20  # bytes


def check_file(name: str, file: Path, seed: int = 0, seconds: float = SECONDS, memory: float = MEMORY) -> Result:
    """Checks a solution's file.

    seconds   time for all geometries together
    memory    address space of its process in GiB

    An endless loop, a crash, an exit and too much memory are verdicts.  `details["printed"]` holds the beginning of
    what the file printed.
    """
    book = workbook(name, seed)
    with tempfile.TemporaryDirectory(prefix="minires-exercise-") as place:
        folder = Path(place)
        write_task(folder, book.exercise, book.cases, file.resolve(), int(memory * 2**30), seconds)
        code = run(folder, seconds)
        result = judgement(book, folder, code, seconds, memory)
        printed = text_of(folder / "printed.txt", PRINTED)
    return Result(**vars(result) | {"details": {**result.details, "printed": printed}})


def write_task(
    folder: Path, exercise: Exercise, cases: Sequence[Case], file: Path, memory: int, seconds: float
) -> None:
    arrays: dict[str, Any] = {}
    task = {
        "name": exercise.name,
        "parameters": exercise.parameters,
        "outputs": exercise.outputs,
        "file": str(file),
        "memory": memory,
        "seconds": seconds,
        "cases": [[encoded(one, arrays) for one in case.arguments] for case in cases],
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    np.savez(folder / "inputs.npz", **arrays)


def encoded(argument: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """An argument as JSON; its arrays go into `arrays`."""

    def key(array: Any) -> str:
        arrays[name := f"a{len(arrays)}"] = array
        return name

    if isinstance(argument, np.ndarray):
        return {"array": key(argument)}
    if isinstance(argument, Seed):
        return {"seed": argument.seed}
    if isinstance(argument, Layer):
        fields = {"kind": argument.kind, "stride": argument.stride, "padding": argument.padding}
        return {"layer": fields | {"arrays": list(map(key, argument.arrays))}}
    return {"tuple": argument} if isinstance(argument, tuple) else {"value": argument}


def run(folder: Path, seconds: float) -> int | None:
    """The exit code of the solution's process; None if it was ended because its time was over."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-P", "-m", "minires.exercises.child", str(folder)]
    with (folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | threads | {"PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        try:
            begun = time.monotonic()
            while not (folder / "ready").exists() and process.poll() is None and time.monotonic() < begun + STARTING:
                time.sleep(0.01)
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that leads a process group, and the rest of the group.

    A process that left the group (`setsid`) survives; in a check, `RLIMIT_CPU` bounds the processor time that it uses.
    """
    with contextlib.suppress(OSError, AttributeError):  # Windows has no process groups
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()


def judgement(book: Workbook, folder: Path, code: int | None, seconds: float, memory: float) -> Result:
    exercise, cases = book.exercise, book.cases
    loaded = fields_of(folder / "loaded.json")
    if loaded is None:
        return ended(exercise, code, seconds, memory, "while the file was loaded", "")
    if "error" in loaded:
        lines = ["the file cannot be loaded", *str(loaded["error"]).splitlines()]
        verdict = "exited" if loaded.get("kind") == "SystemExit" else "not-loaded"
        return failed(exercise, verdict, lines, "Does `python FILE` run without an error?")
    if not loaded.get("callable"):
        return failed(exercise, "not-loaded", [misfit(exercise, loaded)])
    calls: list[Call] = []
    for number, case in enumerate(cases):
        call = call_of(folder, number, exercise)
        if call is None:
            place = f"in geometry {number + 1} of {len(cases)}, {case.geometry}"
            return ended(exercise, code, seconds, memory, place, case.geometry)
        calls.append(call)
    return judged(book, calls)


def misfit(exercise: Exercise, loaded: dict[str, Any]) -> str:
    if "parameters" in loaded:
        return signature_complaint(exercise.name, str(loaded["parameters"]), exercise.signature)
    functions = [str(name) for name in loaded.get("functions", ())]
    listed = f"it has {', '.join(functions)}" if functions else "it has no function"
    return f"the file has no function {exercise.name}; {listed}.{suggest(exercise.name, functions)}"


def ended(exercise: Exercise, code: int | None, seconds: float, memory: float, place: str, geometry: str) -> Result:
    """The verdict on a process that ended before it had answered."""
    details = {"geometry": geometry} if geometry else {}
    if code is None:
        lines = [f"no answer after {seconds:g} s, {place}"]
        return failed(exercise, "no-answer", lines, "Which loop ends, and which condition ends it?", **details)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        lines = [f"the process crashed ({name}), {place}", f"its memory was limited to {memory:g} GiB"]
        return failed(exercise, "crashed", lines, "Which library does this line call, and with which sizes?", **details)
    lines = [f"the process ended with exit code {code}, {place}"]
    return failed(exercise, "exited", lines, "Which line ends the program? A solution returns its result.", **details)


# -- files of the solution's process, which may contain anything


def call_of(folder: Path, number: int, exercise: Exercise) -> Call | None:
    """What one call did; None if it has no valid record."""
    fields = fields_of(folder / f"{number}.json")
    if fields is None:
        return None
    try:
        if fields["raised"]:
            return Call(raised=str(fields["raised"]), kind=str(fields["kind"]))
        arrays = arrays_of(folder / f"{number}.npz")
        complaints, keys = fields["complaints"], map(str, range(len(exercise.outputs)))
        outputs = [str(complaints[key]) if key in complaints else arrays[key] for key in keys]
        if not all(isinstance(one, str) or one.dtype in (np.float64, np.float32) for one in outputs):
            return None
        return Call(outputs, changed=[str(name) for name in fields["changed"]])
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None


def fields_of(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(text_of(path, LARGEST_JSON))
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def text_of(path: Path, most: int) -> str:
    """The beginning of a file; "" if it is no plain file."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(most).decode("utf-8", "replace")


def arrays_of(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise ValueError("no plain file")
    with zipfile.ZipFile(path) as file:
        if sum(member.file_size for member in file.infolist()) > 8 * LARGEST + 65536:
            raise ValueError("too large")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)
