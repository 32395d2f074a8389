"""The items of the paper that can be reproduced: one function each, from options to a `Report`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from minires import models
from minires.paper import drawing, experiment, figure1, figure4, figure7, gradients, published, table1, table6
from minires.paper.experiment import Curve, Plan
from minires.paper.report import Report, to_csv
from minires.training.progress import Silent

Progress = Callable[[Sequence[str]], AbstractContextManager[list[Silent]]]


def silent(labels: Sequence[str]) -> AbstractContextManager[list[Silent]]:
    """Progress without output."""
    return nullcontext([Silent() for _ in labels])


def reproduce_table1(*, time: bool = False, **options: str) -> Report:
    """Table 1.

    time      measure a forward pass of one image
    options   shortcut, stride_in; each applies to the networks that have it
    """
    columns = []
    for name in table1.NETWORKS:
        own = {option: value for option, value in options.items() if option in models.options(name)}
        columns.append(table1.column(name, time, **own))
    head, lines = table1.rows(columns)
    files = {"table1.csv": to_csv(head, lines)}
    files |= {f"table1.{kind}": table1.picture(columns, kind) for kind in ("svg", "png")}
    title = f"Table 1; multiply-adds: {table1.CONVENTION}"
    drop = ("output size", "101-layer", "34-layer", "152-layer", "18-layer")
    return Report("table1", title, head, lines, files, drop=drop)


def reproduce_table6(*, runs: Sequence[Path] = ()) -> Report:
    """Table 6, with the errors of finished runs on cifar10."""
    head, lines = table6.rows(runs)
    done = not any("not reproduced" in line for line in lines)
    title = "Table 6: test error at the last iteration, on cifar10"
    files = {"table6.csv": to_csv(head, lines)}
    return Report("table6", title, head, lines, files, reproduced=done, right=head[1:4], drop=("layers",))


def reproduce_figure3() -> Report:
    """Figure 3: VGG-19, plain-34 and residual-34."""
    drawings = [drawing.named("vgg19"), drawing.named("plain34"), drawing.named("resnet34", shortcut="A")]
    head = ["network", "multiply-adds", "the paper's FLOPs"]
    lines = [[d.title, f"{d.macs:,}", f"{published.FIGURE_3_FLOPS[d.title]} ×10⁹"] for d in drawings]
    files = {"figure3.csv": to_csv(head, lines)}
    files |= {f"figure3.{kind}": drawing.picture(drawings, kind) for kind in ("svg", "png")}
    return Report("figure3", "Figure 3", head, lines, files, right=head[1:], drop=head[2:])


def reproduce_figure1(
    out: Path, *, data: str = "fashion-mnist", quick: bool = False, residual: bool = False, **how: Any
) -> Report:
    """Figure 1, with `residual` Figure 6; `how`: see `_trained`."""
    plan = figure1.plan(data, quick=quick, residual=residual)
    return _trained("figure1", plan, out, figure1.picture, **how)


def reproduce_figure4(out: Path, *, data: str = "fashion-mnist", quick: bool = False, **how: Any) -> Report:
    """Figure 4; `how`: see `_trained`."""
    return _trained("figure4", figure4.plan(data, quick=quick), out, figure4.picture, **how)


def _trained(
    name: str,
    plan: Plan,
    out: Path,
    picture: Callable[[Plan, Sequence[Curve]], bytes],
    *,
    seeds: int = 1,
    data_dir: str | None = None,
    backend: str | None = None,
    jobs: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Trains the plan's networks, in run folders under out/<name>.

    seeds      runs of each network
    data_dir   folder that is searched for the data first
    jobs       runs at a time; None: one a processor
    """
    plan = replace(plan, settings={**plan.settings, "backend": backend})
    labels = experiment.labels(plan, seeds)
    with progress([f"{network}, seed {seed}" if seeds > 1 else network for network, seed in labels]) as own:
        reports = dict(zip(labels, own, strict=True))
        curves = experiment.run_all(plan, seeds, out / name, data_dir, jobs, reports)
    head = ["network", "seed", "training error", "test error", "time"]
    lines = [
        [c.network, str(c.seed), f"{c.training_error:.2f} %", f"{c.test_error:.2f} %", f"{c.rows[-1].seconds:.0f} s"]
        for c in curves
    ]
    points = [
        [c.network, str(c.seed), str(row.iteration), repr(row.training_error), "" if e is None else repr(e)]
        for c in curves
        for row in c.rows
        for e in [row.test_error]
    ]
    columns = ["network", "seed", "iteration", "training error", "test error"]
    files = {f"{name}.csv": to_csv(columns, points), f"{name}.png": picture(plan, curves)}
    verdict = experiment.verdict(plan, curves)
    notes = [*(f"{'holds' if holds else 'FAILS'}: {claim}" for claim, holds in verdict), experiment.TWO_ERRORS]
    title = f"{plan.title}: errors at iteration {plan.iterations:,}"
    reproduced = all(holds for _, holds in verdict)
    return Report(name, title, head, lines, files, notes, reproduced, [curve.path for curve in curves], head[1:])


def reproduce_figure7(*, runs: Sequence[Path] = (), data_dir: str | None = None, seed: int = 0) -> Report:
    """Figure 7 of trained networks, or without runs of freshly initialised networks."""
    if runs:
        responses = [figure7.of_run(run, data_dir) for run in runs]
        notes = [f"trained on {', '.join(sorted({r.trained_on for r in responses}))}; the paper's on CIFAR-10"]
    else:
        responses = [figure7.initialised(name, seed) for name in figure7.INITIALISED]
        notes = [figure7.AT_INITIALISATION]
    head = ["network", "layers", "mean deviation", "smallest", "largest"]
    lines = [
        [r.network, str(len(d)), f"{sum(d) / len(d):.3f}", f"{min(d):.3f}", f"{max(d):.3f}"]
        for r in responses
        for d in [r.deviations]
    ]
    layers = [[r.network, str(i), repr(value)] for r in responses for i, value in enumerate(r.deviations, start=1)]
    csv = to_csv(["network", "layer", "deviation"], layers)
    files = {"figure7.csv": csv, "figure7.png": figure7.picture(responses)}
    title = "Figure 7: standard deviation of the layers' responses"
    return Report("figure7", title, head, lines, files, notes, right=head[1:])


def reproduce_gradients(*, steps: int = 0, seed: int = 0) -> Report:
    """Gradient norms over depth in the four cases."""
    cases = [
        gradients.measure(residual, batch_norm, depth, seed=seed, steps=steps)
        for batch_norm in (True, False)
        for residual in (False, True)
        for depth in gradients.DEPTHS
    ]
    head = ["network", "second convolution", "last convolution"]
    lines = [[case.name, f"{case.norms[1]:.2g}", f"{case.norms[-1]:.2g}"] for case in cases]
    if steps:
        head.append(f"median turn after {steps} steps")
        for line, case in zip(lines, cases, strict=True):
            line.append(f"{sorted(case.turned)[len(case.turned) // 2]:.1f}°" if case.turned else "diverged")
    layers = [
        [case.name, str(i + 1), repr(norm), repr(case.turned[i]) if case.turned else ""]
        for case in cases
        for i, norm in enumerate(case.norms)
    ]
    files = {"gradients.csv": to_csv(["network", "convolution", "gradient norm", "turn in degrees"], layers)}
    files["gradients.png"] = gradients.picture(cases)
    title = "norm of the weights' gradient at initialisation"
    return Report("gradients", title, head, lines, files, [gradients.WARNING], right=head[1:])
