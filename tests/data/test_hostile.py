"""Files and servers that mean harm: one kind of error, which names the file, and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import http.server
import io
import os
import struct
import tarfile
import threading
import urllib.request

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.data import FolderImages, cifar10, fashion_mnist
from minires.data.files import Remote, download

# -- IDX and Fashion-MNIST


@pytest.mark.parametrize("name", ["nothing", "nothing.gz", "folder", "folder.gz"])
def test_an_idx_file_that_cannot_be_opened(tmp_path, name):
    if "folder" in name:
        (tmp_path / name).mkdir()
    with pytest.raises(data.DataFileError, match="cannot be read") as failure:
        fashion_mnist.read_idx(tmp_path / name, 1)
    assert str(tmp_path / name) in str(failure.value)


def idx_bytes(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(1 << 31, 1, 2), (0xFFFFFFFF, 0xFFFFFFFF, 0)])
def test_an_idx_file_that_asks_for_too_much(tmp_path, shape):
    (tmp_path / "x").write_bytes(struct.pack(">HBB3I", 0, 8, 3, *shape))
    with pytest.raises(data.DataFileError, match="the header asks for"):
        fashion_mnist.read_idx(tmp_path / "x", 3)


NAMES = tuple(fashion_mnist.MD5)  # images and labels of the training, then of the test


@pytest.fixture
def fashion(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "COUNT", {"train": 30, "test": 20})
    for i, n in enumerate((30, 20)):
        (tmp_path / NAMES[2 * i]).write_bytes(idx_bytes(np.zeros((n, 28, 28))))
        (tmp_path / NAMES[2 * i + 1]).write_bytes(idx_bytes(np.arange(n) % 10))
    return tmp_path


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 3), (2, 3)])
def test_swapped_files(fashion, one, other):
    for split in ("train", "test"):
        assert len(data.load("fashion-mnist", split, fashion)) > 0
    first, second = (fashion / NAMES[one]).read_bytes(), (fashion / NAMES[other]).read_bytes()
    (fashion / NAMES[one]).write_bytes(second)
    (fashion / NAMES[other]).write_bytes(first)
    split = "test" if one >= 2 else "train"
    with pytest.raises(data.DataFileError) as failure:
        data.load("fashion-mnist", split, fashion)
    assert str(fashion / NAMES[one]) in str(failure.value)


def test_a_number_of_bytes_that_is_right_for_another_shape(fashion):
    (fashion / NAMES[0]).write_bytes(idx_bytes(np.zeros((30, 14, 56))))
    with pytest.raises(data.DataFileError, match=r"shape \(30, 14, 56\), not \(30, 28, 28\)"):
        data.load("fashion-mnist", "train", fashion)


# -- CIFAR-10

MEMBER = f"{cifar10.INSIDE}/test_batch.bin"


def pack(folder, payload=None, kind=tarfile.REGTYPE, link=""):
    """An archive whose only member is the test batch, or what stands in its place."""
    member = tarfile.TarInfo(MEMBER)
    member.type, member.linkname, member.size = kind, link, len(payload or b"")
    path = folder / cifar10.ARCHIVE.name
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(payload or b""))
    return path


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
def test_a_member_that_is_no_file(tmp_path, kind, link):
    path = pack(tmp_path, kind=kind, link=link)
    with pytest.raises(data.DataFileError) as failure:
        data.load("cifar10", "test", tmp_path)
    assert str(path) in str(failure.value)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("change", [-1, 1])
def test_a_member_of_the_wrong_length(tmp_path, monkeypatch, change):
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    pack(tmp_path, bytes(2 * cifar10.RECORD))
    assert len(data.load("cifar10", "test", tmp_path)) == 2
    pack(tmp_path, bytes(2 * cifar10.RECORD + change))
    with pytest.raises(data.DataFileError, match=r"test_batch\.bin: 6,146 bytes expected"):
        data.load("cifar10", "test", tmp_path)


def test_archives_with_damaged_headers(tmp_path, monkeypatch, rng):
    """Random bytes in the header, its checksum put right again: read, or refused, but never another exception."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    path = pack(tmp_path, bytes(2 * cifar10.RECORD))
    whole = gzip.decompress(path.read_bytes())
    refused = 0
    for size in [None] * 400 + [
        b"\xff" * 12,
        b"\x80" + b"\x7f" * 11,
        b"\x80\0\0\0\x7f" + b"\xff" * 7,
        b"-1 ".ljust(12),
    ]:
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


