"""What the paper published, as data, and what of it can be reproduced: one module a table or figure.

published    the paper's numbers, each with its place in the paper: never mixed with ours
table1       the architectures for ImageNet, with exact multiply-adds
table6       the CIFAR-10 networks: parameters, and the errors of runs where there are any
drawing      any network as in Figure 3, drawn from the model itself
gradients    how gradients change with depth at initialisation, with and without shortcuts and batch norm
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
    "published",
    "report",
    "table1",
    "table6",
]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(__all__, ""))
