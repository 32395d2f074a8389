"""The data sets: their content, the places where they are searched, and the errors for broken files."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import tarfile
import urllib.request

import numpy as np
import pytest

from minires import data
from minires.data import cifar10, fashion_mnist, files
from minires.data.dataset import checked


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set on this machine, and no network."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path


# -- digits


def test_digits():
    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test)) == (1433, 364)
    for part in (train, test):
        assert part.images.dtype == np.uint8
        assert part.images.shape == (len(part), 8, 8, 1)
        assert part.shape == (1, 8, 8)
        assert part.classes == tuple("0123456789")
        assert set(part.labels) == set(range(10))
        assert set(np.unique(part.images)) == {round(level * 255 / 16) for level in range(17)}
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)
    np.testing.assert_array_equal(train.images, data.load("digits").images)
    assert repr(test) == "<digits (test): 364 images of 1×8×8, 10 classes>"


# -- IDX and Fashion-MNIST


def idx_bytes(array, magic=None):
    head = struct.pack(">HBB", 0, 8, array.ndim) if magic is None else magic
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def test_idx(tmp_path, rng):
    array = rng.integers(0, 256, (3, 4, 5)).astype(np.uint8)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "plain", 3), array)
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "packed.gz", 3), array)


GOOD = idx_bytes(np.arange(60).reshape(3, 4, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends within its header"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "promises 60 bytes, the file holds only 59"),
        (GOOD + b"x", "promises 60 bytes, the file holds more"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "not an IDX file of unsigned bytes with 3 dimensions"),
        (idx_bytes(np.arange(60)), "not an IDX file of unsigned bytes with 3 dimensions"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 2**31, 2**31, 2**31), "the header asks for"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_broken_idx(tmp_path, content, message, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(data.DataFileError, match=message) as failure:
        fashion_mnist.read_idx(path, 3)
    assert str(path) in str(failure.value)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(GOOD)
    for name, content in (("cut", whole[:-9]), ("none", GOOD), ("bits", whole[:20] + b"\xff\xff" + whole[22:])):
        path = tmp_path / f"{name}.gz"
        path.write_bytes(content)
        with pytest.raises(data.DataFileError, match=name):
            fashion_mnist.read_idx(path, 3)


@pytest.mark.parametrize("name", ["nothing", "nothing.gz", "folder", "folder.gz"])
def test_an_idx_file_that_cannot_be_opened(tmp_path, name):
    if "folder" in name:
        (tmp_path / name).mkdir()
    with pytest.raises(data.DataFileError, match="cannot be read") as failure:
        fashion_mnist.read_idx(tmp_path / name, 1)
    assert str(tmp_path / name) in str(failure.value)


@pytest.mark.parametrize("shape", [(1 << 31, 1, 2), (0xFFFFFFFF, 0xFFFFFFFF, 0)])
def test_an_idx_file_that_claims_too_much_memory(tmp_path, shape):
    (tmp_path / "x").write_bytes(struct.pack(">HBB3I", 0, 8, 3, *shape))
    with pytest.raises(data.DataFileError, match="the header asks for"):
        fashion_mnist.read_idx(tmp_path / "x", 3)


@pytest.fixture
def small_fashion(monkeypatch, tmp_path, rng):
    """A data set of 30 + 20 images in Fashion-MNIST's files."""
    monkeypatch.setattr(fashion_mnist, "COUNT", {"train": 30, "test": 20})
    parts = {}
    for stem, n in (("train", 30), ("t10k", 20)):
        images, labels = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), np.arange(n) % 10
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        parts[stem] = images, labels
    return tmp_path, parts


def test_fashion_mnist_files(small_fashion):
    folder, parts = small_fashion
    found = data.load("fashion-mnist", "test", folder)
    np.testing.assert_array_equal(found.images[..., 0], parts["t10k"][0])
    np.testing.assert_array_equal(found.labels, parts["t10k"][1])
    assert found.classes[9] == "Ankle boot"
    half = data.load("fashion-mnist", "test", folder, size=14).images
    means = parts["t10k"][0].reshape(20, 14, 2, 14, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(half[..., 0], np.floor(means + 0.5))  # rounded, halves up
    for wrong in (0, 5, 29, -14):
        with pytest.raises(ValueError, match="size must"):
            data.load("fashion-mnist", "test", folder, size=wrong)


def test_mislabelled_and_mismatched(small_fashion):
    folder, _ = small_fashion
    (folder / "train-labels-idx1-ubyte").unlink()
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(30) % 11)))
    with pytest.raises(
        data.DataFileError, match=r"train-labels.*labels must lie in \[0, 10\), one of the classes, got 10"
    ):
        data.load("fashion-mnist", "train", folder)
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(29) % 10)))
    with pytest.raises(data.DataFileError, match="labels must be as many as images, 30, got 29"):
        data.load("fashion-mnist", "train", folder)
    images = folder / "train-images-idx3-ubyte"
    for shape in ((29, 28, 28), (30, 14, 56)):  # the second one has the right number of bytes
        images.write_bytes(idx_bytes(np.zeros(shape)))
        with pytest.raises(
            data.DataFileError, match=rf"train-images.*shape {re.escape(str(shape))}, not \(30, 28, 28\)"
        ):
            data.load("fashion-mnist", "train", folder)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 3), (2, 3)])
