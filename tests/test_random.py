"""Random numbers that do not depend on who draws them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minires import random
from minires.parallel import Shard


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shards_draw_their_part_of_the_whole(shape, size):
    random.manual_seed(5)
    whole, next_one = random.uniform(shape), random.uniform((4,))
    state = random.generator().bit_generator.state
    parts = []
    for rank in range(size):
        shard = Shard.of(shape[0], rank, size)
        random.manual_seed(5)
        with shard.drawing():
            parts.append(random.uniform((shard.size, *shape[1:])))
        np.testing.assert_array_equal(random.uniform((4,)), next_one)
        assert random.generator().bit_generator.state == state
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_shape_that_is_no_part_of_the_batch():
    with Shard(0, 2, 5).drawing(), pytest.raises(ValueError, match=r"must begin with the 2 images"):
        random.uniform((3, 2))


def test_each_thread_has_its_own_generator():
    random.manual_seed(1)
    expected = random.uniform((3,))
    random.manual_seed(1)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(random.manual_seed, 2).result()
    np.testing.assert_array_equal(random.uniform((3,)), expected)


def test_a_share_within_a_share_ends():
    with Shard(1, 3, 5).drawing():
        random.manual_seed(5)
        expected = random.uniform((2, 4))
        with Shard(0, 1, 7).drawing():
            random.uniform((1, 4))
        random.manual_seed(5)
        np.testing.assert_array_equal(random.uniform((2, 4)), expected)
