"""Grades a grader: how many of the catalogued wrong versions of an exercise pass a test."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires.exercises.checking import get
from minires.exercises.child import GRADING
from minires.exercises.process import end


@dataclass(frozen=True)
class Grade:
    """What a grader did with the versions of one exercise.

    usable    whether it accepts the right version; otherwise nothing else was tried
    caught    names of the wrong versions that it rejects
    slipped   names of the wrong versions that it accepts
    """

    exercise: str
    usable: bool
    caught: tuple[str, ...] = ()
    slipped: tuple[str, ...] = ()


def version(name: str, misconception: str = "") -> Callable[..., Any]:
    """The solution with a misconception of the catalogue; the right solution without."""
    exercise = get(name)
    signature = inspect.signature(exercise.solution)
    known = [one.name for one in exercise.misconceptions]
    if misconception and misconception not in known:
        raise ValueError(f"misconception must be one of {', '.join(known)}, got {misconception!r}")

    def wrong(*arguments: Any, **options: Any) -> Any:
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        if not misconception:
            return exercise.solution(*bound.args)
        with np.errstate(all="ignore"):
            outputs = exercise.variant(frozenset({misconception}), *bound.args)
        return outputs[0] if len(outputs) == 1 else outputs

    wrong.__name__, wrong.__signature__ = name, signature  # type: ignore[attr-defined]
    return wrong


def version_text(name: str, misconception: str = "") -> str:
    """A solution's file with this version."""
    head = f'"""{name}: {misconception or "right"}"""\n\nfrom minires.exercises.grading import version\n\n'
    return f"{head}{name} = version({name!r}, {misconception!r})\n"


def grade_tests(name: str, command: str, seconds: float = 60) -> Iterator[tuple[str, bool]]:
    """(misconception, whether the command accepted it) for each version of an exercise; "" is the right version.

    command   run without a shell; {} becomes the path of the solution's file, whose folder is also first in PYTHONPATH
    seconds   time of one run; a run that takes longer counts as a rejection, and its process group is ended

    Ends after the right version if the command rejects it.
    """
    exercise = get(name)
    with tempfile.TemporaryDirectory(prefix="minires-grade-") as folder:
        file = Path(folder) / f"{name}.py"
        words = [word.replace("{}", str(file)) for word in shlex.split(command)]
        paths = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", GRADING: "1"}
        for misconception in ("", *(one.name for one in exercise.misconceptions)):
            file.write_text(version_text(name, misconception), encoding="utf-8")
            accepted = _accepts(words, environment, seconds)
            yield misconception, accepted
            if not misconception and not accepted:
                return


def _accepts(words: list[str], environment: dict[str, str], seconds: float) -> bool:
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        end(process)


def grade(name: str, command: str, seconds: float = 60) -> Grade:
    """Runs the command on every version of an exercise; see `grade_tests`."""
    return graded(name, grade_tests(name, command, seconds))


def graded(name: str, answers: Iterator[tuple[str, bool]]) -> Grade:
    found = dict(answers)
    wrong = {misconception: accepted for misconception, accepted in found.items() if misconception}
    caught = tuple(one for one, accepted in wrong.items() if not accepted)
    return Grade(name, found[""], caught, tuple(one for one, accepted in wrong.items() if accepted))
