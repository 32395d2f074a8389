"""How much memory a training step takes at its peak."""

from __future__ import annotations

import copy
import math
import tracemalloc
from collections.abc import Sequence

import numpy as np

from minires import functional as F
from minires import random
from minires._checks import integer
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, enable_grad, no_grad
from minires.inspect.summary import blank_images, check_input
from minires.nn import Linear, Module, init
from minires.ops import Conv2d
from minires.optim import SGD
from minires.tensor import Tensor


def tried(input_shape: Sequence[int]) -> tuple[int, int]:
    """How many images: two points of a straight line.

    Small images need more of them: among few, gradients of weights make the peak elsewhere than in a real batch.
    """
    return (8, 16) if math.prod(input_shape[1:]) <= 64 * 64 else (2, 4)


def peak_memory(model: Module, input_shape: Sequence[int], batch: int) -> int:
    """Predicted bytes of all arrays at the peak of a training step: weights, gradients, momentum, activations, work.

    input_shape   (C, H, W) of an image, or (features,) of a flat input, without the batch axis

    Two steps with a few images and two with twice as many are run on a copy of the model, NumPy's allocations are
    watched, and the straight line through both peaks is followed: what an image adds, each adds alike.  The model and
    the random generator are left as they were.  What the interpreter and BLAS take comes on top, and what the
    allocator cannot use between arrays: up to a fifth; with the reference backend up to a third, next to nothing where
    the environment has MALLOC_MMAP_THRESHOLD_=131072.  Arrays of NumPy only.
    """
    integer(batch, "batch", 1)
    return PeakMemory(model, input_shape)(batch)


class PeakMemory:
    """`peak_memory` of any number of images, measured once."""

    def __init__(self, model: Module, input_shape: Sequence[int]) -> None:
        check_input(model, input_shape)
        self.model, self.input_shape = model, input_shape
        with init.skipped():
            _measured(Linear(1, 2), (1,), 1)  # a process's first step imports modules, which would count
        a, b = tried(input_shape)
        low, high = (_measured(model, input_shape, images) for images in (a, b))
        self.per_image = (high - low) / (b - a)
        self.of_none = low - self.per_image * a

    def __call__(self, batch: int) -> int:
        integer(batch, "batch", 1)
        return int(self.of_none + self.per_image * batch) + _held_by_kernels(self.model, self.input_shape, batch)

    def largest_batch(self, limit: int) -> int:
        """The most images whose peak is within the limit, in bytes; 0 where that of one is not."""
        if self(1) > integer(limit, "limit", 0, 2**50):
            return 0
        fits, too_many = 1, 2 + int((limit - self.of_none) / max(self.per_image, 1))
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self(middle) <= limit else (fits, middle)
        return fits


class _Working(Observer):
    """The most that the backend's kernels hold beside arrays for any one convolution of a forward pass."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.bytes = 0

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        measure = getattr(node.backend, "conv2d_working_bytes", None)
        if isinstance(node, Conv2d) and measure is not None:
            x, w = arrays[:2]
            shape = (self.batch, *x.shape[1:])  # type: ignore[union-attr]
            self.bytes = max(self.bytes, measure(shape, w, *node.geometry))


def _held_by_kernels(model: Module, input_shape: Sequence[int], batch: int) -> int:
    """It is not in proportion to the images: with more of them another algorithm may be the faster one."""
    with no_grad(), np.errstate(all="ignore"), _Working(batch) as working:
        copy.deepcopy(model).eval()(Tensor(blank_images(model, input_shape, 1)))
    return int(working.bytes)


def _measured(model: Module, input_shape: Sequence[int], batch: int) -> int:
    images = Tensor(blank_images(model, input_shape, batch))
    outer = random.generator().bit_generator.state
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        own = copy.deepcopy(model).train()
        sgd = SGD(own.parameters(), 0.0, 0.9)
        with enable_grad(), np.errstate(all="ignore"):
            for _ in range(2):  # the second has the momentum of the first
                sgd.zero_grad()
                F.cross_entropy(own(images), np.zeros(batch, np.int64)).backward()
                sgd.step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()
        random.generator().bit_generator.state = outer
