"""Downloads, from a server on this machine: whole and checked, or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import threading
import urllib.request

import pytest

from minires.data import DataError, cifar10, fashion_mnist
from minires.data.files import Remote, download

CONTENT = b"all of it" * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT)
ANSWERS = {
    "/good": HEAD + CONTENT,
    "/cut": HEAD + CONTENT[:100],
    "/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "/moved": b"HTTP/1.1 302 Found\r\nLocation: /good\r\nContent-Length: 0\r\n\r\n",
    "/endless": b"HTTP/1.1 200 OK\r\n\r\n" + 2 * CONTENT,
}
BAD = {
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
            self.wfile.write((ANSWERS | BAD)[self.path])
            self.close_connection = True

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def remote(address, md5=MD5):
    return Remote("file.bin", address, md5, len(CONTENT))


def test_a_good_file(server, tmp_path, capsys):
    target = download(remote(f"{server}/good"), tmp_path / "new" / "folder")
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["file.bin"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "file.bin" in captured.err


@pytest.mark.parametrize(
    ("path", "md5", "message"),
    [
        ("/good", "0" * 32, "checksum"),
        ("/cut", MD5, "checksum"),
        ("/missing", MD5, "404"),
        ("/endless", MD5, "sends more than the 45,000 bytes"),
        ("/moved", MD5, "which is not https"),
        *((path, MD5, "cannot download") for path in BAD),
    ],
)
def test_a_bad_download_leaves_the_folder_unchanged(server, tmp_path, path, md5, message):
    (tmp_path / "file.bin").write_bytes(b"old")
    with pytest.raises(DataError, match=message) as failure:
        download(remote(f"{server}{path}", md5), tmp_path)
    assert server in str(failure.value)
    assert os.listdir(tmp_path) == ["file.bin"]
    assert (tmp_path / "file.bin").read_bytes() == b"old"


def test_no_server(tmp_path):
    with pytest.raises(DataError, match="cannot download http://127"):
        download(remote("http://127.0.0.1:9/file"), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write to"):
        download(remote(f"{server}/good"), tmp_path / "file" / "folder")


def test_a_data_set_is_downloaded_only_on_request(server, tmp_path, monkeypatch):
    """The archive that comes is not CIFAR-10: the error is about the file, and the download was made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = Remote(cifar10.ARCHIVE.name, f"{server}/good", MD5, len(CONTENT))
    with pytest.raises(DataError, match="not found"):
        cifar10.load("test", archive=archive)
    with pytest.raises(DataError, match="cannot be read"):
        cifar10.load("test", download=True, archive=archive)
    assert (tmp_path / "minires" / "cifar10" / cifar10.ARCHIVE.name).read_bytes() == CONTENT


def test_a_link_instead_of_the_folder(server, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to("elsewhere")
    with pytest.raises(DataError, match="cache is a link"):
        download(remote(f"{server}/good"), tmp_path / "cache")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_the_addresses_are_https():
    assert fashion_mnist.ADDRESS.startswith("https://")
    assert cifar10.ARCHIVE.address.startswith("https://")
    assert fashion_mnist.SIZE.keys() == fashion_mnist.MD5.keys()


@pytest.fixture
def answer(monkeypatch):
    """Answers with a stream, without a server; a remote of the content b"x"."""

    class Answer(io.BytesIO):
        headers: dict[str, str] = {}  # noqa: RUF012

        def read(self, size=-1):
            if not self.getvalue():
                raise KeyboardInterrupt
            return super().read(size)

    def give(content):
        monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *args, **kwargs: Answer(content))
        return Remote("file.bin", "http://x/", "9dd4e461268c8034f5c8564e155c67a6", 1)

    return give


def test_a_full_disk(answer, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    x = answer(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="No space left"):
            download(x, tmp_path)
    assert os.listdir(tmp_path) == []
    assert download(x, tmp_path).read_bytes() == b"x"


def test_an_interrupted_download_leaves_nothing(answer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        download(answer(b""), tmp_path)
    assert os.listdir(tmp_path) == []
