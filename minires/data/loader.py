"""Batches that depend only on the seed and the iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from minires._checks import flag, instance, integer
from minires._repr import shown
from minires.data.augment import Part, Transform
from minires.data.dataset import Dataset
from minires.data.errors import DataError
from minires.data.images import FolderImages

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


class Loader:
    """Turns a data set into batches: x float32 (N, C, H, W), labels int64 (N,).

    batch_size   images in a batch.  The last batch of an epoch holds the remainder; a remainder of one image joins the
                 batch before it (batch norm cannot be trained on one image)
    transform    makes x from the stored images; default: scaling to [0, 1]
    seed         (seed, e) determines the order of epoch e, (seed, i) the augmentation of iteration i: a run resumed at
                 any iteration gets the same batches, for any number of workers
    shuffle      False: every epoch in the stored order
    workers      threads that decode images and prepare the next two batches; 0: no threads
    share        the places in a batch of N images that this process prepares, in the order of its own batch; each image
                 is identical to the image in the whole batch.  None: all
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Transform | None = None,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 2,
        share: Callable[[int], NDArray[np.intp]] | None = None,
    ) -> None:
        if len(instance(dataset, "dataset", Dataset)) == 0:
            raise DataError(f"data set {dataset.name!r} ({dataset.split}) has no images")
        self.dataset = dataset
        self.batch_size = integer(batch_size, "batch_size", 1)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be a Transform, got {shown(transform)}")
        self.transform = Transform() if transform is None else transform
        self.seed = integer(seed, "seed", 0)
        self.shuffle = flag(shuffle, "shuffle")
        self.workers = integer(workers, "workers", 0)
        if share is not None and not callable(share):
            raise TypeError(f"share must be a function of the batch's size, got {shown(share)}")
        self.share = np.arange if share is None else share

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.dataset.shape

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return max(full + (rest > 1 or (rest == 1 and self.batch_size == 1)), 1)

    def images_of(self, iteration: int) -> int:
        """Number of images in the whole batch of an iteration."""
        integer(iteration, "iteration", 0)
        return self._end(iteration % len(self)) - iteration % len(self) * self.batch_size

    @property
    def largest_batch(self) -> int:
        """Number of images in the largest batch of an epoch."""
        return max(self.images_of(0), self.images_of(len(self) - 1))

    def iterate(self, start_iteration: int = 0) -> Iterator[Batch]:
        """Endless augmented training batches from the given iteration."""
        integer(start_iteration, "start_iteration", 0)

        def plans() -> Iterator[tuple[NDArray[np.intp], tuple[int, ...]]]:
            iteration = start_iteration
            while True:
                epoch, position = divmod(iteration, len(self))
                order = self._order(epoch)
                for batch in range(position, len(self)):
                    yield self._slice(order, batch), (self.seed, 1, iteration)
                    iteration += 1

        return self._batches(plans())

    def epoch(self) -> Iterator[Batch]:
        """Every image once, in the stored order and without augmentation, for evaluation."""
        order = np.arange(len(self.dataset))
        return self._batches((self._slice(order, batch), None) for batch in range(len(self)))

    def _order(self, epoch: int) -> NDArray[np.intp]:
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.dataset))

    def _slice(self, order: NDArray[np.intp], batch: int) -> NDArray[np.intp]:
        return order[batch * self.batch_size : self._end(batch)]

    def _end(self, batch: int) -> int:
        return len(self.dataset) if batch == len(self) - 1 else (batch + 1) * self.batch_size

    def _batches(self, plans: Iterator[tuple[NDArray[np.intp], tuple[int, ...] | None]]) -> Iterator[Batch]:
        if self.workers == 0:
            for indices, seed in plans:
                yield self._prepare(indices, seed, None)
            return
        # One thread makes the batches in order, the others decode the images within them.
        decoders = ThreadPoolExecutor(self.workers, "minires-decode")
        maker = ThreadPoolExecutor(1, "minires-batch")
        ahead: deque[Future[Batch]] = deque()
        try:
            for indices, seed in plans:
                ahead.append(maker.submit(self._prepare, indices, seed, decoders))
                if len(ahead) > 2:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            maker.shutdown(wait=True, cancel_futures=True)
            decoders.shutdown(wait=True, cancel_futures=True)

    def _prepare(
        self, indices: NDArray[np.intp], seed: tuple[int, ...] | None, decoders: ThreadPoolExecutor | None
    ) -> Batch:
        images, part = self.dataset.images, Part(self.share(len(indices)), len(indices))
        own = indices[part.places]
        if isinstance(images, FolderImages):
            folder = images

            def read(place: int) -> NDArray[np.uint8]:
                rng = None if seed is None else np.random.default_rng((*seed, 1, place))
                return folder.read(int(indices[place]), rng)

            places = part.places.tolist()
            batch = np.stack(list(decoders.map(read, places) if decoders else map(read, places)))
        else:
            batch = images[own]
        x = self.transform(batch, None if seed is None else np.random.default_rng((*seed, 0)), part)
        return x, self.dataset.labels[own]
