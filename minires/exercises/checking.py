"""Checks a solution: `check` for a function, `judged` for calls that were made in another process."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minires._checks import integer, suggest
from minires._repr import shown
from minires.exercises.calls import Call, called
from minires.exercises.compare import same
from minires.exercises.diagnose import Diagnosis, where_exactly
from minires.exercises.result import Result, between_calls, failed, passed, wrong
from minires.exercises.task import Array, Case, Exercise, Misconception, fresh
from minires.exercises.tasks import EXERCISES


class Workbook(NamedTuple):
    """The cases of an exercise for one seed, with their right outputs; `singles` as in `Diagnosis`."""

    exercise: Exercise
    cases: list[Case]
    expected: list[tuple[Array, ...]]
    singles: dict[tuple[int, str], tuple[Array, ...] | None]


@functools.lru_cache(64)
def workbook(name: str, seed: int) -> Workbook:
    exercise = get(name)
    cases = exercise.ordered_cases(seed)
    return Workbook(exercise, cases, [exercise.solved(case) for case in cases], {})


def names() -> tuple[str, ...]:
    """The exercises in Python, in a path from easy to hard."""
    return tuple(EXERCISES)


def get(name: str) -> Exercise:
    """The exercise of this name; raises ValueError for an unknown name."""
    if not isinstance(name, str) or name not in EXERCISES:
        raise ValueError(f"unknown exercise {shown(name)}; known are {', '.join(EXERCISES)}.{suggest(name, EXERCISES)}")
    return EXERCISES[name]


def check(name: str, function: Callable[..., Any], seed: int = 0) -> Result:
    """Checks a solution in this process, for notebooks and tests.

    name       an exercise; `names()` lists them
    function   the solution, with the exercise's signature
    seed       another seed draws other inputs

    An endless loop is not ended here; `minires exercise NAME FILE` checks a file in a process of its own, with limits.
    """
    exercise = get(name)
    if not callable(function):
        raise TypeError(f"function must be callable, got {shown(function)}")
    book = workbook(name, integer(seed, "seed", 0))
    complaint = misfit(function, exercise)
    if complaint:
        return failed(exercise, "not-loaded", [complaint])
    calls = [called(function, fresh(case.arguments), exercise.parameters, exercise.outputs) for case in book.cases]
    return judged(book, calls)


def misfit(function: Callable[..., Any], exercise: Exercise) -> str:
    """Why the function cannot be called with the exercise's arguments; "" if it can."""
    try:
        signature = inspect.signature(function)
        signature.bind(*exercise.parameters)
    except TypeError:
        return signature_complaint(exercise.name, str(signature), exercise.signature)
    except ValueError:  # a builtin without a signature
        return ""
    return ""


def signature_complaint(name: str, came: str, signature: str) -> str:
    return f"the function has the parameters {came}; it must be {name}({signature})"


def judged(book: Workbook, calls: Sequence[Call]) -> Result:
    """The verdict on the calls of a solution, one per case."""
    exercise, cases = book.exercise, book.cases
    returned = [i for i, call in enumerate(calls) if not call.raised]
    if not returned:
        return _raised(exercise, cases, calls)
    kept = [cases[i] for i in returned]
    expected = [book.expected[i] for i in returned]
    came = [_measured(exercise, cases[i], calls[i].outputs) for i in returned]
    right = [_right(exercise, *pair) for pair in zip(came, expected, strict=True)]
    changed = sorted({name for call in calls for name in call.changed})
    if all(map(all, right)):
        if len(returned) < len(calls):
            return _raised(exercise, cases, calls)
        if changed:
            listed = ", ".join(changed)
            lines = [
                f"the numbers are right, but the call changed its input {listed}",
                "Compute in a new array instead.",
            ]
            question = f"Which line writes into {changed[0]}, or into a view of it? +=, out= and slices write in place."
            return failed(exercise, "changed-input", lines, question, changed=changed)
        outputs = [call.outputs for call in calls]
        found = _in_float32(exercise, outputs) or (exercise.among(cases, outputs) if exercise.among else None)
        return passed(exercise, cases) if found is None else between_calls(exercise, cases, found)
    notes = [f"the call also changed its input {', '.join(changed)}"] if changed else []
    if len(returned) < len(calls):
        first = next(i for i, call in enumerate(calls) if call.raised)
        place = where_exactly(cases, [bool(call.raised) for call in calls])
        notes.append(
            f"it raised in {len(calls) - len(returned)} more geometries"
            f"{f', exactly where {place}' if place else ''}; first in {cases[first].geometry}:"
        )
        notes.append(f"  {calls[first].raised.splitlines()[-1][:120]}")
    wrong_outputs = [k for k in range(len(exercise.outputs)) if not all(flags[k] for flags in right)]
    wrong_outputs.sort(key=lambda k: next(i for i, flags in enumerate(right) if not flags[k]))  # the smallest first
    explained = Diagnosis(exercise, kept, expected, came, book.singles).explained(wrong_outputs)
    return wrong(exercise, kept, right, expected, came, explained, notes)


