"""What a failed command prints."""

from __future__ import annotations


def one_line(err, *told):
    assert len(err.splitlines()) == 1, err
    assert err.startswith("minires: ")
    assert "Traceback" not in err
    for word in told:
        assert word in err
