"""Files that mean harm: one kind of error, in one line, soon, in little memory, and nothing executed."""

from __future__ import annotations

import os
import time
import tracemalloc

import numpy as np
import pytest
from weights.files import VALID
from weights.hostile import CASES

from minires import weights

MEMORY = 64 << 20  # bytes
SECONDS = 2.0


@pytest.mark.parametrize("name", CASES)
def test_hostile_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where `touch executed` would leave its mark
    content, text = CASES[name]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(weights.WeightsError) as failure:
        weights.read(path)
    seconds = time.process_time() - start
    tracemalloc.start()  # which takes a multiple of the time
    try:
        with pytest.raises(weights.WeightsError):
            weights.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(failure.value)
    assert message.startswith(f"{path}: ")
    assert text in message
    assert message.isprintable()  # one line, and nothing that a terminal obeys
    assert len(message) < len(str(path)) + 400
    assert seconds < SECONDS
    assert peak < MEMORY
    assert os.listdir(tmp_path) == ["x.pth"]


@pytest.mark.parametrize("which", VALID)
def test_files_cut_anywhere(which, tmp_path):
    content = VALID[which]
    path = tmp_path / "x.pth"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(weights.WeightsError):
            weights.read(path)


@pytest.mark.parametrize("which", VALID)
def test_files_with_one_wrong_byte(which, tmp_path, rng):
    """Read or refused.  What is read is well-formed: the checksums of zip archives alone find wrong elements."""
    content = VALID[which]
    path = tmp_path / "x.pth"
    refused = 0
    for place in range(len(content)):
        for flipped in (content[place] ^ int(rng.integers(1, 256)), content[place] ^ 1 << int(rng.integers(8))):
            path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            try:
                found = weights.read(path)
            except weights.WeightsError:
                refused += 1
                continue
            assert found.arrays.keys() == found.stored.keys()
            for name, array in found.arrays.items():
                assert isinstance(name, str)
                assert isinstance(array, np.ndarray)
                assert array.flags.c_contiguous
                assert array.dtype.isnative
            assert sum(array.nbytes for array in found.arrays.values()) < 8 * len(content) + (1 << 20)
    assert refused > len(content) // 2
