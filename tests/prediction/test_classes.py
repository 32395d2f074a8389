"""Files with the names of classes, of every kind, and invalid files."""

from __future__ import annotations

import json

import pytest

from minires.data import DataFileError
from minires.prediction import read_classes

NAMES = ("tench", "great white shark, white shark", "crane", "crane")


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(NAMES),
        "\n".join(NAMES) + "\n\n",
        "\ufeff" + "\r\n".join(NAMES) + "\r\n",
        json.dumps(NAMES),
        " \n" + json.dumps([["n01440764", name] for name in NAMES]),
        json.dumps({str(i): ["n01440764", name] for i, name in enumerate(NAMES)}),
        json.dumps({str(i): name for i, name in reversed(list(enumerate(NAMES)))}),
        json.dumps({"model_type": "resnet", "id2label": {str(i): name for i, name in enumerate(NAMES)}}),
    ],
)
def test_every_kind(tmp_path, content):
    (tmp_path / "names").write_bytes(content.encode())
    assert read_classes(tmp_path / "names") == NAMES


def test_the_largest_file(tmp_path):
    (tmp_path / "names").write_text("a" * 2**24)
    assert read_classes(tmp_path / "names") == ("a" * 2**24,)


def test_more_than_ten_are_ordered_by_number(tmp_path):
    names = [f"name {i}" for i in range(12)]
    unordered = dict(sorted({str(i): name for i, name in enumerate(names)}.items()))  # "10" before "2"
    (tmp_path / "names.json").write_text(json.dumps(unordered))
    assert read_classes(tmp_path / "names.json") == tuple(names)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"ant\n\nbee\n", "line 2 is empty"),
        (b"\nant\n", "line 1 is empty"),
        (b"ant\nb\x1b[2Jee\n", "class 1 holds control characters"),
        (b"\xff\xfe\x00", "utf-8"),
        (b'{"0": "ant", "2": "bee"}', "key '1' is missing"),
        (b'{"ant": 0, "bee": 1}', "key '0' is missing"),
        (b'{"0": 7}', "class 0 has no name, got 7"),
        (b'["ant", ""]', "class 1 has no name"),
        (b'["ant", []]', "class 1 has no name"),
        (b"[]", "a list of names"),
        (b'{"id2label": "ant"}', "a list of names"),
        (b'["ant", ', "Expecting value"),
        (b"[" * 100_000, "recursion"),
        (b"a" * (2**24 + 1), "16,777,216 bytes"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_files_that_name_no_classes(tmp_path, content, text):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataFileError, match=r"names\.txt: ") as caught:
        read_classes(tmp_path / "names.txt")
    assert text in str(caught.value)
