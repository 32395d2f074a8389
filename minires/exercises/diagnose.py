"""Recognises misconceptions by the numbers that they give: fingerprints.

The outputs of a solution are compared with those of every catalogued misconception, of every pair of them, and of
general mistakes (a factor, exchanged axes) alone and on top of a misconception.  A candidate must agree in every
geometry in which the solution returned an array.  Each output is explained for itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.exercises.calls import unwritten
from minires.exercises.compare import same
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception


@dataclass(frozen=True)
class Explanation:
    """One way to make a wrong output: one misconception, or two at once."""

    parts: tuple[Misconception, ...]
    bugs: Bugs = frozenset()  # the switches of the catalogue; empty if a general mistake is among the parts

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)


class Diagnosis:
    """The explanations of the outputs of one solution.

    cases      the geometries in which the solution returned, the smallest first
    expected   for each of them the right outputs
    came       for each of them the outputs: arrays or complaints
    singles    (id of a case, switch) -> outputs of the variant: kept from one diagnosis to the next
    """

    def __init__(
        self,
        exercise: Exercise,
        cases: Sequence[Case],
        expected: Sequence[Sequence[Array]],
        came: Sequence[Sequence[Any]],
        singles: dict[tuple[int, str], tuple[Array, ...] | None] | None = None,
    ) -> None:
        self.exercise, self.cases, self.expected, self.came = exercise, cases, expected, came
        self.singles = {} if singles is None else singles
        self.pairs: dict[tuple[int, Bugs], tuple[Array, ...] | None] = {}

    def explained(self, wrong: Sequence[int]) -> dict[int, list[Explanation]]:
        """Output -> its explanations: one, two that cannot be distinguished, or none."""
        found = {output: self._candidates(output) for output in wrong}
        names = [{one.name for one in candidates} for candidates in found.values()]

        def score(one: Explanation) -> tuple[int, bool]:
            outputs = range(len(self.exercise.outputs))
            everything = bool(one.bugs) and all(self._agree(k, self._returned(k), one.bugs) for k in outputs)
            return sum(one.name in explained for explained in names), everything

        for output, candidates in found.items():
            best = max(map(score, candidates), default=(0, False))
            unique: dict[object, Explanation] = {}
            for one in candidates:
                if score(one) == best:  # pairs of the same families differ in detail only
                    unique.setdefault(one.name if len(one.parts) == 1 else frozenset(p.family for p in one.parts), one)
            found[output] = list(unique.values())[:2]
        return found

    def _candidates(self, output: int) -> list[Explanation]:
        """The simplest explanations: general mistakes and single misconceptions before combinations of two."""
        places = self._returned(output)
        wrong = [i for i in places if not self._same(self.came[i][output], self.expected[i][output])]
        places = wrong + [i for i in places if i not in wrong]  # the wrong ones refute a candidate early
        if not wrong:
            return []
        catalogue = {switch: one for one in self.exercise.misconceptions for switch in one.switches}
        right = {i: self.expected[i][output] for i in places}
        found = [
            Explanation((one,), frozenset({switch}))
            for switch, one in catalogue.items()
            if self._agree(output, places, frozenset({switch}))
        ]
        if self.exercise.statistics:  # rules about elements, and pairs, mean nothing for statistics
            return found
        if not found:
            found = [Explanation((one,)) for one in self._general(output, places, right)]
        if found:
            return found
        effective = [name for name in catalogue if self._has_effect(output, wrong, frozenset({name}))]
        for name in effective:
            arrays = {i: self._variant(i, frozenset({name}), output) for i in places}
            if all(array is not None for array in arrays.values()):
                one = catalogue[name]
                found += [Explanation((one, more)) for more in self._general(output, places, arrays, order=False)]
        for two in itertools.combinations(effective, 2):
            if catalogue[two[0]] is not catalogue[two[1]] and self._agree(output, places, frozenset(two)):
                ordered = sorted(two, key=lambda name: self._first_effect(output, name))
                found.append(Explanation(tuple(catalogue[name] for name in ordered), frozenset(two)))
        return found

    def _returned(self, output: int) -> list[int]:
        return [i for i, came in enumerate(self.came) if isinstance(came[output], np.ndarray)]

    def _same(self, came: Any, expected: Array) -> bool:
        return same(came, expected, self.exercise.tolerance)

    def _agree(self, output: int, places: Sequence[int], bugs: Bugs) -> bool:
        for i in places:
            array = self._variant(i, bugs, output)
            if array is None or not self._same(self.came[i][output], array):
                return False
        return True

    def _has_effect(self, output: int, places: Sequence[int], bugs: Bugs) -> bool:
        for i in places:
            array = self._variant(i, bugs, output)
            if array is None or not self._same(array, self.expected[i][output]):
                return True
        return False

    def _first_effect(self, output: int, switch: str) -> int:
        """The smallest geometry in which a misconception alone changes this output."""
        return next(
            (i for i in range(len(self.cases)) if self._has_effect(output, [i], frozenset({switch}))), len(self.cases)
        )

    def _variant(self, place: int, bugs: Bugs, output: int) -> Array | None:
        """The output of a variant; None if the variant fails in this geometry, as some combinations do."""
        case = self.cases[place]
        if len(bugs) == 1:
            (switch,) = bugs
            if (id(case), switch) not in self.singles:
                self.singles[id(case), switch] = self._solved(case, bugs)
            arrays = self.singles[id(case), switch]
        else:
            if (place, bugs) not in self.pairs:
                self.pairs[place, bugs] = self._solved(case, bugs)
            arrays = self.pairs[place, bugs]
        return None if arrays is None else arrays[output]

    def _solved(self, case: Case, bugs: Bugs) -> tuple[Array, ...] | None:
        try:
            with np.errstate(all="ignore"):
                return self.exercise.solved(case, bugs)
        except Exception:
            return None

    # -- mistakes that any exercise can have

    def _general(
        self, output: int, places: Sequence[int], arrays: Mapping[int, Any], order: bool = True
    ) -> Iterator[Misconception]:
        """General mistakes that turn these arrays into what came.

        order   also whether another output or an input came in this place
        """
        name = self.exercise.outputs[output]
        came = {i: self.came[i][output] for i in places}
        if order:
            yield from self._exchanged(output, places)
            if all(not array.any() for array in came.values()):
                yield Misconception(f"{name} is zero", "nothing", f"{name} = 0")
                return
        if order and any(np.isnan(array).any() for array in came.values()):
            written = {
                i: np.where(np.isnan(came[i]), arrays[i], came[i]) for i in places if came[i].shape == arrays[i].shape
            }
            some = any(np.isfinite(array).any() for array in came.values())
            if some and all(i in written and self._same(written[i], arrays[i]) for i in places):
                missed = any(unwritten(array).any() for array in came.values())
                text, family = ("not written", "unwritten") if missed else ("computed as NaN", "not a number")
                yield Misconception(f"elements of {name} {text}", family, f"{name} is NaN in places, else right")
            return
        factor = self._factor(places, came, arrays)
        if factor is not None:
            text, family = factor
            yield Misconception(f"{name} {text}", family, f"{name} = (right {name}) {text}")
            return
        for text, family, change in CHANGES:
            if all(self._same(came[i], change(arrays[i])) for i in places):
                yield Misconception(f"{name} {text}", family, f"{name} has the right numbers, {text}")
                return
        if all(came[i].size == arrays[i].size and self._same(came[i].ravel(), arrays[i].ravel()) for i in places):
            shapes = next((came[i].shape, arrays[i].shape) for i in places if came[i].shape != arrays[i].shape)
            text = f"{name} has shape {shapes[0]} instead of {shapes[1]}, with the right numbers"
            yield Misconception(f"{name} in the wrong shape", "shape", text)
            return
        if order and all(same(came[i], arrays[i], 1e-4) for i in places):
            single = all(np.array_equal(came[i], came[i].astype(np.float32)) for i in places)
            text, family = ("went through float32", "float32") if single else ("is imprecise", "precision")
            yield Misconception(f"{name} {text}", family, f"{name} agrees to 4 digits or more, not to 9")

    def _exchanged(self, output: int, places: Sequence[int]) -> Iterator[Misconception]:
        name = self.exercise.outputs[output]
        for j, other in enumerate(self.exercise.outputs):
            if j != output and all(self._same(self.came[i][output], self.expected[i][j]) for i in places):
                yield Misconception(f"{other} returned as {name}", "order of outputs", f"{name} = {other}")
                return
        for j, parameter in enumerate(self.exercise.parameters):
            if all(
                isinstance(
                    given := self.cases[i].arguments[j] if j < len(self.cases[i].arguments) else None, np.ndarray
                )
                and self._same(self.came[i][output], given)
                for i in places
            ):
                yield Misconception(f"{parameter} returned as {name}", "input returned", f"{name} = {parameter}")
                return

    def _factor(
        self, places: Sequence[int], came: Mapping[int, Array], arrays: Mapping[int, Any]
    ) -> tuple[str, str] | None:
        """What multiplies the arrays, as text, and its family; None if the factors differ within an array."""
        factors: dict[int, float] = {}
        for i in places:
            array = arrays[i]
            if came[i].shape != array.shape or not (np.isfinite(array).all() and np.isfinite(came[i]).all()):
                return None
            if not array.any():
                if came[i].any():
                    return None
                continue
            index = np.unravel_index(np.abs(array).argmax(), array.shape)
            factors[i] = float(came[i][index] / array[index])
            if factors[i] == 0 or not self._same(came[i], factors[i] * array):
                return None
        if len(factors) < 2:
            return None
        values = list(factors.values())
        if np.ptp(values) < 1e-9:
            if abs(values[0] - 1) < 1e-9:
                return None
            return (
                ("with the opposite sign", "sign")
                if abs(values[0] + 1) < 1e-9
                else (f"times {values[0]:.6g}", "factor")
            )
        names = self.cases[places[0]].sizes
        singles = [(name,) for name in names]
        for chosen in [*singles, *itertools.combinations(names, 2)]:
            for power, sign in itertools.product((-1, 1), (1, -1)):
                if all(
                    abs(sign * np.prod([self.cases[i].sizes[name] for name in chosen]) ** float(power) / factor - 1)
                    < 1e-6
                    for i, factor in factors.items()
                ):
                    text = f"{'divided' if power < 0 else 'multiplied'} by {'·'.join(chosen)}"
                    text += ", with the opposite sign" if sign < 0 else ""
                    return text, "mean for sum" if power < 0 else "sum for mean"
        return None


def _turned(*axes: int) -> Callable[[Array], Array]:
    return lambda array: np.swapaxes(array, *axes) if array.ndim >= max(-min(axes), max(axes) + 1) else array


CHANGES: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
    ("with its last two axes exchanged", "transposed", _turned(-2, -1)),
    ("with its first two axes exchanged", "transposed", lambda a: a.swapaxes(0, 1) if a.ndim > 2 else a),
    ("with its channels as the last axis", "transposed", lambda a: np.moveaxis(a, 1, -1) if a.ndim > 2 else a),
    ("with all axes in reverse order", "transposed", lambda a: a.T if a.ndim > 2 else a),
    ("with its last two axes reversed", "reversed", lambda a: a[..., ::-1, ::-1] if a.ndim >= 2 else a),
    ("with its last axis reversed", "reversed", lambda a: a[..., ::-1] if a.ndim else a),
    ("with its second last axis reversed", "reversed", lambda a: a[..., ::-1, :] if a.ndim >= 2 else a),
)


def where_exactly(cases: Sequence[Case], chosen: Sequence[bool]) -> str:
    """The property that exactly the chosen cases have, or that exactly they lack; "" if there is no such property."""
    for feature in sorted({feature for case in cases for feature in case.features}):
        having = [feature in case.features for case in cases]
        if having == list(chosen):
            return feature
        if having == [not one for one in chosen]:
            return f"it is not the case that {feature}"
    return ""
