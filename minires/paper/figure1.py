"""Figure 1 (and, with the residual networks, Figure 6): the deeper plain network is worse, on training images too.

On CIFAR-10 it is the paper's experiment.  Offline it is an analogue, and says so in its title: Fashion-MNIST averaged
to 14×14, widths 8, 16 and 32, lr 0.02 (chosen after results had been seen), 2,000 or, quick, 300 iterations.  These
networks are far from converged: it shows slow optimisation, not that the degradation survives convergence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from minires._checks import choice
from minires.paper.experiment import Claim, Curve, Plan, plot


def plan(dataset: str = "fashion-mnist", *, quick: bool = False, residual: bool = False) -> Plan:
    """The paper's recipe for cifar10 (64k iterations; quick: 300), the analogue for fashion-mnist."""
    choice(dataset, "data", ("fashion-mnist", "cifar10"))
    networks = ("plain20", "plain56", "resnet20", "resnet56") if residual else ("plain20", "plain56")
    if dataset == "cifar10":
        iterations = 300 if quick else 64_000
        claims = [Claim("plain56", "plain20", least=0), Claim("resnet56", "resnet20", most=0)]
        settings: dict[str, object] = {"eval_every": max(iterations // 64, 100)}
        title = "Figure 1 on CIFAR-10" + (", cut short" if quick else "")
    else:
        iterations = 300 if quick else 2000
        claims = [
            Claim("plain56", "plain20", least=15 if quick else 8),
            Claim("plain20", "resnet20", least=1.5 if quick else 0),
            Claim("resnet56", "resnet20", most=3 if quick else 1, either_way=quick),
        ]
        settings = {"size": 14, "width": 8, "lr": 0.02, "eval_every": 50 if quick else 100, "log_every": 25}
        title = "An analogue of Figure 1: Fashion-MNIST at 14×14, widths 8, 16, 32"
    asked = tuple(claim for claim in claims if {claim.a, claim.b} <= set(networks))
    return Plan(dataset, title, iterations, networks, settings, asked)


def picture(plan: Plan, curves: Sequence[Curve]) -> bytes:
    """Training error at the left, test error at the right: thin lines a seed, bold their mean; the bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, which in zip(panels, ("training_error", "test_error"), strict=True):
        for number, network in enumerate(plan.networks):
            own = [curve for curve in curves if curve.network == network]
            plot(axes, own, which, f"C{number}", linewidth=2.2, label=network)
        axes.set(xlabel="iterations", ylabel=f"{which.replace('_', ' ')} (%)", ylim=(0, 100), xlim=(0, plan.iterations))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.legend()
    seeds = len({curve.seed for curve in curves})
    told = f"{seeds} seeds, bold their mean" if seeds > 1 else "one seed"
    figure.suptitle(f"{plan.title}\n{told}; training error with augmentation, mean since the last point", fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
