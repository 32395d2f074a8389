"""The list of planted bugs fits the source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mutants import KERNELS, ROOMS, bugs

ROOT = Path(__file__).parents[2]
BUGS = [bug for room in ROOMS if room not in KERNELS for bug in bugs(room)]  # kernels: test_kernels.py


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_the_old_text_stands_in_its_file_exactly_once(bug):
    source = (ROOT / bug.file).read_text(encoding="utf-8")
    assert source.count(bug.old) == 1
    edited = source.replace(bug.old, bug.new)
    assert edited != source
    compile(edited, bug.file, "exec")  # a bug is subtle, not a syntax error


def test_at_least_twenty_in_every_room():
    assert {room: len(bugs(room)) for room in ROOMS if len(bugs(room)) < 20} == {}
    assert not [bug for bug, times in Counter(BUGS).items() if times > 1]


def test_their_tests_exist():
    for bug in BUGS:
        for word in bug.tests.split():
            if word.startswith("tests/"):
                assert (ROOT / word.partition("::")[0]).exists(), bug