def test_swapped_files(small_fashion, one, other):
    files = [next(small_fashion[0].glob(f"{name}*")) for name in fashion_mnist.MD5]
    for split in ("train", "test"):
        assert len(data.load("fashion-mnist", split, small_fashion[0])) > 0
    first, second = files[one].read_bytes(), files[other].read_bytes()
    files[one].write_bytes(second)
    files[other].write_bytes(first)
    split = "test" if one >= 2 else "train"
    with pytest.raises(data.DataFileError) as failure:
        data.load("fashion-mnist", split, small_fashion[0])
    assert str(files[one]) in str(failure.value)


def test_real_fashion_mnist():
    if data.find("fashion-mnist") is None:
        pytest.skip("Fashion-MNIST is not on this machine (Debian: dataset-fashion-mnist)")
    train, test = data.load("fashion-mnist"), data.load("fashion-mnist", "test")
    assert (train.images.shape, test.images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    np.testing.assert_array_equal(np.bincount(train.labels), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(10, 1000))


# -- CIFAR-10


@pytest.fixture
def small_cifar(monkeypatch, tmp_path, rng):
    """Two records in each file; the same in an archive."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    names = [name for split in cifar10.FILES.values() for name in split]
    content = {}
    folder = tmp_path / "bin"
    folder.mkdir()
    for i, name in enumerate(names):
        records = rng.integers(0, 256, (2, cifar10.RECORD)).astype(np.uint8)
        records[:, 0] = (i, 9)
        content[name] = records
        (folder / name).write_bytes(records.tobytes())
    return folder, content


MEMBER = f"{cifar10.INSIDE}/test_batch.bin"


def pack(path, members=None, **properties):
    """An archive of files with these contents, or of a test batch with the given properties of a TarInfo."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, payload in (members or {MEMBER: b""}).items():
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            for key, value in properties.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(payload))
    return path


def test_cifar10(small_cifar):
    folder, content = small_cifar
    train, test = data.load("cifar10", "train", folder), data.load("cifar10", "test", folder)
    assert (train.images.shape, test.images.shape) == ((10, 32, 32, 3), (2, 32, 32, 3))
    np.testing.assert_array_equal(train.labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9])
    record = content["data_batch_2.bin"][1]
    red, green, blue = (record[1 + 1024 * c + 32 * 5 + 7] for c in range(3))  # planes, row 5, column 7
    np.testing.assert_array_equal(train.images[3, 5, 7], [red, green, blue])


def test_cifar10_straight_from_the_archive(small_cifar, tmp_path):
    folder, content = small_cifar
    archive = tmp_path / "packed" / cifar10.ARCHIVE.name
    members = {f"{cifar10.INSIDE}/{name}": records.tobytes() for name, records in content.items()}
    pack(archive, {"../../evil": b"x", **members})
    found = data.load("cifar10", "train", archive.parent)
    np.testing.assert_array_equal(found.images, data.load("cifar10", "train", folder).images)
    assert not (tmp_path.parent / "evil").exists()
    assert sorted(p.name for p in archive.parent.iterdir()) == [archive.name]
    pack(archive, {name: payload for name, payload in members.items() if "batch_3" not in name})
    with pytest.raises(data.DataFileError, match=r"data_batch_3\.bin is missing from the archive"):
        data.load("cifar10", "train", archive.parent)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(data.DataFileError, match="cannot be read|missing"):  # noqa: RUF043
        data.load("cifar10", "train", archive.parent)


def test_broken_cifar10(small_cifar):
    folder, content = small_cifar
    path = folder / "data_batch_1.bin"
    whole = content["data_batch_1.bin"]
    for payload, message in ((whole.tobytes()[:-1], "6,146 bytes expected"), (whole.tobytes() + b"x", "holds more")):
        path.write_bytes(payload)
        with pytest.raises(data.DataFileError, match=message):
            data.load("cifar10", "train", folder)
    whole[0, 0] = 10
    path.write_bytes(whole.tobytes())
    with pytest.raises(data.DataFileError, match=r"train labels: labels must lie in .*, got 10"):
        data.load("cifar10", "train", folder)


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "test_batch.bin"),  # to itself
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../../../../../etc/passwd"),
        (tarfile.LNKTYPE, MEMBER),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.DIRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_a_member_that_is_not_a_file(tmp_path, kind, link):
    path = pack(tmp_path / cifar10.ARCHIVE.name, type=kind, linkname=link)
    with pytest.raises(data.DataFileError) as failure:
        data.load("cifar10", "test", tmp_path)
    assert str(path) in str(failure.value)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("change", [-1, 1])
