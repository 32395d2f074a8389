"""The paper's published numbers, and reproductions of its tables and figures: one module each.

published    the paper's numbers, each with its place in the paper, apart from computed ones
table1       the architectures for ImageNet, with exact multiply-adds
table6       the CIFAR-10 networks: parameters, and the errors of finished runs
figure1, 4   networks trained side by side, by `experiment`
figure7      standard deviations of the layers' responses
drawing      Figure 3, and any other network, drawn from the model
gradients    gradients over depth at initialisation, with and without shortcuts and batch norm
items        the options and the `report` of each of them
page         the paper section by section, beside the code and what it computed
"""

from typing import TYPE_CHECKING

from minires._lazy import directory, loader

if TYPE_CHECKING:
    from minires.paper import (
        drawing,
        experiment,
        figure1,
        figure4,
        figure7,
        gradients,
        items,
        page,
        published,
        report,
        table1,
        table6,
    )

__all__ = [
    "drawing",
    "experiment",
    "figure1",
    "figure4",
    "figure7",
    "gradients",
    "items",
    "page",
    "published",
    "report",
    "table1",
    "table6",
]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(__all__, ""))
