"""What the command line prints on stderr for an error."""

from __future__ import annotations


def error_line(err: str) -> str:
    """The one line of an error; behind wrong usage (exit code 2) two more lines must follow, which are left out."""
    lines = err.splitlines()
    if lines and lines[-1].startswith("try minires"):
        assert lines[-2].startswith("usage: minires "), err
        lines = lines[:-2]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: "), err
    assert "Traceback" not in err
    return lines[0]


def error_names(err: str, *words: str) -> None:
    """Asserts that the one line of an error contains each of the words."""
    line = error_line(err)
    for word in words:
        assert word in line
