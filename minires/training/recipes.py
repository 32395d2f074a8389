"""The default settings of each data set and network.

All other settings have the paper's values (section 4.2) as defaults of `Config`: momentum 0.9, weight decay 1e-4, batch
128, lr 0.1, divided by 10 at 50 % and at 75 % of the iterations.
"""

from __future__ import annotations

from typing import Any

from minires._checks import instance

RECIPES: dict[str, dict[str, Any]] = {
    # 1,433 images of 8×8: about a minute on two cores.
    "digits": {"epochs": 60},
    # 60,000 images of 28×28: some hours on two cores.
    "fashion-mnist": {"epochs": 30},
    # The paper: 64k iterations, lr divided at 32k and at 48k.
    "cifar10": {"iterations": 64_000},
    # ImageNet's layout (section 3.4): batch 256.  The paper divides lr on plateaus; these are the usual 90 epochs.
    "folder": {"epochs": 90, "batch_size": 256, "milestones": (1 / 3, 2 / 3)},
}

# "We use 0.01 to warm up the training until the training error is below 80 %": the paper on its 110-layer network.
NETWORK_RECIPES: dict[str, dict[str, Any]] = {"resnet110": {"warmup": "error"}}


def recipe(network: str, data: str) -> dict[str, Any]:
    """The default settings of `Config` for a network and a data set."""
    instance(network, "network", str)
    instance(data, "data", str)
    return {**RECIPES.get(data, {}), **NETWORK_RECIPES.get(network, {})}
