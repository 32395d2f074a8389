"""Paths of pictures."""

from __future__ import annotations

import pytest

from minires.data import DataPathError
from minires.prediction import find_pictures


def test_folders_are_searched_and_sorted(tmp_path, monkeypatch):
    for name in [
        "b/2.JPG",
        "b/10.png",
        "b/deep/er/x.webp",
        "a.gif",
        ".hidden.png",
        ".git/x.png",
        "notes.txt",
        "c.tiff",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = ["a.gif", "b/10.png", "b/2.JPG", "b/deep/er/x.webp", "c.tiff"]
    assert find_pictures([tmp_path]) == [tmp_path / name for name in found]
    monkeypatch.chdir(tmp_path)
    assert list(map(str, find_pictures(["notes.txt", "b", "a.gif"]))) == ["notes.txt", *found[1:4], "a.gif"]


def test_paths_without_pictures(tmp_path):
    (tmp_path / "text.txt").touch()
    with pytest.raises(DataPathError, match=r"no pictures \(of \.jpg, "):
        find_pictures([tmp_path])
    with pytest.raises(DataPathError, match="nowhere: no such file or folder"):
        find_pictures([tmp_path / "text.txt", tmp_path / "nowhere"])
