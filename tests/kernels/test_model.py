"""The table of the GEMM ladder: counts derived by hand, and the order of the modelled times."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pytest

from minires.backends.kernels.catalogue import GEMMS
from minires.backends.unavailable import BackendUnavailable
from minires.cli import main
from minires.kernels import machine_code, model

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

FLOAT = [rung for rung in GEMMS if rung <= "gemm_07_warps" or rung == "gemm_11_wide"]
# Rungs that are not modelled faster than the rung before, and the words of their header that give the reason.
REASONS = {
    "gemm_08_split_k": "slow for a large C",
    "gemm_10_bf16": "puts it behind tf32",
    "gemm_11_wide": "multiply-adds",  # in float; the two rungs before use tensor cores
}


@pytest.fixture
def nvrtc():
    try:
        return machine_code.compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def without_nvrtc(monkeypatch):
    def compiler():
        raise BackendUnavailable("NVRTC is not installed")

    monkeypatch.setattr(machine_code, "compiler", compiler)


def test_counts():
    """gemm_07: 8 wavefronts for each k and warp.  Copies of 16 bytes from B (16 sectors), four times as many of 4 bytes
    from A (4 sectors)."""
    row = model.row("gemm_07_warps", None)
    assert (row.load_sectors, row.store_sectors, row.wavefronts) == ((4 * 4 + 16) / 5, 16, 8)
    assert model.row("gemm_03_shared", None).wavefronts == 2


def test_counts_grow_exactly_to_the_large_product():
    """gemm_03 at 4096: 2 wavefronts of loads for each k and warp, one of stores for each of the 2 elements a thread
    copies in 32 k."""
    clocks = model._clocks(
        [model.profile_rung("gemm_03_shared", {"M": model.M, "N": model.N, "K": K}) for K in model.DEPTHS],
        0.25,
        model.DEVICES["h200"],
    )
    warps, k = model.SIZE**2 / 32, model.SIZE
    sectors = warps * (k / 32 * 2 * 4 + 4)
    assert clocks["L1 and shared"] * 132 == warps * (2 * k + k / 32 * 2) + sectors / 4
    assert clocks["L2"] == 32 * sectors / 5120
    assert clocks["FFMA"] * 132 == model.SIZE**3 / 128
    assert clocks["issue"] * 132 == model.SIZE**3 / 32 / 0.25 / 4


def test_the_ladder_climbs(nvrtc, capsys):
    assert main(["kernels", "--table", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["rung"]: row for row in result["rows"]}
    assert result["device"] == "h200"
    assert tuple(rows) == GEMMS
    times = [rows[rung]["milliseconds"] for rung in FLOAT]
    assert all(later < earlier for earlier, later in pairwise(times)), times
    slower = [b for a, b in pairwise(GEMMS) if rows[b]["milliseconds"] >= rows[a]["milliseconds"]]
    assert slower == list(REASONS)
    for rung, reason in REASONS.items():
        header = (machine_code.sources() / f"{rung}.cu").read_text(encoding="utf-8").partition("#include")[0]
        assert reason in " ".join(header.replace("//", "").split())


def test_the_table_without_nvrtc(without_nvrtc, monkeypatch, capsys):
    monkeypatch.setattr(model, "GEMMS", ("gemm_06_async", "gemm_07_warps"))
    assert main(["kernels", "--table"]) == 0
    *_, last = printed = capsys.readouterr().out.splitlines()
    assert "pip install 'minires[contract]'" in last
    assert "wavefronts" in printed[2]
    assert not any(column in printed[2] for column in ("registers", "ms"))


@pytest.mark.parametrize("flags", [["--device", "a100"], ["--table", "profile", "gemm_07_warps"], ["--device", "h300"]])
def test_flags_that_do_not_fit(flags, capsys):
    assert main(["kernels", *flags]) == 2
    assert flags[0] in capsys.readouterr().err
