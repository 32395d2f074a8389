"""Trains networks side by side and judges the order of their errors, for Figures 1, 4 and 6.

Every curve is a training run with its own folder.  A finished run is not repeated; an interrupted run resumes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minires._plotting import encoded
from minires.data import FolderImages
from minires.training import Config, load_checkpoint, resume_config, train
from minires.training.batches import evaluation_loader, images
from minires.training.evaluation import evaluate
from minires.training.history import Row
from minires.training.progress import Silent
from minires.training.restore import restore
from minires.training.run import starting_point
from minires.training.side_by_side import side_by_side

SAMPLE = 10_000  # training images for the final training error, which is measured without augmentation
TWO_ERRORS = (
    "training errors: in the table and in the claims in evaluation mode, on at most 10,000 training images without "
    "augmentation; in the picture and in the CSV file with augmentation, as the mean since the last point"
)


@dataclass(frozen=True)
class Claim:
    """A bound on the training error of network `a` minus that of `b` at the last iteration, in percentage points.

    least        lower bound
    most         upper bound, if `least` is None
    either_way   `most` bounds the absolute difference
    """

    a: str
    b: str
    least: float | None = None
    most: float | None = None
    either_way: bool = False

    def judge(self, error: Mapping[str, float]) -> tuple[str, bool]:
        """(the difference and its bound in words, whether the claim holds); NaN fails every claim."""
        pair, apart = f"{self.a} − {self.b}", error[self.a] - error[self.b]
        if self.either_way:
            pair, apart = f"|{pair}|", abs(apart)
        if self.least is not None:
            bound, holds = f"at least {self.least:g}", apart >= self.least
        else:
            assert self.most is not None
            bound, holds = f"at most {self.most:g}", apart <= self.most
        return f"training error of {pair} = {apart:.1f}, {bound}", holds


@dataclass(frozen=True)
class Plan:
    """The networks to train, and the claims about their errors.

    title      names the paper's figure, or its analogue
    settings   of `Config`, for every network
    options    of `Config`, for single networks
    """

    data: str
    title: str
    iterations: int
    networks: tuple[str, ...]
    settings: Mapping[str, Any]
    claims: tuple[Claim, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def config(self, network: str, seed: int, data_dir: str | None = None) -> Config:
        """The configuration of one curve's run; raises ConfigError."""
        settings = {**self.settings, **self.options.get(network, {}), "iterations": self.iterations}
        return Config.make(network=network, data=self.data, seed=seed, data_dir=data_dir, **settings)


@dataclass(frozen=True)
class Curve:
    """One trained network: its history, and its errors in percent at the last iteration.

    training_error   in evaluation mode, of the first 10,000 training images without augmentation; of a folder, which is
                     sorted by class, of every n-th image, at most 10,000
    """

    network: str
    seed: int
    rows: tuple[Row, ...]
    training_error: float
    test_error: float
    path: Path


@dataclass(frozen=True)
class Line:
    """The style of a curve: a network's column `which` of the history (training_error or test_error)."""

    network: str
    which: str
    label: str
    colour: str
    width: float = 2.2
    style: str = "-"


def run(plan: Plan, network: str, seed: int, out: Path, data_dir: str | None, report: Silent) -> Curve:
    """Trains one network in out/<network>-<iterations>-<seed>, or resumes the run that is there.

    Raises what `minires.training.train` raises.
    """
    folder = out / f"{network}-{plan.iterations}-{seed}"
    config = plan.config(network, seed, data_dir)
    try:
        start = starting_point(folder)
        done = 0 if start is None else load_checkpoint(start).iteration
    except FileNotFoundError:
        train(config, folder, report=report)
    else:
        if done < plan.iterations:
            train(replace(resume_config(folder), data_dir=data_dir), resume=folder, report=report)
    trained = restore(folder, data_dir=data_dir)
    config, rows = trained.checkpoint.config, trained.checkpoint.rows
    dataset = images(config, "train")
    chosen = slice(SAMPLE)
    if isinstance(dataset.images, FolderImages):  # sorted by class
        chosen = slice(None, None, math.ceil(len(dataset) / SAMPLE))
    sample = replace(dataset, images=dataset.images[chosen], labels=dataset.labels[chosen])
    batches = evaluation_loader(config, sample, trained.checkpoint.mean).epoch()
    test_error = rows[-1].test_error
    assert test_error is not None
    with config.computing():
        training_error = evaluate(trained.model, batches).error
    return Curve(network, seed, rows, training_error, test_error, folder)


def run_all(
    plan: Plan,
    seeds: int,
    out: Path,
    data_dir: str | None = None,
    jobs: int | None = None,
    reports: Mapping[tuple[str, int], Silent] | None = None,
) -> list[Curve]:
    """Every network with every seed, `jobs` at a time; in the order of seeds and networks."""
    # The deepest first, so the last run is short.
    order = sorted(labels(plan, seeds), key=lambda label: (label[1], -_depth(label[0])))
    tasks = [functools.partial(run, plan, network, seed, out, data_dir) for network, seed in order]
    own = [Silent() if reports is None else reports[label] for label in order]
    curves = dict(zip(order, side_by_side(tasks, own, jobs), strict=True))
    return [curves[label] for label in labels(plan, seeds)]


def labels(plan: Plan, seeds: int) -> list[tuple[str, int]]:
    """Network and seed of every curve."""
    return [(network, seed) for seed in range(seeds) for network in plan.networks]


def _depth(network: str) -> int:
    return int("".join(filter(str.isdigit, network)))


def verdict(plan: Plan, curves: Sequence[Curve]) -> list[tuple[str, bool]]:
    """(claim in words, whether it holds) for each seed and claim."""
    results = []
    for seed in sorted({curve.seed for curve in curves}):
        error = {curve.network: curve.training_error for curve in curves if curve.seed == seed}
        for claim in plan.claims:
            found, holds = claim.judge(error)
            results.append((f"seed {seed}: {found}", holds))
    return results


def picture(plan: Plan, curves: Sequence[Curve], panels: Sequence[tuple[str, Sequence[Line]]]) -> bytes:
    """Errors over iterations, one panel for each (label of the y axis, lines): the bytes of a PNG."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, (ylabel, lines) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for line in lines:
            _plot(axes, [curve for curve in curves if curve.network == line.network], line)
        axes.set(xlabel="iterations", ylabel=ylabel, ylim=(0, 100), xlim=(0, plan.iterations))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.legend()
    seeds = len({curve.seed for curve in curves})
    legend = f"{seeds} seeds: thin lines, bold their mean" if seeds > 1 else "one seed"
    figure.suptitle(f"{plan.title}\n{legend}; training error with augmentation, mean since the last point", fontsize=10)
    return encoded(figure)


def _plot(axes: Any, curves: Sequence[Curve], line: Line) -> None:
    """The mean over the seeds; if there are several, a thin line for each."""
    seeds = []
    for curve in curves:
        points = [(row.iteration, getattr(row, line.which)) for row in curve.rows]
        seeds.append([(x, y) for x, y in points if y is not None])
    if len(seeds) > 1:
        for points in seeds:
            axes.plot(*zip(*points, strict=True), color=line.colour, linewidth=0.6, alpha=0.7)
    x = [iteration for iteration, _ in seeds[0]]
    mean = np.mean([[y for _, y in points] for points in seeds], axis=0)
    axes.plot(x, mean, line.style, color=line.colour, linewidth=line.width, label=line.label)
