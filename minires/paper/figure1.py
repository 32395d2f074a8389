"""Figure 1, and Figure 6 with the residual networks: the deeper plain network has the larger training error.

On CIFAR-10 it is the paper's experiment.  Offline it is an analogue with a title of its own: Fashion-MNIST averaged to
14×14, widths 8, 16 and 32, lr 0.02 (chosen after seeing results), 2,000 iterations, quick: 300.  These networks are far
from converged.  So the analogue shows slow optimisation; whether the degradation survives convergence stays open.
"""

from __future__ import annotations

from collections.abc import Sequence

from minires._checks import choice
from minires.paper import experiment
from minires.paper.experiment import Claim, Curve, Line, Plan


def plan(dataset: str = "fashion-mnist", *, quick: bool = False, residual: bool = False) -> Plan:
    """The runs of Figure 1: on cifar10 the paper's recipe of 64k iterations, on fashion-mnist a shorter analogue."""
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
    chosen = tuple(claim for claim in claims if {claim.a, claim.b} <= set(networks))
    return Plan(dataset, title, iterations, networks, settings, chosen)


def picture(plan: Plan, curves: Sequence[Curve]) -> bytes:
    """Training error on the left, test error on the right: the bytes of a PNG."""
    panels = []
    for which in ("training_error", "test_error"):
        lines = [Line(network, which, network, f"C{i}") for i, network in enumerate(plan.networks)]
        panels.append((f"{which.replace('_', ' ')} (%)", lines))
    return experiment.picture(plan, curves, panels)
