"""Predicts the classes of pictures, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minires import _checks
from minires._checks import integer
from minires.data import DataFileError
from minires.nn import Module
from minires.nn.module import evaluating
from minires.prediction.classifier import Classifier
from minires.training.evaluation import predict as logits_of

Cut = NDArray[np.uint8] | DataFileError


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one picture.

    path            the picture's file
    picture         (H, W, C) uint8: the part of it that the network received
    probabilities   (classes,) float64, summing to 1
    """

    path: Path
    picture: NDArray[np.uint8]
    probabilities: NDArray[np.float64]

    def __repr__(self) -> str:
        best = ", ".join(f"class {index}: {100 * probability:.1f} %" for index, probability in self.top(3))
        return f"<{self.path}: {best}>"

    def top(self, k: int) -> list[tuple[int, float]]:
        """The k most probable classes and their probabilities; among equals the lower number comes first."""
        best = np.argsort(-self.probabilities, kind="stable")[: integer(k, "k", 1)]
        return [(int(index), float(self.probabilities[index])) for index in best]


def predict(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 32, workers: int = 2
) -> Iterator[Prediction | DataFileError]:
    """One result a path, in order: a Prediction, or the error of a file that cannot be decoded.

    workers   threads that decode the next batch while the network computes; 0: the caller's thread decodes

    At most two batches of pictures are in memory.  Raises Diverged if the network's outputs are not finite.
    """
    if not hasattr(classifier, "preprocessing") or not hasattr(classifier, "model"):
        raise TypeError(f"classifier must be a Classifier, got {type(classifier).__name__}")
    paths = [_checks.path(path, "paths") for path in _checks.iterable(paths, "paths", "paths of pictures")]
    integer(batch_size, "batch_size", 1)
    integer(workers, "workers", 0, 256)
    if isinstance(classifier.model, Module):
        classifier.model.fuse(training=True)  # faster and bit-identical
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    for batch, cuts in zip(batches, _decoded(classifier, batches, workers), strict=True):
        whole = [cut for cut in cuts if not isinstance(cut, DataFileError)]
        rows = iter(_probabilities(classifier, np.stack(whole)) if whole else ())
        for path, cut in zip(batch, cuts, strict=True):
            yield cut if isinstance(cut, DataFileError) else Prediction(path, cut, next(rows))


def _decoded(classifier: Classifier, batches: Sequence[Sequence[Path]], workers: int) -> Iterator[list[Cut]]:
    """The results of `_cut`, a batch at a time; threads already decode the next batch."""
    if workers == 0:
        yield from ([_cut(classifier, path) for path in batch] for batch in batches)
        return
    pool = ThreadPoolExecutor(workers, "minires-decode")
    try:
        ahead: list[Future[Cut]] = []
        for batch in (*batches, ()):
            ready, ahead = ahead, [pool.submit(_cut, classifier, path) for path in batch]
            if ready:
                yield [future.result() for future in ready]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cut(classifier: Classifier, path: Path) -> Cut:
    try:
        return classifier.preprocessing.cut(path)
    except DataFileError as error:
        return error


def _probabilities(classifier: Classifier, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, H, W, C) -> (N, classes): softmax in float64, for any dtype of the network."""
    with evaluating(classifier.model):
        logits = logits_of(classifier.model, classifier.preprocessing.normalise(pictures)).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
