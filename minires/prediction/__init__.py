"""Classifies pictures: classes and probabilities."""

from minires._lazy import directory
from minires.prediction.classes import read_classes
from minires.prediction.classifier import Classifier, of_run, of_weights
from minires.prediction.figure import annotated, sheet
from minires.prediction.pictures import find_pictures
from minires.prediction.predict import Prediction, predict

__all__ = [
    "Classifier",
    "Prediction",
    "annotated",
    "find_pictures",
    "of_run",
    "of_weights",
    "predict",
    "read_classes",
    "sheet",
]
__dir__ = directory(globals())
