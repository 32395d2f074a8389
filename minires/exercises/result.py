"""The result of a check, and the message that a student reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from minires._repr import wrapped
from minires.exercises.compare import first_difference
from minires.exercises.diagnose import Explanation, where_exactly
from minires.exercises.task import AGAIN, Array, Case, Exercise, Misconception

WIDTH, INDENT = 100, 15  # columns of a message; of its labels

NOT_NAMED = (
    "none: no misconception of the catalogue gives these numbers, nor do two of them",
    (
        "Work this geometry out by hand, one element at a time. Which element is the first that your code computes "
        "otherwise?"
    ),
)


@dataclass(frozen=True)
class Result:
    """The verdict on a solution.  `bool(result)` is `result.passed`.

    verdict         passed, wrong, raised, changed-input, no-answer, exited, crashed, memory, not-loaded
    misconception   name; "A + B" for two at once, "A or B" for two that cannot be distinguished; None if not recognised
    message         the text that a student reads
    details         more fields for graders: geometry, output, formula, question, candidates, ...
    """

    exercise: str
    passed: bool
    verdict: str
    misconception: str | None
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return self.message

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colour = "#2a7f3f" if self.passed else "#b3261e"
        style = f"border-left:4px solid {colour};padding-left:10px;white-space:pre-wrap"
        return f'<pre style="{style}">{escape(self.message)}</pre>'

    def as_json(self) -> dict[str, Any]:
        """The fields of `minires exercise --json`."""
        fields = {"exercise": self.exercise, "passed": self.passed, "verdict": self.verdict}
        return fields | {"misconception": self.misconception, "message": self.message, **self.details}


def verdict(
    name: str, kind: str, lines: Sequence[str], question: str = "", misconception: str | None = None, **details: Any
) -> Result:
    """A result whose message is the lines: the verdict is of this kind, with a question that leads on."""
    text = [f"{name}: {kind.replace('-', ' ')}", "", *lines]
    if question:
        text += ["", *labelled("question", question)]
        details["question"] = question
    return Result(name, kind == "passed", kind, misconception, "\n".join(text), details)


def failed(exercise: Exercise, kind: str, lines: Sequence[str], question: str = "", **details: Any) -> Result:
    """A verdict without numbers: the solution raised, ended, or could not be loaded."""
    return verdict(exercise.name, kind, lines, question, **details)


def passed(exercise: Exercise, cases: Sequence[Case]) -> Result:
    drawn = [case for case in cases if AGAIN not in case.features]
    tried = f"{len(drawn)} geometries, from {drawn[0].geometry} to {drawn[-1].geometry}, two of them twice;"
    lines = [
        *labelled("tried", f"{tried} every element of {', '.join(exercise.outputs)}, in float64"),
        *labelled("why it works", exercise.why),
        f"step through   {exercise.place}",
    ]
    return verdict(exercise.name, "passed", lines, geometries=len(cases))


def wrong(
    exercise: Exercise,
    cases: Sequence[Case],
    right: Sequence[Sequence[bool]],
    expected: Sequence[Sequence[Array]],
    came: Sequence[Sequence[Any]],
    explained: Mapping[int, Sequence[Explanation]],
    notes: Sequence[str] = (),
) -> Result:
    """The verdict on wrong numbers.

    cases       geometries in which the solution returned, the smallest first
    right       for each of them, whether each output is right
    notes       lines about geometries in which it raised, and about changed inputs
    """
    first = next(i for i, flags in enumerate(right) if not all(flags))
    failing = sum(not all(flags) for flags in right)
    outputs = range(len(exercise.outputs))
    wrong_here = [k for k in outputs if not right[first][k]]
    count = f"{failing} of {len(cases)} geometries fail"
    text = [f"{exercise.name}: wrong", "", f"smallest failing geometry: {cases[first].geometry}  ({count})"]
    for k in wrong_here:
        pair = (came[first][k], expected[first][k])
        text.append(first_difference(exercise.outputs[k], *pair, exercise.tolerance, exercise.statistics))
        if isinstance(came[first][k], str) and len(set(map(str, came[first]))) == 1:
            break  # one complaint about all outputs
    always = [exercise.outputs[k] for k in outputs if all(flags[k] for flags in right)]
    if always:
        text.append(f"{', '.join(always)}: right in every geometry")
    for k in (k for k in outputs if k not in wrong_here and exercise.outputs[k] not in always):
        text.append(f"{exercise.outputs[k]}: wrong too, in larger geometries")
    for k in outputs:
        place = where_exactly(cases, [not flags[k] for flags in right])
        if place:
            text.append(f"{exercise.outputs[k]} is wrong exactly where {place}")
    text += notes
    output = wrong_here[0]
    asked = _question(exercise, exercise.outputs[output], came[first][output], expected[first][output])
    if all(AGAIN in case.features for case, flags in zip(cases, right, strict=True) if not all(flags)):
        asked = "Which array does your code keep from one call to the next?"
    lines, names, parts = _named(exercise, explained, asked, came[first])
    text += ["", *lines]
    details = {
        "geometry": cases[first].geometry,
        "geometries": len(cases),
        "failing": failing,
        "output": exercise.outputs[wrong_here[0]],
        "came": _listed(came[first][wrong_here[0]]),
        "expected": _listed(expected[first][wrong_here[0]]),
        "misconceptions": parts,
        "question": parts[0]["question"] if parts else asked,
    }
    return Result(exercise.name, False, "wrong", names, "\n".join(text), details)


def _named(
    exercise: Exercise, explained: Mapping[int, Sequence[Explanation]], asked: str, came: Sequence[Any]
) -> tuple[list[str], str | None, list[dict[str, Any]]]:
    """Lines of the message, the name, and the parts for graders.  A part of several outputs is shown once.

    asked   the question if nothing is named
    came    the outputs in the smallest failing geometry: a complaint needs no name
    """
    shown: dict[str, tuple[Misconception, list[str]]] = {}  # name -> part, its outputs
    open_choices: list[str] = []
    names: list[str] = []
    unnamed = [
        exercise.outputs[output]
        for output, candidates in explained.items()
        if not candidates and not isinstance(came[output], str)
    ]
    for output, candidates in explained.items():
        for candidate in candidates:
            for part in candidate.parts:
                outputs = shown.setdefault(part.name, (part, []))[1]
                if exercise.outputs[output] not in outputs:
                    outputs.append(exercise.outputs[output])
        if len(candidates) == 1:
            names += [part.name for part in candidates[0].parts]
        elif candidates:
            open_choices.append(exercise.outputs[output])
            names.append(" or ".join(one.name for one in candidates))
    lines: list[str] = []
    if open_choices:
        lines += labelled("misconception", f"one of two, which give the same numbers here ({', '.join(open_choices)}):")
    for part, outputs in shown.values():
        lines += _lines(part, ", ".join(outputs))
    if unnamed:
        lines += labelled("misconception", f"{NOT_NAMED[0]} ({', '.join(unnamed)})")
    parts = [_fields(part, outputs) for part, outputs in shown.values()]
    question = str(parts[0]["question"]) if parts else asked
    lines += ["", *labelled("question", question)] if lines else labelled("question", question)
    return lines, " + ".join(dict.fromkeys(names)) or None, parts


def _question(exercise: Exercise, name: str, came: Any, expected: Array) -> str:
    """The question about an output whose mistake has no name."""
    if isinstance(came, str):
        if "None" in came:
            return "Does every path of your function return its result?"
        if "must return" in came:
            return "How many values does the docstring list after `returns`, and in which order?"
        return f"Which type and which shape does the docstring give {name}?"
    if came.shape != expected.shape:
        return f"Which shape does the docstring give {name}, and which line of your code decides its shape?"
    if exercise.statistics:
        return "Which line of your code sets this statistic?"
    return NOT_NAMED[1]


def between_calls(exercise: Exercise, cases: Sequence[Case], part: Misconception) -> Result:
    """The verdict on a mistake that no single call shows."""
    lines = [f"each of the {len(cases)} calls alone looks right", "", *_lines(part, ", ".join(exercise.outputs))]
    details = {"geometries": len(cases), "misconceptions": [_fields(part, list(exercise.outputs))]}
    return verdict(exercise.name, "wrong", lines, part.question, part.name, **details)


def _fields(part: Misconception, outputs: list[str]) -> dict[str, Any]:
    """A misconception for graders."""
    return {
        "name": part.name,
        "outputs": outputs,
        "family": part.family,
        "sentence": part.sentence,
        "formula": part.formula,
        "question": part.question,
    }


def _lines(part: Misconception, where: str) -> list[str]:
    return [
        *labelled("misconception", f"{part.name} ({where})"),
        *labelled("", part.sentence),
        *labelled("", f"your code amounts to: {part.formula}"),
    ]


def labelled(label: str, text: str) -> list[str]:
    """Lines of a message: a label, then text that is wrapped beside it."""
    return (
        wrapped(f"{label:{INDENT - 2}}  {text}", WIDTH, INDENT)
        if label
        else [" " * INDENT + line for line in wrapped(text, WIDTH - INDENT)]
    )


def _listed(value: Any) -> Any:
    return value if isinstance(value, str) else value.tolist() if value.size <= 64 else f"array of shape {value.shape}"
