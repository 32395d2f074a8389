"""Predicts the peak memory of a training step."""

from __future__ import annotations

import copy
import gc
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


def peak_memory(model: Module, input_shape: Sequence[int], batch: int) -> int:
    """Predicted bytes of all arrays at the peak of a training step.

    These are weights, gradients, momentum, activations and the kernels' working memory.

    input_shape   (C, H, W) of an image, or (features,) of a flat input, without the batch axis

    A copy of the model makes two steps with a few images and two steps with twice as many, while NumPy's allocations
    are measured.  The prediction is the straight line through both peaks, as every image adds the same.  The model and
    the random generator keep their state.  The interpreter, BLAS and the allocator's fragmentation take more memory:
    up to a fifth, with the reference backend up to a third.  With MALLOC_MMAP_THRESHOLD_=131072 in the environment,
    the reference backend's fragmentation nearly vanishes.  Only for arrays of NumPy.
    """
    integer(batch, "batch", 1)
    return PeakMemory(model, input_shape)(batch)


class PeakMemory:
    """`peak_memory` for any batch, measured once."""

    def __init__(self, model: Module, input_shape: Sequence[int]) -> None:
        check_input(model, input_shape)
        self.model, self.input_shape = model, input_shape
        with init.skipped():
            _measured(Linear(1, 2), (1,), 1)  # the first step of a process imports modules, which would count
        # Two points of a line.  Few small images have the peak at the weights' gradients, unlike a real batch.
        a, b = (8, 16) if math.prod(input_shape[1:]) <= 64 * 64 else (2, 4)
        low, high = (_measured(model, input_shape, images) for images in (a, b))
        self.per_image = (high - low) / (b - a)
        self.of_none = low - self.per_image * a

    def __call__(self, batch: int) -> int:
        integer(batch, "batch", 1)
        return int(self.of_none + self.per_image * batch) + _held_by_kernels(self.model, self.input_shape, batch)

    def largest_batch(self, limit: int) -> int:
        """The largest batch whose peak is within the limit in bytes; 0 if one image exceeds it."""
        if self(1) > integer(limit, "limit", 0, 2**50):
            return 0
        fits, too_many = 1, 2 + int((limit - self.of_none) / max(self.per_image, 1))
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self(middle) <= limit else (fits, middle)
        return fits


class _Working(Observer):
    """The largest working memory of the backend's kernels in any convolution of a forward pass."""

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
    """Not proportional to the batch: with more images, kernels may choose another algorithm."""
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
        gc.collect()  # older garbage that goes during the steps would hide a part of their memory
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
