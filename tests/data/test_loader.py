"""The loader: every image once, the same batches whatever the workers and wherever it starts, nothing left running."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.data import Augmentation, Dataset, FolderImages, Loader, Transform, loader


def numbered(n):
    """n images of 4×3, each filled with its own number; its label is its number modulo 7."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 4, 3, 1))
    return Dataset("numbers", "train", images, np.arange(n) % 7, tuple("abcdefg"))


def numbers(batches):
    return [np.rint(x[:, 0, 0, 0] * 255).astype(int).tolist() for x, _ in batches]


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 8, [3]), (1, 4, [1]), (5, 1, [1] * 5), (4, 3, [4])],
)
def test_an_epoch_holds_every_image_once(n, batch, sizes):
    batches = Loader(numbered(n), batch, seed=3)
    assert len(batches) == len(sizes)
    assert [len(labels) for _, labels in batches.epoch()] == sizes
    assert [batches.images_of(i) for i in range(2 * len(sizes))] == sizes * 2
    assert list(itertools.chain(*numbers(batches.epoch()))) == list(range(n))
    epochs = list(itertools.islice(batches.iterate(), 2 * len(sizes)))
    for epoch in (epochs[: len(sizes)], epochs[len(sizes) :]):
        assert [len(labels) for _, labels in epoch] == sizes
        assert sorted(itertools.chain(*numbers(epoch))) == list(range(n))
        for x, labels in epoch:
            np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255).astype(int) % 7, labels)


def test_order():
    first, second = (list(itertools.islice(Loader(numbered(50), 50, seed=s).iterate(), 2)) for s in (0, 1))
    orders = list(itertools.chain(*numbers(first + second)))
    assert len({tuple(orders[i : i + 50]) for i in range(0, 200, 50)}) == 4  # every epoch, every seed its own
    plain = Loader(numbered(50), 50, shuffle=False)
    assert numbers(itertools.islice(plain.iterate(), 2)) == [list(range(50))] * 2


def test_batches_do_not_depend_on_workers_or_start(rng):
    images = rng.integers(0, 256, (23, 8, 8, 1)).astype(np.uint8)
    dataset = Dataset("noise", "train", images, np.arange(23) % 3, tuple("abc"))
    transform = Transform(data.pixel_mean(dataset), Augmentation(pad=2, flip=True, rotate=10, shift=1.0))
    expected = list(itertools.islice(Loader(dataset, 5, transform=transform, seed=7, workers=0).iterate(), 14))
    for workers, start in itertools.product((0, 1, 4), (0, 1, 6)):
        batches = Loader(dataset, 5, transform=transform, seed=7, workers=workers)
        found = list(itertools.islice(batches.iterate(start), 14 - start))
        for (x, labels), (y, others) in zip(found, expected[start:], strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(labels, others)
    assert not np.array_equal(expected[0][0], expected[5][0])


def test_folders_too(tmp_path, rng):
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(paths[-1])
    dataset = Dataset("folder", "train", FolderImages(paths, 8), np.zeros(6, int), ("a",))
    one, other = (list(itertools.islice(Loader(dataset, 4, seed=1, workers=w).iterate(), 4)) for w in (0, 3))
    for (x, _), (y, _) in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.shape[1:] == (3, 8, 8)


def test_every_epoch_is_augmented_anew(rng):
    images = rng.integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    dataset = Dataset("noise", "train", images, np.zeros(6, int), ("a",))
    transform = Transform(None, Augmentation(rotate=90))
    batches = Loader(dataset, 3, transform=transform, shuffle=False).iterate()
    first, _, again = (x for x, _ in itertools.islice(batches, 3))  # again: the first batch of the second epoch
    assert not np.array_equal(first, again)


def test_evaluation_is_not_augmented(tmp_path, rng):
    images = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    Image.fromarray(rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    folder = FolderImages([tmp_path / "x.png"] * 5, 8)
    for source, plain in ((images, images), (folder, np.stack([folder.read(i) for i in range(5)]))):
        dataset = Dataset("noise", "test", source, np.zeros(5, int), ("a",))
        transform = Transform(None, Augmentation(pad=2, flip=True, rotate=10))
        (x, _), (y, _) = Loader(dataset, 3, transform=transform).epoch()
        np.testing.assert_array_equal(np.concatenate([x, y]), Transform()(plain))


def test_the_pictures_of_a_batch_are_cut_independently(tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    dataset = Dataset("folder", "train", FolderImages([tmp_path / "x.png"] * 6, 8), np.zeros(6, int), ("a",))
    x, _ = next(Loader(dataset, 6, workers=0).iterate())
    assert len({image.tobytes() for image in x}) > 1


def test_a_share_has_its_own_labels():
    """Places in any order."""
    whole = Loader(numbered(10), 5, seed=2).iterate()
    mine = Loader(numbered(10), 5, seed=2, share=lambda N: np.arange(N)[::-2]).iterate()
    for (x, labels), (y, others) in itertools.islice(zip(whole, mine, strict=True), 4):
        np.testing.assert_array_equal(y, x[::-2])
        np.testing.assert_array_equal(others, labels[::-2])


def test_two_batches_are_prepared_ahead(monkeypatch):
    class AtOnce:
        """A pool that does what it is given before it answers."""

        def __init__(self, workers, name):
            pass

        def submit(self, function, *arguments):
            done = Future()
            done.set_result(function(*arguments))
            return done

        def shutdown(self, **how):
            pass

    prepared = []

    def transform(images, rng, part):
        prepared.append(len(images))
        return Transform()(images, rng, part)

    monkeypatch.setattr(loader, "ThreadPoolExecutor", AtOnce)
    batches = Loader(numbered(50), 2, transform=transform).iterate()
    for given in (1, 2, 3):
        next(batches)
        assert len(prepared) == given + 2


def running():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("minires-")]


def test_an_error_in_a_worker_reaches_the_caller(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (20, 20)).save(good)
    bad.write_text("not an image")
    dataset = Dataset("folder", "train", FolderImages([good] * 9 + [bad], 8), np.zeros(10, int), ("a",))
    batches = Loader(dataset, 2, workers=3).epoch()
    with pytest.raises(data.DataFileError, match=r"bad\.png"):
        list(batches)
    assert running() == []


def test_closing_early_leaves_no_thread():
    batches = Loader(numbered(50), 2, workers=3).iterate()
    next(batches)
    assert running()
    batches.close()
    assert running() == []


def test_wrong_arguments():
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2.0}, "batch_size must be an integer"),
        ({"batch_size": 2, "seed": -1}, "seed must be at least 0"),
        ({"batch_size": 2, "workers": -1}, "workers must be at least 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Loader(numbered(3), **options)
    with pytest.raises(data.DataError, match="has no images"):
        Loader(numbered(0), 2)
    with pytest.raises(ValueError, match="start_iteration must be at least 0"):
        Loader(numbered(3), 2).iterate(-1)