def test_a_missing_batch_and_the_folder_of_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 1)
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inside = tmp_path / "root" / "cifar10" / cifar10.INSIDE
    inside.mkdir(parents=True)
    for i, name in enumerate(cifar10.FILES["train"] + cifar10.FILES["test"]):
        (inside / name).write_bytes(bytes([i]) + bytes(cifar10.RECORD - 1))
    np.testing.assert_array_equal(data.load("cifar10", "train", tmp_path / "root").labels, range(5))
    monkeypatch.setattr("minires.data.files.SYSTEM", tmp_path / "system")
    (inside / "data_batch_4.bin").unlink()
    for split in ("train", "test"):
        with pytest.raises(data.DataError, match="not found"):
            data.load("cifar10", split, tmp_path / "root")


# -- pictures


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("P", (200, 30, 60), (200, 30, 60)),
        ("I;16", 0x8040, (0x80, 0x80, 0x80)),
        ("I;16", 0x0140, (1, 1, 1)),
    ],
)
def test_colours_of_every_mode(tmp_path, mode, colour, seen):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((40, 50), colour, np.uint16)).save(path)
    elif mode == "P":
        Image.new("RGB", (50, 40), colour).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    else:
        Image.new(mode, (50, 40), colour).save(path)
    array = FolderImages([path], 8).read(0)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, np.broadcast_to(np.array(seen, np.uint8), (8, 8, 3)))


def test_a_palette_with_transparent_colours(tmp_path):
    """Pillow warns where such a palette is converted at once; warnings are errors here."""
    image = Image.new("RGB", (50, 40), (200, 30, 60)).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "x.png", transparency=b"\x80\x40")
    with Image.open(tmp_path / "x.png") as written:
        assert isinstance(written.info["transparency"], bytes)
    np.testing.assert_array_equal(FolderImages([tmp_path / "x.png"], 8).read(0)[3, 3], [200, 30, 60])


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "deep.png"])
def test_pictures_cut_anywhere(tmp_path, rng, name):
    path = tmp_path / name
    if name == "deep.png":
        Image.fromarray(rng.integers(0, 65536, (40, 50)).astype(np.uint16)).save(path)
    else:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole) - 20, 97)]:
        path.write_bytes(whole[:length])
        with pytest.raises(data.DataFileError, match="cannot be decoded") as failure:
            FolderImages([path], 8).read(0)
        assert str(path) in str(failure.value)


def test_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch):
    Image.new("L", (50, 40)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # more than twice as many are refused
    with pytest.raises(data.DataFileError, match=r"x\.png: cannot be decoded"):
        FolderImages([tmp_path / "x.png"], 8).read(0)


# -- downloads

ANSWERS = {
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nxxx",  # 1000 promised, 3 sent
    "/length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nxxx",
    "/status": b"nothing like HTTP\r\n\r\n",
    "/silent": b"",
    "/loop": b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n",
    "/refused": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
}


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(ANSWERS[self.path])
            self.close_connection = True

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ANSWERS)
def test_servers_that_break_off_or_talk_nonsense(server, tmp_path, path):
    (tmp_path / "file.bin").write_bytes(b"old")
    with pytest.raises(data.DataError, match="cannot download") as failure:
        download(Remote("file.bin", f"{server}{path}", "0" * 32, 1000), tmp_path)
    assert f"{server}{path}" in str(failure.value)
    assert os.listdir(tmp_path) == ["file.bin"]
    assert (tmp_path / "file.bin").read_bytes() == b"old"


class Answer(io.BytesIO):
    """What urlopen returns, without a server."""

    headers: dict[str, str] = {}  # noqa: RUF012


def test_a_full_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *args, **kwargs: Answer(b"x"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(data.DataError, match="No space left"):
        download(Remote("file.bin", "http://x/", "9dd4e461268c8034f5c8564e155c67a6", 1), tmp_path)
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *args, **kwargs: Answer(b"x"))
    assert (
        download(Remote("file.bin", "http://x/", "9dd4e461268c8034f5c8564e155c67a6", 1), tmp_path).read_bytes() == b"x"
    )


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    class Interrupted(Answer):
        def read(self, size=-1):
            raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *args, **kwargs: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        download(Remote("file.bin", "http://x/", "0" * 32, 1000), tmp_path)
    assert os.listdir(tmp_path) == []
