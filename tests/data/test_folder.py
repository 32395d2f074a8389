"""Folders of images: classes, decoding, crops, and files that are no images."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.cli import main
from minires.data import FolderImages, folder
from minires.training import find_checkpoint, load_checkpoint


def picture(path, size=(300, 200), colour=(200, 30, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for name, colour in (("zebra", (250, 250, 250)), ("ape", (10, 10, 10))):
            for i in range(3):
                picture(tmp_path / split / name / f"{i}.{'png' if i else 'JPEG'}", colour=colour)
    (tmp_path / "train" / "ape" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def test_layout(root):
    train, test = data.load("folder", "train", root), data.load("folder", "test", root)
    assert train.classes == test.classes == ("ape", "zebra")
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1])
    assert train.shape == (3, 224, 224)
    assert [train.images.read(i).mean() > 128 for i in range(6)] == [False] * 3 + [True] * 3
    assert data.load("folder", "train", root, size=64).images.read(0).shape == (64, 64, 3)
    assert data.find("folder", root) == root


@pytest.mark.parametrize("size", [(512, 256), (256, 512), (256, 256), (1000, 300)])
def test_centre_crop(tmp_path, size):
    """A white square whose centre is the picture's stays in the middle, scaled so that the shorter side is 256."""
    image = Image.new("RGB", size)
    half = min(size) // 8
    centre = size[0] // 2, size[1] // 2
    image.paste((255, 255, 255), (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half))
    image.save(tmp_path / "x.png")
    seen = FolderImages([tmp_path / "x.png"]).read(0)[:, :, 0] > 128
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    for found in (rows, columns):
        assert abs(found.mean() - 111.5) <= 1
        assert abs(len(found) - 64) <= 2