def _measured(exercise: Exercise, case: Case, outputs: Sequence[Any]) -> Sequence[Any]:
    if exercise.measure is None or any(isinstance(one, str) for one in outputs):
        return outputs
    with np.errstate(all="ignore"):
        return exercise.measured(case, tuple(outputs))


def _in_float32(exercise: Exercise, outputs: Sequence[Sequence[Any]]) -> Misconception | None:
    """The mistake of a solution whose results are float32 and right by chance."""
    for k, name in enumerate(exercise.outputs):
        if any(one[k].dtype == np.float32 for one in outputs):
            return Misconception(f"{name} is float32", "float32", f"{name} = float32 of the right {name}")
    return None


def _right(exercise: Exercise, came: Sequence[Any], expected: Sequence[Array]) -> list[bool]:
    return [same(a, b, exercise.tolerance) for a, b in zip(came, expected, strict=True)]


def _raised(exercise: Exercise, cases: Sequence[Case], calls: Sequence[Call]) -> Result:
    """The verdict on a solution that is right wherever it returns, but raises."""
    first = next(i for i, call in enumerate(calls) if call.raised)
    call, raising = calls[first], [bool(call.raised) for call in calls]
    lines = [
        f"smallest geometry that raises: {cases[first].geometry}  ({sum(raising)} of {len(calls)} geometries raise)"
    ]
    lines += call.raised.splitlines()
    if not all(raising):
        place = where_exactly(cases, raising)
        lines.append(f"It is right in the other geometries{f', and raises exactly where {place}' if place else ''}.")
    verdict, question = "raised", "Which shape has each array in the line above, in this geometry?"
    if call.kind in ("SystemExit", "KeyboardInterrupt", "GeneratorExit"):
        verdict, question = "exited", "Which line ends the program? A solution returns its result."
    elif call.kind == "EOFError":
        question = "A solution reads nothing from the keyboard. Where do its inputs come from?"
    elif call.kind in ("OSError", "FileNotFoundError", "PermissionError"):
        question = "A solution needs no files and prints little. Which line writes or reads one?"
    elif call.kind == "RecursionError":
        question = "Which call ends the recursion?"
    elif call.kind in ("IndexError", "KeyError"):
        question = "Which indices does this line use in this geometry, and how long is each axis?"
    elif call.kind.endswith("MemoryError"):  # NumPy has its own
        verdict, question = "memory", "Which array grows with the product of all sizes?"
    elif call.kind == "NotImplementedError":
        question = "The body is still to be written: what is the output for the smallest geometry?"
    elif call.kind in ("NameError", "AttributeError", "ImportError", "ModuleNotFoundError"):
        question = "Is the name spelt as where it is defined, and is it imported?"
    elif call.kind == "TypeError" and "required positional argument" in call.raised:
        question = "Which parameters of the signature have a default value?"
    elif call.kind == "TypeError" and any(word in lines[0] for word in ("(", "option")):
        question = "An argument may be an int or an (h, w) pair. Does this line work with both?"
    return failed(exercise, verdict, lines, question, geometry=cases[first].geometry, error=call.raised)
