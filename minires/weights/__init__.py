"""Weight files of other frameworks: read without them, recognised, loaded, written."""

from minires.weights.file import WeightFile, WeightsError
from minires.weights.loading import load, read_any
from minires.weights.match import Match, WeightsMismatch
from minires.weights.reading import read
from minires.weights.recognise import recognise
from minires.weights.saving import save
from minires.weights.values import impossible

__all__ = [
    "Match",
    "WeightFile",
    "WeightsError",
    "WeightsMismatch",
    "impossible",
    "load",
    "read",
    "read_any",
    "recognise",
    "save",
]
