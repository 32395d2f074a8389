"""Downloads, from a server on this machine: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading

import pytest

from minires.data import DataError, cifar10, fashion_mnist
from minires.data.files import Remote, download

CONTENT = b"all of it" * 5000


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing":
                self.send_error(404)
                return
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.end_headers()
                return
            self.send_response(200)
            if self.path != "/endless":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            while self.path == "/endless":
                try:
                    self.wfile.write(CONTENT)
                except OSError:
                    return
            self.wfile.write(CONTENT[:100] if self.path == "/cut" else CONTENT)

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


MD5 = hashlib.md5(CONTENT).hexdigest()


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
    ("path", "md5", "told"),
    [
        ("/good", "0" * 32, "checksum"),
        ("/cut", MD5, "checksum"),
        ("/missing", MD5, "404"),
        ("/endless", MD5, "sends more than the 45,000 bytes"),
        ("/moved", MD5, "which is not https"),
    ],
)
def test_a_bad_one_leaves_the_folder_as_it_was(server, tmp_path, path, md5, told):
    (tmp_path / "file.bin").write_bytes(b"old")
    with pytest.raises(DataError, match=told) as failure:
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


def test_a_data_set_is_fetched_only_when_asked(server, tmp_path, monkeypatch):
    """The archive that comes is not CIFAR-10: the error is about the file, and the download was made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = Remote(cifar10.ARCHIVE.name, f"{server}/good", MD5, len(CONTENT))
    with pytest.raises(DataError, match="not found"):
        cifar10.load("test", archive=archive)
    with pytest.raises(DataError, match="cannot be read"):
        cifar10.load("test", download=True, archive=archive)
    assert (tmp_path / "minires" / "cifar10" / cifar10.ARCHIVE.name).read_bytes() == CONTENT


def test_a_link_in_the_place_of_the_folder(server, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to("elsewhere")
    with pytest.raises(DataError, match="cache is a link"):
        download(remote(f"{server}/good"), tmp_path / "cache")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_the_addresses_are_https():
    assert fashion_mnist.ADDRESS.startswith("https://")
    assert cifar10.ARCHIVE.address.startswith("https://")
    assert fashion_mnist.SIZE.keys() == fashion_mnist.MD5.keys()
