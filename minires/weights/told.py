"""What is said about a weight file, by its own metadata or by a file beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Told:
    """What names and shapes cannot tell.

    by              who says so: "its metadata", "config.json"
    network         of `models.names()`; None where nothing is said
    options         of `models.create`
    preprocessing   resize, crop, mean, std, interpolation, grey: those that are known
    classes         names of the classes in the order of the outputs
    refused         why the file, whatever its names and shapes, holds no network of minires; "" where nothing is said
    notes           what a reader should know, each in a line
    assumed         "network" and names of options that are no more than what was assumed before
    """

    by: str
    network: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    refused: str = ""
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def known(self) -> Told:
        """Without what was assumed: it may be assumed again, or be said by the caller."""
        options = {name: value for name, value in self.options.items() if name not in self.assumed}
        network = None if "network" in self.assumed else self.network
        return replace(self, network=network, options=options, assumed=())
