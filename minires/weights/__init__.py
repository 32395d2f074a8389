"""Weight files of other frameworks."""

from minires.weights.file import WeightFile, WeightsError
from minires.weights.reading import read

__all__ = ["WeightFile", "WeightsError", "read"]
