"""Figure 4: 18 and 34 layers.  The deeper plain network is worse; the deeper residual network is not.

On ImageNet (`folder`) it is the paper's experiment.  Offline it is an analogue with a title of its own: the same
networks on Fashion-MNIST at 28×28, a quarter of the widths, lr 0.02, 2,000 iterations, quick: 300.  The rate and the
margins were chosen after seeing results.  So short a run shows that depth does not hurt a residual network, but not
that depth helps, as it does on ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence

from minires._checks import choice
from minires.paper import experiment
from minires.paper.experiment import Claim, Curve, Line, Plan

PANELS = (("plain18", "plain34"), ("resnet18", "resnet34"))
NETWORKS = tuple(name for pair in PANELS for name in pair)


def plan(dataset: str = "fashion-mnist", *, quick: bool = False) -> Plan:
    """The paper's 600k iterations on folder (quick: 300), or the analogue on fashion-mnist.

    The residual networks have shortcuts A, so they have the parameters of the plain networks, as in the paper's figure.
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
    """Plain networks on the left, residual on the right; training error dashed, test error bold: a PNG's bytes."""
    panels = []
    for networks in PANELS:
        lines = []
        for network in networks:
            colour = "C3" if network.endswith("34") else "C0"
            lines.append(Line(network, "training_error", f"{network}, training", colour, 1, "--"))
            lines.append(Line(network, "test_error", f"{network}, test", colour))
        panels.append(("error (%)", lines))
    return experiment.picture(plan, curves, panels)
