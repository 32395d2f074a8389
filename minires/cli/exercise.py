"""Solve exercises: write an operation and learn which mistake is in it.

Without a name, lists the exercises from easy to hard.  With a name, shows the exercise.  With a file, checks the file
in a process of its own, and names the misconception if the numbers reveal it.
"""

from __future__ import annotations

import argparse
import math
import secrets
from pathlib import Path

from minires import exercises
from minires._repr import wrapped
from minires.cli.common import UsageError, folder_for_output, print_json, say, write
from minires.cli.parser import Parser, Whole, add
from minires.cli.tables import print_table
from minires.exercises import grading, kernels, process
from minires.exercises.kernels import KERNELS, KernelExercise, check_kernel
from minires.exercises.task import Exercise

EXAMPLES = ("exercise conv2d_backward --start", "exercise conv2d_backward conv2d_backward.py --hint")


def seconds(text: str) -> float:
    return _positive(text)


def gibibytes(text: str) -> float:
    return _positive(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a positive number below 1000000, got {text[:40]!r}")
    return value


def seed(text: str) -> int:
    return secrets.randbelow(2**31) if text == "random" else Whole(0)(text)


def exercise(name: str) -> str:
    try:
        return name if name in KERNELS else exercises.checking.get(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def flags(parser: Parser) -> None:
    parser.add_argument(
        "name", nargs="?", type=exercise, metavar="NAME", help="name of an exercise (default: the list)"
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="file with the solution, to check it")
    parser.add_argument(
        "--start", nargs="?", const=".", metavar="DIR", help="folder for the file to begin with (default: here)"
    )
    parser.add_argument("--hint", action="store_true", help="hint, and the right formula if a file is wrong")
    parser.add_argument("--solution", action="store_true", help="reference solution")
    parser.add_argument(
        "--grade-tests",
        metavar="COMMAND",
        help="command that tests a solution; {} in it becomes the file (default: no grading)",
    )
    limits = (
        f"time of a check or of one run of COMMAND, in seconds (default: {process.SECONDS}; CUDA: {kernels.SECONDS})"
    )
    parser.add_argument("--seconds", type=seconds, metavar="S", help=limits)
    parser.add_argument(
        "--memory",
        type=gibibytes,
        default=process.MEMORY,
        metavar="GIB",
        help=f"memory of the solution's process in GiB (default: {process.MEMORY})",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the inputs, or random (default: 0)")
    add(parser, "--force --json")


def run(arguments: argparse.Namespace) -> int:
    if arguments.grade_tests is not None:
        return grade(arguments)
    if arguments.name is None:
        for flag in ("start", "hint", "solution"):
            if getattr(arguments, flag):
                raise UsageError(f"--{flag} needs the name of an exercise; `minires exercise` lists them")
        return listed(arguments.json)
    chosen: Exercise | KernelExercise = KERNELS.get(arguments.name) or exercises.checking.get(arguments.name)
    if arguments.start is not None:
        return start(chosen, arguments)
    if arguments.file is not None:
        return check(chosen, arguments)
    return show(chosen, arguments)


def listed(as_json: bool) -> int:
    found: list[Exercise | KernelExercise] = [*map(exercises.checking.get, exercises.names()), *KERNELS.values()]
    if as_json:
        print_json([{"name": one.name, "teaches": one.teaches, "section": one.section} for one in found])
        return 0
    rows = [(one.name, one.teaches, one.section) for one in found]
    print_table(
        ("exercise", "teaches", "section of the paper"), rows, "from easy to hard", drop=("section of the paper",)
    )
    return 0


def start(chosen: Exercise | KernelExercise, arguments: argparse.Namespace) -> int:
    suffix = "cu" if isinstance(chosen, KernelExercise) else "py"
    path = folder_for_output(Path(arguments.start), "--start") / f"{chosen.name}.{suffix}"
    if path.exists() and not arguments.force:
        raise UsageError(f"--start: {path} exists already; --force replaces it")
    write(path, chosen.start().encode())
    if arguments.json:
        print_json({"files": [str(path)]})
        return 0
    say(path, indent=None)
    say(f"write the body, then: minires exercise {chosen.name} {path}", indent=None)
    return 0


def show(chosen: Exercise | KernelExercise, arguments: argparse.Namespace) -> int:
    """The exercise itself, or the parts that flags ask for."""
    parts = {"start": chosen.start()} if not (arguments.hint or arguments.solution) else {}
    if arguments.hint:
        parts["hint"] = chosen.hint
    if arguments.solution:
        parts |= {"solution": solution_of(chosen), "why": chosen.why, "place": chosen.place}
    if arguments.json:
        print_json({"name": chosen.name, "teaches": chosen.teaches, "section": chosen.section, **parts})
        return 0
    if arguments.hint:
        say(chosen.hint)
    for line in parts.get("start", "").splitlines():
        say(line, indent=None)
    if arguments.solution:
        say_solution(chosen)
    return 0


def solution_of(chosen: Exercise | KernelExercise) -> str:
    return chosen.solution if isinstance(chosen, KernelExercise) else chosen.solution_text()


def say_solution(chosen: Exercise | KernelExercise) -> None:
    """Code: the solution, and why it works as a comment."""
    mark = "//" if isinstance(chosen, KernelExercise) else "#"
    comments = [line for text in (chosen.why, chosen.place) for line in wrapped(text, 98)]
    for line in [*solution_of(chosen).splitlines(), "", *(f"{mark} {comment}" for comment in comments)]:
        say(line, indent=None)


def check(chosen: Exercise | KernelExercise, arguments: argparse.Namespace) -> int:
    if not arguments.file.is_file():
        raise UsageError(f"FILE must be a file, got {str(arguments.file)[:200]!r}; --start writes one to begin with")
    if isinstance(chosen, KernelExercise):
        result = check_kernel(chosen.name, arguments.file, arguments.seconds or kernels.SECONDS)
    else:
        seconds = arguments.seconds or process.SECONDS
        result = process.check_file(chosen.name, arguments.file, arguments.seed, seconds, arguments.memory)
    right = {} if isinstance(chosen, KernelExercise) else dict(chosen.right)
    more: dict[str, object] = {} if isinstance(chosen, KernelExercise) else {"seed": arguments.seed}
    if arguments.hint and not result.passed:
        more |= {"hint": chosen.hint, "right": right}
    if arguments.solution:
        more |= {"solution": solution_of(chosen)}
    if arguments.json:
        print_json(result.as_json() | more)
        return 0 if result.passed else 1
    if more.get("seed"):
        say(f"seed: {arguments.seed}", error=True)
    if printed := str(result.details.get("printed", "")):
        for line in printed.splitlines():
            say(f"printed: {line}", indent=None, error=True)
    for line in result.message.splitlines():
        say(line, indent=None)
    if "hint" in more:
        say()
        say(f"hint           {chosen.hint}", indent=15)
        for formula in right.values():
            say(f"right          {formula}", indent=15)
    if arguments.solution:
        say()
        say_solution(chosen)
    return 0 if result.passed else 1


def grade(arguments: argparse.Namespace) -> int:
    """Grades a grader.  Without a name, on every exercise whose right version it accepts."""
    if not arguments.grade_tests.strip():
        raise UsageError("--grade-tests must be a command, got an empty one")
    if arguments.name in KERNELS:
        raise UsageError(f"--grade-tests needs an exercise in Python; {arguments.name} has no wrong versions")
    found = []
    for name in [arguments.name] if arguments.name else exercises.names():
        answers = []
        total = len(exercises.checking.get(name).misconceptions)
        try:
            for number, answer in enumerate(
                grading.grade_tests(name, arguments.grade_tests, arguments.seconds or process.SECONDS)
            ):
                answers.append(answer)
                say(f"{name}: {number} of {total} wrong versions tried", error=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"--grade-tests: {arguments.grade_tests[:200]!r} cannot be run: {error}") from None
        found.append(grading.graded(name, iter(answers)))
    usable = [one for one in found if one.usable]
    if arguments.name and not usable:
        raise UsageError(f"--grade-tests: the command rejects the right solution of {arguments.name}")
    slipped = sum(len(one.slipped) for one in usable)
    if arguments.json:
        fields = [{"exercise": one.exercise, "caught": one.caught, "slipped": one.slipped} for one in usable]
        print_json({"passed": bool(usable) and not slipped, "slipped": slipped, "exercises": fields})
        return 0 if usable and not slipped else 1
    for one in usable:
        total = len(one.caught) + len(one.slipped)
        say(f"{one.exercise}: {len(one.slipped)} of {total} wrong versions slip through")
        for misconception in one.slipped:
            say(f"  {misconception}", indent=None)
    if not usable:
        say("the command accepts the right solution of no exercise")
    return 0 if usable and not slipped else 1
