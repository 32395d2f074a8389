"""A folder of compiled files for the tests of a module, in place of the user's."""

from __future__ import annotations

import pytest

from minires.backends.kernels import own_build


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        own_build.cache_folder.cache_clear()
        yield
    own_build.cache_folder.cache_clear()
