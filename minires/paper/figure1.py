"""Figure 1 (and, with the residual networks, Figure 6): the deeper plain network is worse, on training images too.

On CIFAR-10 it is the paper's experiment.  Offline it is an analogue, and says so in its title: Fashion-MNIST averaged
to 14×14, widths 8, 16 and 32, lr 0.02 (chosen after results had been seen), 2,000 or, quick, 300 iterations.  These
networks are far from converged: it shows slow optimisation, not that the degradation survives convergence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minires import data
from minires._checks import choice
from minires.training import Config, find_checkpoint, load_checkpoint, train
from minires.training.batches import evaluation_loader
from minires.training.evaluation import evaluate
from minires.training.history import Row
from minires.training.progress import Silent
from minires.training.restore import restore

SAMPLE = 10_000  # training images on which the training error at the end is measured, without augmentation


@dataclass(frozen=True)
class Plan:
    """What is trained, and what must come out.

    margins    least differences of the training errors in percent points: (minuend, subtrahend, least)
    kinship    how much worse than ResNet-20 ResNet-56 may be; two_sided: how far they may be apart
    """

    data: str
    title: str
    iterations: int
    networks: tuple[str, ...]
    settings: dict[str, object]
    margins: tuple[tuple[str, str, float], ...]
    kinship: float
    two_sided: bool = False


@dataclass(frozen=True)
class Curve:
    """One trained network: its history, and its errors in percent at the last iteration."""

    network: str
    seed: int
    rows: tuple[Row, ...]
    training_error: float
    test_error: float


def plan(dataset: str = "fashion-mnist", *, quick: bool = False, residual: bool = False) -> Plan:
    """The paper's recipe for cifar10 (64k iterations; quick: 300), the analogue for fashion-mnist."""
    choice(dataset, "data", ("fashion-mnist", "cifar10"))
    networks = ("plain20", "plain56", "resnet20", "resnet56") if residual else ("plain20", "plain56")
    if dataset == "cifar10":
        iterations = 300 if quick else 64_000
        settings: dict[str, object] = {"eval_every": max(iterations // 64, 100), "iterations": iterations}
        return Plan(
            dataset, "Figure 1 on CIFAR-10", iterations, networks, settings, (("plain56", "plain20", 0.0),), 0.0
        )
    iterations = 300 if quick else 2000
    settings = {"size": 14, "width": 8, "lr": 0.02, "iterations": iterations, "eval_every": 100, "log_every": 25}
    title = "An analogue of Figure 1: Fashion-MNIST at 14×14"
    margins = (("plain56", "plain20", 15.0 if quick else 8.0), ("plain20", "resnet20", 1.5 if quick else 0.0))
    return Plan(dataset, title, iterations, networks, settings, margins, 3.0 if quick else 1.0, quick)


def run(
    plan: Plan, network: str, seed: int, out: Path, data_dir: str | None = None, report: Silent | None = None
) -> Curve:
    """Trains one network into out/<network>-<iterations>-<seed>, or goes on with what is there.

    Raises what `minires.training.train` raises.
    """
    folder = out / f"{network}-{plan.iterations}-{seed}"
    config = Config.make(network=network, data=plan.data, seed=seed, data_dir=data_dir, **plan.settings)
    try:
        start = find_checkpoint(folder)
    except FileNotFoundError:
        start = None
    if start is None:
        train(config, folder, report=report)
    elif (found := load_checkpoint(start)).iteration < plan.iterations:
        train(replace(found.config, data_dir=data_dir), resume=folder, report=report)
    trained = restore(folder, data_dir=data_dir)
    rows = trained.checkpoint.rows
    images = data.load(plan.data, "train", data_dir, size=config.size)
    first = replace(images, images=images.images[:SAMPLE], labels=images.labels[:SAMPLE])  # type: ignore[index]
    batches = evaluation_loader(trained.checkpoint.config, first, trained.checkpoint.mean).epoch(0)
    test_error = rows[-1].test_error
    assert test_error is not None
    return Curve(network, seed, rows, evaluate(trained.model, batches).error, test_error)


def verdict(plan: Plan, curves: Sequence[Curve]) -> list[tuple[str, bool]]:
    """What must hold of the training errors at the last iteration, seed by seed, and whether it does."""
    results = []
    for seed in sorted({curve.seed for curve in curves}):
        error = {curve.network: curve.training_error for curve in curves if curve.seed == seed}
        for worse, better, least in plan.margins:
            if worse in error and better in error:
                difference = error[worse] - error[better]
                told = f"seed {seed}: training error of {worse} − {better} = {difference:.1f}, at least {least:g}"
                results.append((told, difference >= least))
        if "resnet56" in error:
            apart = error["resnet56"] - error["resnet20"]
            apart = abs(apart) if plan.two_sided else apart
            what = "|resnet56 − resnet20|" if plan.two_sided else "resnet56 − resnet20"
            told = f"seed {seed}: training error of {what} = {apart:.1f}, at most {plan.kinship:g}"
            results.append((told, apart <= plan.kinship))
    return results


def picture(plan: Plan, curves: Sequence[Curve]) -> bytes:
    """Training error at the left, test error at the right: thin lines a seed, bold their mean; the bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, which in zip(panels, ("training_error", "test_error"), strict=True):
        for number, network in enumerate(plan.networks):
            lines = []
            for curve in curves:
                if curve.network == network:
                    points = [(row.iteration, getattr(row, which)) for row in curve.rows]
                    lines.append([(x, y) for x, y in points if y is not None])
                    if len(curves) > len(plan.networks):
                        axes.plot(*zip(*lines[-1], strict=True), color=f"C{number}", linewidth=0.6, alpha=0.7)
            x = [iteration for iteration, _ in lines[0]]
            mean = np.mean([[y for _, y in line] for line in lines], axis=0)
            axes.plot(x, mean, color=f"C{number}", linewidth=2.2, label=network)
        axes.set(xlabel="iterations", ylabel=f"{which.replace('_', ' ')} (%)", ylim=(0, 100), xlim=(0, plan.iterations))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{plan.title}; training error with augmentation, mean since the last point", fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
