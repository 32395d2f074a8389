"""A run goes on with the very images that it began with, or not at all."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from minires.data import Dataset
from minires.training import Config, ConfigError, find_checkpoint, loop, train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Plain pictures, whose files are all of one size, and a run that stopped half way."""
    root = tmp_path_factory.mktemp("made")
    for split, images in (("train", 3), ("val", 2)):
        for name in ("ape", "zebra"):
            (root / "data" / split / name).mkdir(parents=True)
            for number in range(images):
                colour = (40 * number, 100, 200 if name == "ape" else 50)
                Image.new("RGB", (9, 8), colour).save(root / "data" / split / name / f"{number}.png", compress_level=0)
    settings = {"data": "folder", "size": 8, "width": 1, "batch_size": 6, "augment": False, "workers": 0}
    config = Config.make(**settings, iterations=2, checkpoint_every=1, keep=2, data_dir=str(root / "data"))
    train(config, root / "run")
    for file in (root / "run" / "checkpoints").glob("iteration-00000002*"):
        file.unlink()
    return root, config


def swap(one, other):
    content = one.read_bytes()
    assert len(content) == other.stat().st_size
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


CHANGES = {
    "an image in another class": lambda d: (d / "train/ape/0.png").rename(d / "train/zebra/9.png"),
    "a test image in another class": lambda d: (d / "val/ape/0.png").rename(d / "val/zebra/9.png"),
    "two images swapped": lambda d: swap(d / "train/ape/0.png", d / "train/zebra/0.png"),
    "two test images swapped": lambda d: swap(d / "val/ape/0.png", d / "val/zebra/0.png"),
    "another order": lambda d: (d / "train/ape/0.png").rename(d / "train/ape/9.png"),
    "one more": lambda d: shutil.copy(d / "val/ape/0.png", d / "val/ape/9.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_refused(made, tmp_path, change):
    root, config = made
    shutil.copytree(root, tmp_path / "made")
    CHANGES[change](tmp_path / "made" / "data")
    with pytest.raises(ConfigError, match="images of folder differ from the images at the start"):
        train(Config(**{**vars(config), "data_dir": str(tmp_path / "made" / "data")}), resume=tmp_path / "made" / "run")


def test_the_same_images_elsewhere_and_a_checkpoint_without_their_digest(made, tmp_path):
    root, config = made
    shutil.copytree(root, tmp_path / "made")
    config = Config(**{**vars(config), "data_dir": str(tmp_path / "made" / "data")})
    path = find_checkpoint(tmp_path / "made" / "run")
    fields = json.loads(path.read_text())
    assert set(fields.pop("data")) == {"train", "test"}
    train(config, tmp_path / "on", resume=path)
    path.write_text(json.dumps(fields))  # as it was written before digests were
    CHANGES["two test images swapped"](tmp_path / "made" / "data")
    train(config, tmp_path / "old", resume=path)


def test_a_label_of_an_array_data_set(tmp_path, monkeypatch):
    config = Config.make(width=1, iterations=2, checkpoint_every=1, workers=0)
    train(Config(**{**vars(config), "keep": 2}), tmp_path / "run")
    images = loop.images

    def changed(config, split, download=False):
        found = images(config, split, download)
        if split == "test":
            found.labels[[0, 1]] = found.labels[[1, 0]] + np.array([0, 1])
        return found

    monkeypatch.setattr(loop, "images", changed)
    with pytest.raises(
        ConfigError, match="the test images of digits differ from the images at the start of this run: names"
    ):
        train(config, tmp_path / "on", resume=tmp_path / "run" / "checkpoints" / "iteration-00000001.json")


@pytest.mark.parametrize("change", ["images", "labels", "classes", "order"])
def test_a_digest_covers_everything_but_the_memory_layout(rng, change):
    images, labels = rng.integers(0, 256, (5, 4, 3, 1), np.uint8), np.array([0, 1, 0, 1, 1])
    digest = Dataset("x", "train", images, labels, ("a", "b")).digest()
    assert Dataset("y", "test", np.asfortranarray(images), labels.astype(np.int32), ("a", "b")).digest() == digest
    other = {"images": images.copy(), "labels": labels.copy(), "classes": ("a", "b")}
    if change == "images":
        other["images"][4, 3, 2, 0] ^= 1
    elif change == "labels":
        other["labels"][4] = 0
    elif change == "classes":
        other["classes"] = ("a", "c")
    else:
        other["images"], other["labels"] = images[::-1], labels[::-1]
    assert Dataset("x", "train", **other).digest() != digest
