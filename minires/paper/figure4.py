"""Figure 4: 18 and 34 layers, plain and residual; of the plain networks the deeper one is worse, of the others not.

On ImageNet (`folder`) it is the paper's experiment.  Offline it is an analogue, and says so in its title: the same
networks on Fashion-MNIST at 28×28, a quarter of the widths, lr 0.02, 2,000 or, quick, 300 iterations.  The rate and the
margins were chosen after results had been seen.  So short a run shows that depth does not hurt a residual network; that
it helps, as on ImageNet, it does not show.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from minires._checks import choice
from minires.paper.experiment import Claim, Curve, Plan, plot

PANELS = (("plain18", "plain34"), ("resnet18", "resnet34"))
NETWORKS = tuple(name for pair in PANELS for name in pair)


def plan(dataset: str = "fashion-mnist", *, quick: bool = False) -> Plan:
    """The paper's 600k iterations for folder (quick: 300), the analogue for fashion-mnist.

    The residual networks have shortcuts A: no parameter more than the plain ones, as in the paper's figure.
    """
    choice(dataset, "data", ("fashion-mnist", "folder"))
    options = {name: {"shortcut": "A"} for name in PANELS[1]}
    if dataset == "folder":
        iterations = 300 if quick else 600_000
        claims: tuple[Claim, ...] = (Claim("plain34", "plain18", least=0), Claim("resnet34", "resnet18", most=0))
        settings: dict[str, object] = {"eval_every": max(iterations // 60, 100)}
        title = "Figure 4 on ImageNet" + (", cut short" if quick else "")
    else:
        iterations = 300 if quick else 2000
        claims = (
            Claim("plain34", "plain18", least=5 if quick else 2),
            Claim("plain34", "resnet34", least=5 if quick else 2),
            Claim("resnet34", "resnet18", most=4 if quick else 1),
        )
        settings = {"width": 16, "lr": 0.02, "eval_every": 50 if quick else 100, "log_every": 25}
        title = "An analogue of Figure 4: Fashion-MNIST at 28×28, widths 16, 32, 64, 128"
    return Plan(dataset, title, iterations, NETWORKS, settings, claims, options)


def picture(plan: Plan, curves: Sequence[Curve]) -> bytes:
    """Plain networks at the left, residual ones at the right; training error dashed, test error bold; a PNG's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, networks in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
        for network in networks:
            colour = "C3" if network.endswith("34") else "C0"
            own = [curve for curve in curves if curve.network == network]
            plot(axes, own, "training_error", colour, linewidth=1, linestyle="--", label=f"{network}, training")
            plot(axes, own, "test_error", colour, linewidth=2.4, label=f"{network}, test")
        axes.set(xlabel="iterations", ylabel="error (%)", ylim=(0, 100), xlim=(0, plan.iterations))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.legend()
    seeds = len({curve.seed for curve in curves})
    told = f"{seeds} seeds: thin lines, and their mean" if seeds > 1 else "one seed"
    figure.suptitle(f"{plan.title}\n{told}; training error with augmentation, mean since the last point", fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
