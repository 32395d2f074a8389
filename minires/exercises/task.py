"""What an exercise consists of: its text, its cases, its solution and its catalogue of misconceptions."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minires.exercises.families import FAMILIES
from minires.exercises.layer import Layer

Array = np.ndarray[Any, Any]
Bugs = frozenset[str]  # names of misconceptions
Pair = tuple[int, int]


AGAIN = "the geometry came before, with other numbers"


@dataclass(frozen=True)
class Seed:
    """An argument that a solution receives as `numpy.random.default_rng(seed)`."""

    seed: int


@dataclass(frozen=True)
class Case:
    """One call of a solution.

    geometry    the sizes, for the message: "1×1×3×3, filter 1×1×2×2, stride 2"
    arguments   positional arguments: arrays, integers, pairs, booleans, `Seed` or `Layer`
    sizes       named sizes, to recognise a factor such as 1/(N·OH·OW)
    features    properties such as "stride > 1", to describe where a solution fails
    """

    geometry: str
    arguments: tuple[Any, ...]
    sizes: Mapping[str, float] = field(default_factory=dict)
    features: frozenset[str] = frozenset()

    @property
    def elements(self) -> int:
        """The number of elements of all arrays: cases are ordered by it."""
        return sum(a.size for a in self.arguments if isinstance(a, np.ndarray))


@dataclass(frozen=True)
class Misconception:
    """A mistake of the catalogue.

    name      what the student did, as a phrase; also the name of its switch in `Exercise.variant`
    family    a key of `FAMILIES`, which holds the explanation and the question
    formula   what the student's outputs amount to
    also      switches of other code that makes the same mistake with slightly other numbers
    """

    name: str
    family: str
    formula: str
    also: tuple[str, ...] = ()

    @property
    def switches(self) -> tuple[str, ...]:
        return (self.name, *self.also)

    @property
    def sentence(self) -> str:
        return FAMILIES[self.family].sentence

    @property
    def question(self) -> str:
        return FAMILIES[self.family].question


@dataclass(frozen=True)
class Exercise:
    """A function that a student writes.

    signature       parameters, as in the start file
    outputs         names of the results, in order
    text            docstring of the start file: what it computes, shapes, formula
    solution        the reference solution, which --solution prints
    variant         (bugs, *arguments) -> tuple of outputs; without bugs they equal the solution's
    cases           random generator -> cases
    right           output -> its right formula, for --hint
    why             one paragraph: why the solution works
    place           the command that stops in the same computation of minires
    tolerance       largest error of an element, relative to the largest element of the output
    measure         arguments, outputs -> outputs that are compared instead; None: the outputs themselves
    statistics      names of the numbers that `measure` computes, for the message
    among           cases, outputs of all calls -> a misconception that shows only between calls, or None
    """

    name: str
    teaches: str
    section: str
    signature: str
    outputs: tuple[str, ...]
    text: str
    solution: Callable[..., Any]
    variant: Callable[..., tuple[Any, ...]]
    misconceptions: tuple[Misconception, ...]
    cases: Callable[[np.random.Generator], Iterator[Case]]
    right: Mapping[str, str]
    hint: str
    why: str
    place: str
    helpers: tuple[Callable[..., Any], ...] = ()
    tolerance: float = 2.0**-32  # float64 rounds to 2^-53: the sums have < 2^10 terms and < 2^11 times their result
    measure: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...]] | None = None
    statistics: tuple[str, ...] = ()
    among: Callable[[Sequence[Case], Sequence[Sequence[Any]]], Misconception | None] | None = None

    def start(self) -> str:
        """The start file: docstring, signature, empty body."""
        body = textwrap.indent(textwrap.dedent(self.text).strip(), "    ").replace("\n    \n", "\n\n")
        head = f"def {self.name}({self.signature}):"
        return (
            f'import numpy as np\n\n\n{head}\n    """{body.strip()}\n    """\n    raise NotImplementedError("yours")\n'
        )

    def solution_text(self) -> str:
        parts = [textwrap.dedent(inspect.getsource(one)) for one in (*self.helpers, self.solution)]
        return "import numpy as np\n\n\n" + "\n\n".join(parts)

    def ordered_cases(self, seed: int) -> list[Case]:
        """The cases of a seed, the smallest first; then the first and the last geometry again with other numbers.

        A solution that keeps arrays of an earlier call is wrong in the repeated geometries.
        """
        drawn = self._drawn(seed)
        return [*drawn, *(self._again(drawn[place], place, seed) for place in (0, -1))]

    def _drawn(self, *seed: int) -> list[Case]:
        return sorted(self.cases(np.random.default_rng(seed)), key=lambda case: case.elements)

    def _again(self, first: Case, place: int, seed: int) -> Case:
        """A geometry with other numbers; each array of its first call would give another result."""
        for number in range(1, 20):
            case = self._drawn(seed, number)[place]
            right = self.solved(case)
            stale = [
                self.solved(replace(case, arguments=(*case.arguments[:j], array, *case.arguments[j + 1 :])))
                for j, array in enumerate(first.arguments)
                if isinstance(array, np.ndarray)
            ]
            if not any(all(map(np.array_equal, right, outputs)) for outputs in stale):
                break
        return replace(case, geometry=f"{case.geometry}, once more", features=case.features | {AGAIN})

    def solved(self, case: Case, bugs: Bugs | None = None) -> tuple[Array, ...]:
        """The outputs of the solution, or of the variant with these bugs, as they are compared."""
        arguments = fresh(case.arguments)
        found = self.solution(*arguments) if bugs is None else self.variant(bugs, *arguments)
        if len(self.outputs) == 1 and not (bugs is not None and isinstance(found, tuple)):
            found = (found,)
        return self.measured(case, tuple(map(np.asarray, found)))

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(word.partition("=")[0].strip() for word in self.signature.split(","))

    def measured(self, case: Case, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return outputs if self.measure is None else self.measure(case.arguments, outputs)


def fresh(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments for one call: arrays are copied, also a layer's; a `Seed` becomes a generator."""

    def one(argument: Any) -> Any:
        if isinstance(argument, np.ndarray):
            return argument.copy(order="K")
        if isinstance(argument, Layer):
            return replace(argument, arrays=tuple(map(one, argument.arrays)))
        return np.random.default_rng(argument.seed) if isinstance(argument, Seed) else argument

    return tuple(map(one, arguments))


def pair(value: Any) -> Pair:
    """An integer or an (h, w) pair -> (h, w)"""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def times(*sizes: int) -> str:
    return "×".join(map(str, sizes))


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """float64: nonzero integers from −4 to 4 in a small array, which keeps a message readable; else normal numbers."""
    if np.prod(shape, dtype=int) > 16:
        return rng.standard_normal(shape)
    return rng.integers(1, 5, shape) * rng.choice((-1.0, 1.0), shape)
