"""Whether a kernel of your own is right: results on awkward sizes, and what the watch finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.backends.kernels.own import ARRAYS, SIZES, OwnKernel, read
from minires.kernels.build import Program, own_program
from minires.kernels.cases import CASES, bound_of, definition, shapes_of
from minires.kernels.profile import Profile, profile_program
from minires.kernels.watch import Finding, Launch, Pointer, Report, run

ADVICE = ("uncoalesced", "bank-conflict")  # kinds that do not fail
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Result:
    """profile: None if something fails."""

    findings: tuple[Finding, ...]
    profile: Profile | None

    @property
    def passed(self) -> bool:
        return all(finding.kind in ADVICE for finding in self.findings)


def check(path: str | Path, kind: str) -> Result:
    """Compiles and runs the kernel of a file; kind: "gemm" or "conv2d".

    Raises ValueError for a file that is no such kernel (own.py) or does not compile, BackendUnavailable without g++.
    """
    kernel = read(path, kind)
    with own_program(kernel) as program:
        findings = list(_found(kernel, program))
        profile = None
        if not findings:
            profile = profile_program(kernel, program)
            findings += profile.advice
    return Result(tuple(findings), profile)


def _found(kernel: OwnKernel, program: Program) -> Iterator[Finding]:
    """The findings of all cases: the first of each kind and line, with the case's sizes."""
    seen = set()
    for number, values in enumerate(CASES[kernel.kind]):
        sizes = dict(zip(SIZES[kernel.kind], values, strict=True))
        report = run_case(kernel, program, sizes, seed=SEEDS[number % len(SEEDS)], whole_numbers=number % 2 == 0)
        for finding in report.findings:
            key = (finding.kind, 0 if finding.kind == "unwritten" else finding.line)  # its line depends on the stores
            if key not in seen:
                seen.add(key)
                shown = " ".join(f"{name}={size}" for name, size in sizes.items())
                yield replace(finding, line=finding.line or kernel.line, message=f"{finding.message} for {shown}")
        if report.endless:
            return


def run_case(
    kernel: OwnKernel, program: Program, sizes: Mapping[str, int], seed: int, whole_numbers: bool = True
) -> Report:
    """One watched launch; its findings include the comparison with the definition.

    whole_numbers   inputs are integers from -3 to 3, for which every order of summation is exact; else normal numbers
    """
    left, right, out = ARRAYS[kernel.kind]
    shapes = shapes_of(kernel.kind, sizes)
    rng = np.random.default_rng(seed)
    draw = (lambda shape: rng.integers(-3, 4, shape)) if whole_numbers else rng.standard_normal
    inputs = [draw(shape).astype(np.float32) for shape in shapes[:2]]
    grid, block = kernel.launch_of(**sizes)
    arguments = [*map(Pointer, ARRAYS[kernel.kind]), *sizes.values()]
    launch = Launch(kernel.name, grid, block, arguments, kernel.shared_of(**sizes))
    report = run(program, {left: inputs[0], right: inputs[1], out: shapes[2]}, [launch], seed)
    for name, given in zip((left, right), inputs, strict=True):
        if name in report.arrays and (changed := np.argwhere(report.arrays[name] != given)).size:
            message = f"{_element(name, changed[0])} is changed: {name} is an input"
            report.findings.append(Finding("wrong-result", kernel.line, message))
    if out in report.arrays:
        stores = [site.line for site in report.sites if site.kind == "global store"]
        line = stores[-1] if stores else kernel.line
        report.findings += _compared(kernel, out, report, inputs, sizes, line, whole_numbers)
    return report


def _compared(
    kernel: OwnKernel, out: str, report: Report, inputs: list[Array], sizes: Mapping[str, int], line: int, exact: bool
) -> Iterator[Finding]:
    found, traffic = report.arrays[out], report.traffic[out]
    if traffic.unwritten:
        place = _element(out, np.unravel_index(traffic.first_unwritten, found.shape))
        yield Finding("unwritten", line, f"{place} is never written, {traffic.unwritten} of {found.size} elements")
    expected = definition(kernel.kind, inputs, sizes)
    bound = 0.0 if exact else bound_of(kernel, inputs, sizes)
    untouched = found.view(np.uint32) == 0xFFFFFFFF if traffic.unwritten else False
    wrong = ~(np.abs(found - expected) <= bound) & ~np.asarray(untouched)  # NaN is wrong
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        message = f"{_element(out, first)} is {found[first]:.6g}, should be {expected[first]:.6g}"
        yield Finding("wrong-result", line, f"{message}, {int(wrong.sum())} of {found.size} elements")


def _element(name: str, index: Iterable[Any]) -> str:
    return name + "".join(f"[{i}]" for i in index)
