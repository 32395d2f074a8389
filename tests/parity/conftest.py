"""Every comparison with PyTorch is made on both backends of the CPU."""

from __future__ import annotations

import pytest

import minires as mr


@pytest.fixture(autouse=True, params=["reference", "native"])
def backend(request):
    reason = mr.backends.available()[request.param]
    if reason:
        pytest.skip(reason)
    with mr.backend(request.param):
        yield