def test_a_member_of_the_wrong_length(tmp_path, monkeypatch, change):
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    pack(tmp_path / cifar10.ARCHIVE.name, {MEMBER: bytes(2 * cifar10.RECORD)})
    assert len(data.load("cifar10", "test", tmp_path)) == 2
    pack(tmp_path / cifar10.ARCHIVE.name, {MEMBER: bytes(2 * cifar10.RECORD + change)})
    with pytest.raises(data.DataFileError, match=r"test_batch\.bin: 6,146 bytes expected"):
        data.load("cifar10", "test", tmp_path)


def test_archives_with_damaged_headers(tmp_path, monkeypatch, rng):
    """Random bytes in the header, its checksum put right again: read, or refused, but never another exception."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    path = pack(tmp_path / cifar10.ARCHIVE.name, {MEMBER: bytes(2 * cifar10.RECORD)})
    whole = gzip.decompress(path.read_bytes())
    refused = 0
    sizes = [b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"\x80\0\0\0\x7f" + b"\xff" * 7, b"-1 ".ljust(12)]
    for size in [None] * 400 + sizes:
        header = bytearray(whole[:512])
        for place in rng.integers(0, 512, 4):
            header[place] = rng.choice([0, 0x80, 0xFF, ord("9"), ord("1"), ord("x")])
        if size:
            header = bytearray(whole[:512])
            header[124:136] = size
        header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
        path.write_bytes(gzip.compress(bytes(header) + whole[512:], 1))
        try:
            assert len(data.load("cifar10", "test", tmp_path)) == 2
        except data.DataFileError:
            refused += 1
    assert refused > 100


def test_a_missing_batch_and_the_folder_of_the_archive(nowhere, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 1)
    inside = nowhere / "root" / "cifar10" / cifar10.INSIDE
    inside.mkdir(parents=True)
    for i, name in enumerate(cifar10.FILES["train"] + cifar10.FILES["test"]):
        (inside / name).write_bytes(bytes([i]) + bytes(cifar10.RECORD - 1))
    np.testing.assert_array_equal(data.load("cifar10", "train", nowhere / "root").labels, range(5))
    (inside / "data_batch_4.bin").unlink()
    for split in ("train", "test"):
        with pytest.raises(data.DataError, match="not found"):
            data.load("cifar10", split, nowhere / "root")


# -- finding


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_the_error_for_a_missing_data_set_names_place_and_remedy(nowhere, monkeypatch, name):
    monkeypatch.setenv("MINIRES_DATA", str(nowhere / "mine"))
    with pytest.raises(data.DataPathError, match=r"data_dir must be a folder, got '.*given'"):
        data.load(name, "train", nowhere / "given")
    (nowhere / "given").mkdir(parents=True)
    with pytest.raises(data.DataError) as failure:
        data.load(name, "train", nowhere / "given")
    text = str(failure.value)
    for folder in ("given", f"given/{name}", "mine", f"mine/{name}", f"system/{name}", f"cache/minires/{name}"):
        assert str(nowhere / folder) in text
    assert "--download" in text
    assert data.find(name) is None


def test_order_of_the_places(nowhere, monkeypatch, small_fashion):
    source, _ = small_fashion
    names = [p.name for p in source.iterdir() if "ubyte" in p.name]
    places = [
        nowhere / "cache/minires/fashion-mnist",
        nowhere / "system/fashion-mnist",
        nowhere / "mine",
        nowhere / "given",
    ]
    monkeypatch.setenv("MINIRES_DATA", str(nowhere / "mine"))
    (nowhere / "given").mkdir(parents=True)
    for place in places:  # the least preferred first
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / name).write_bytes((source / name).read_bytes())
        assert data.find("fashion-mnist", nowhere / "given") == place
    (places[-1] / names[0]).unlink()  # a folder that lacks a file is no hit
    assert data.find("fashion-mnist", nowhere / "given") == places[-2]


def test_names_and_splits():
    assert data.names() == ("digits", "fashion-mnist", "cifar10", "folder")
    with pytest.raises(ValueError, match="split must be one of 'train', 'test'"):
        data.load("digits", "validation")


def test_labels_must_fit():
    with pytest.raises(data.DataFileError, match=r"here: labels must lie in .*, got -1"):
        checked("x", "train", np.zeros((1, 2, 2, 1), np.uint8), np.array([-1]), ("a",), "here")
