"""What a weight file was recognised as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minires import models
from minires._checks import instance
from minires.arrays import Array
from minires.weights.file import WeightFile, plain

_SHOWN = 3  # differences of a kind that a message lists


class WeightsMismatch(ValueError):
    """A readable weight file that does not fit a network of minires, or not the one that was asked for."""


@dataclass(frozen=True)
class Match:
    """A network of minires, and how far a weight file fits it.

    network         of `models.names()`
    options         of `models.create`: what is known of them
    convention      whose names these are
    names           name in the network's state dict -> name in the file
    missing         names that the network wants and the file lacks
    left_over       names in the file that nothing wants; counters of batches and, in minires' own checkpoints, what the
                    optimiser keeps are passed over
    undecided       "stride_in", "zero_channels", "network": what neither names nor shapes nor anything beside the file
                    tell.  The first must be said; the others have a usual value, which `options` and `network` hold
    preprocessing   what the file says of it: resize, crop, mean, std, interpolation, grey, as far as it does
    prefix          what every name in the file begins with, such as "module."; "" for nothing
    different       what does not fit otherwise, each in a line
    classes         their names, where the file tells
    notes           reasons for what was chosen, each in a line
    hint            what kind of network it rather is, where that is known
    """

    network: str
    options: dict[str, Any]
    convention: str
    names: dict[str, str]
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    different: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""

    @property
    def complete(self) -> bool:
        """Whether the file holds exactly this network."""
        return not (self.missing or self.left_over or self.different)

    def __repr__(self) -> str:
        usual = models.options(self.network)
        chosen = "".join(f", {k}={v!r}" for k, v in self.options.items() if k not in usual or usual[k] != v)
        fit = "complete" if self.complete else self.differences()
        open_ = f"; undecided: {', '.join(self.undecided)}" if self.undecided else ""
        return f"<{self.network}{chosen}: {len(self.names)} arrays in the names of {self.convention}, {fit}{open_}>"

    def differences(self) -> str:
        """The first few of each kind, in one line."""
        parts = [_counted(self.different, "difference")] if self.different else []
        if self.missing:
            parts.append(_counted(self.missing, "missing name"))
        if self.left_over:
            parts.append(_counted(self.left_over, "name left over", "names left over"))
        return "; ".join(parts) + (f" ({self.hint})" if self.hint else "")

    def state_dict(self, file: WeightFile) -> dict[str, Array]:
        """The arrays of the file in the network's names and shapes; not copies."""
        instance(file, "file", WeightFile)
        state = {ours: file.arrays[theirs] for ours, theirs in self.names.items()}
        # timm's VGG holds linear layers as convolutions
        linear = {name for name in state if name.startswith("classifier.") and state[name].ndim == 4}
        return {name: a.reshape(len(a), -1) if name in linear else a for name, a in state.items()}


STRIDE_IN = (
    'names and shapes do not tell where its bottlenecks have the stride: say stride_in (--stride-in) "3x3" for weights '
    'of torchvision and timm, "1x1" for the paper\'s and its Caffe weights'
)


def _counted(lines: Sequence[str], one: str, many: str = "") -> str:
    shown = ", ".join(map(plain, lines[:_SHOWN])) + (", …" if len(lines) > _SHOWN else "")
    return f"{len(lines)} {one if len(lines) == 1 else many or one + 's'}: {shown}"