@pytest.mark.parametrize("crop", ["scale-jitter", "random-resized"])
def test_random_crops_come_from_the_generator(tmp_path, rng, crop):
    noise = rng.integers(0, 256, (100, 150, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    images = FolderImages([tmp_path / "x.png"], 32, crop)
    first, again, other = (images.read(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (32, 32, 3)


def test_a_picture_thinner_than_any_part(tmp_path):
    picture(tmp_path / "x.png", (1, 500))
    for crop in ("scale-jitter", "random-resized"):
        assert FolderImages([tmp_path / "x.png"], 8, crop).read(0, np.random.default_rng(0)).shape == (8, 8, 3)


class Extreme(np.random.Generator):
    """Draws the smallest or the largest number of every range; the middle of a continuous one."""

    def __init__(self, largest):
        super().__init__(np.random.PCG64(0))
        self.largest = largest

    def integers(self, low, high=None):
        low, high = (0, low) if high is None else (low, high)
        return high - 1 if self.largest else low

    def random(self):
        return np.nextafter(1, 0) if self.largest else 0.0

    def uniform(self, low, high):
        return (low + high) / 2


@pytest.mark.parametrize(("largest", "side"), [(False, 32), (True, 60)])  # 256/224 and 480/224 of 28
def test_scale_jitter_reaches_both_ends_of_the_papers_range(tmp_path, rng, largest, side):
    picture = Image.fromarray(rng.integers(0, 256, (100, 150, 3)).astype(np.uint8))
    picture.save(tmp_path / "x.png")
    scaled = np.asarray(picture.resize((side * 3 // 2, side), Image.Resampling.BILINEAR))
    corner = scaled[-28:, -28:] if largest else scaled[:28, :28]
    np.testing.assert_array_equal(FolderImages([tmp_path / "x.png"], 28).read(0, Extreme(largest)), corner)


@pytest.mark.parametrize("largest", [False, True])
def test_a_random_part_reaches_every_corner(tmp_path, rng, largest):
    picture = Image.fromarray(rng.integers(0, 256, (100, 100, 3)).astype(np.uint8))
    picture.save(tmp_path / "x.png")
    box = (27, 27, 100, 100) if largest else (0, 0, 73, 73)  # 54 % of the area, a square
    part = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR, box=box))
    images = FolderImages([tmp_path / "x.png"], 8, "random-resized")
    np.testing.assert_array_equal(images.read(0, Extreme(largest)), part)


def test_where_no_part_fits_it_is_the_square_in_the_middle(tmp_path):
    rows = np.arange(201, dtype=np.uint8)[:, None, None]
    Image.fromarray(np.broadcast_to(rows, (201, 2, 3)).copy()).save(tmp_path / "x.png")  # no aspect ratio of 3/4
    part = FolderImages([tmp_path / "x.png"], 2, "random-resized").read(0, Extreme(True))
    np.testing.assert_array_equal(part[:, :, 0], [[99, 99], [100, 100]])


def test_a_slice_keeps_size_and_crop(tmp_path):
    images = FolderImages([tmp_path / f"{i}.png" for i in range(4)], 8, "random-resized")[1:3]
    assert (len(images), images.shape[1:], images.crop) == (2, (8, 8, 3), "random-resized")
    assert [path.name for path in images.paths] == ["1.png", "2.png"]


def test_broken_layouts(root, tmp_path, monkeypatch):
    with pytest.raises(data.DataError, match="no folder train"):
        folder.load("train", tmp_path / "nothing")
    (root / "val" / "unicorn").mkdir()
    with pytest.raises(data.DataError, match="class 'unicorn' does not occur in the training images"):
        folder.load("test", root)
    (root / "train" / "unicorn").mkdir()
    with pytest.raises(data.DataError, match=r"unicorn: no images"):
        folder.load("train", root)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(data.DataError, match="no class folders"):
        folder.load("train", tmp_path / "empty")
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    with pytest.raises(data.DataError, match="--data-dir"):
        folder.load("train")
    with pytest.raises(ValueError, match="crop must be one of"):
        FolderImages([], crop="centre")


def random_parts(count=4000):
    """(w, h) of random parts of a large square, of which nearly all fit."""

    class Canvas:
        size = (100_000, 100_000)

        def resize(self, size, how, box):
            sizes.append((box[2] - box[0], box[3] - box[1]))

    sizes = []
    images, rng = FolderImages([], 8, "random-resized"), np.random.default_rng(0)
    for _ in range(count):
        images._random_part(Canvas(), rng)
    return np.array(sizes)


def test_aspect_ratios_are_uniform_in_their_logarithm():
    """So that 3/4 is as likely as 4/3.  Uniform ratios would have a mean logarithm of 0.0274 instead of 0."""
    w, h = random_parts().T
    logarithms = np.log(w / h)
    edge = np.log(4 / 3)
    assert np.abs(logarithms).max() <= edge + 1e-4
    # The standard deviation of the mean is edge / √3 / √4000 = 0.0026.
    assert abs(logarithms.mean()) < 5 * edge / np.sqrt(3 * len(w))
    assert 5 * edge / np.sqrt(3 * len(w)) < 0.0274


@pytest.mark.parametrize("plant", ["fifo", "device", "dangling link", "folder"])
def test_special_files_are_refused_at_once(root, plant):
    path = root / "val" / "ape" / "9.png"
    if plant == "fifo":
        os.mkfifo(path)
    elif plant == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if plant == "device" else "nowhere")
    with pytest.raises(data.DataFileError, match=r"9\.png: not a regular file"):
        data.load("folder", "test", root)
    with pytest.raises(data.DataFileError, match=r"9\.png"):
        FolderImages([path]).read(0)


@pytest.fixture
def undivided(tmp_path):
    for name, count in (("ape", 10), ("bee", 5), ("cat", 2)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", (9, 8))
    return tmp_path


def test_a_folder_of_classes_is_divided(undivided):
    def load(split, seed=0, fraction=0.2):
        found = data.load("folder", split, undivided, size=8, test_fraction=fraction, seed=seed)
        return found, {f"{path.parent.name}/{path.name}" for path in found.images.paths}

    (train, training), (test, testing) = load("train"), load("test")
    assert train.classes == test.classes == ("ape", "bee", "cat")
    assert np.bincount(test.labels).tolist() == [2, 1, 1]  # one at least
    assert np.bincount(train.labels).tolist() == [8, 4, 1]
    assert not training & testing
    assert len(training | testing) == 17
    assert train.images.paths == tuple(sorted(train.images.paths))
    assert load("test")[1] == testing
    assert any(load("test", seed)[1] != testing for seed in (1, 2, 3))
    # Another class's images do not move a class's own.
    picture(undivided / "ape" / "10.png", (9, 8))
    assert {name for name in load("test")[1] if "ape" not in name} == {name for name in testing if "ape" not in name}
    with pytest.raises(data.DataError, match=r"cat: test_fraction 0\.9 takes 2 of 2 images"):
        load("train", fraction=0.9)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_folder_that_is_divided_already(undivided, name):
    (undivided / name).mkdir()
    with pytest.raises(data.DataError, match=f"has a folder {name}, which test_fraction cannot divide"):
        data.load("folder", "train", undivided, test_fraction=0.2)


def test_errors_about_the_test_fraction(undivided):
    with pytest.raises(data.DataError, match=r"no folder train .*; --test-fraction 0\.2 divides a folder of classes"):
        data.load("folder", "train", undivided)
    with pytest.raises(ValueError, match="test_fraction cannot be chosen for 'digits'"):
        data.load("digits", "train", test_fraction=0.2)


def test_training_on_a_divided_folder_and_resuming(undivided, tmp_path, capsys):
    words = ["--data", "folder", "--data-dir", str(undivided), "--size", "8", "--test-fraction", "0.3", "--seed", "3"]
    words += ["--width", "1", "--batch-size", "6", "--workers", "0", "--quiet", "--checkpoint-every", "1"]
    run = tmp_path.parent / f"{tmp_path.name}-run"
    assert main(["train", *words, "--iterations", "2", "--keep", "2", "--out", str(run)]) == 0
    checkpoint = load_checkpoint(find_checkpoint(run))
    assert (checkpoint.config.test_fraction, checkpoint.config.seed) == (0.3, 3)
    assert main(["train", "--resume", str(run / "checkpoints" / "iteration-00000001.json"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == len(data.load("folder", "test", undivided, test_fraction=0.3, seed=3))
    assert report["top1_error"] == checkpoint.rows[-1].test_error
    for fraction in ("0", "1", "-0.5", "nan"):
        assert main(["train", *words[:6], "--test-fraction", fraction, "--iterations", "1"]) == 2
        assert "--test-fraction must be" in capsys.readouterr().err
