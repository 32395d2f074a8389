"""A folder of compiled files for the tests of a module, in place of the user's."""

from __future__ import annotations

import pytest

from minires.kernels import build


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        build._cache.cache_clear()
        yield
    build._cache.cache_clear()
