"""How the kernels are compiled for a GPU: the same options everywhere, and anew when an included file is edited."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import strict_cupy

import minires as mr
from minires import backends
from minires.backends.kernels import provider

ROOT = Path(__file__).parents[2]


def test_an_edit_of_any_source_changes_the_options(tmp_path):
    folder = shutil.copytree(provider.sources(), tmp_path / "cuda")
    before = provider.compile_options(False, folder)
    assert before == provider.compile_options(False, folder)
    for name in ("tile.cuh", "gemm_07_warps.cu"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        after = provider.compile_options(False, folder)
        assert after != before
        before = after
    assert provider.compile_options(True, folder) == (*before, "-DMINIRES_DOUBLE")


def test_the_digest_is_a_number_that_the_preprocessor_takes():
    (digest,) = [option for option in provider.compile_options(False) if "SOURCES" in option]
    name, _, value = digest.removeprefix("-D").partition("=")
    assert name == "MINIRES_SOURCES"
    assert int(value, 16) < 2**64


def test_nvcc_flushes_subnormal_numbers_as_cupy_does():
    assert provider.FLUSH in (ROOT / "csrc" / "ahead" / "ahead.cmake").read_text()


@pytest.mark.skipif(bool(backends.available()["emulated"]), reason="the emulator runs the kernels")
def test_each_file_and_precision_is_compiled_once_with_these_options(monkeypatch):
    compiled, init = [], strict_cupy.RawModule.__init__

    def noted(self, *, code, options=()):
        compiled.append(options)
        init(self, code=code, options=options)

    monkeypatch.setattr(strict_cupy.RawModule, "__init__", noted)
    with strict_cupy.installed() as cupy, mr.backend("cuda"):
        for dtype in (np.float32, np.float64, np.float32):
            mr.functional.relu(cupy.ones((2, 3), dtype))
    assert compiled == [provider.compile_options(False), provider.compile_options(True)]
