"""What a network made of training images before it was updated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Sums over images.

    loss     of the cross-entropy
    wrong    images whose label is not the highest logit
    images   how many
    """

    loss: float = 0.0
    wrong: int = 0
    images: int = 0

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.loss + other.loss, self.wrong + other.wrong, self.images + other.images)
