"""Counts of requests, sectors and wavefronts, compared with figures that were derived by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS
from minires.cli import main
from minires.kernels.profile import profile_file, profile_rung

HERE = Path(__file__).parent
AWKWARD = {
    "gemm": {"M": 133, "N": 70, "K": 45},
    "conv2d": {"N": 2, "C": 5, "H": 9, "W": 7, "O": 6, "KH": 3, "KW": 3, "stride": 1, "padding": 1},
}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def test_the_counts_of_the_tile_kernel():
    """M = N = 128, K = 64: 64 blocks of 8 warps, 4 steps of 16; a warp covers two rows of 16."""
    profile = profile_file(HERE / "tile.cu")
    assert profile.findings == ()
    warps, steps = 64 * 8, 4
    total = {name.removeprefix("l1tex__").removesuffix(".sum"): count for name, count in profile.total.items()}
    assert total["t_requests_pipe_lsu_mem_global_op_ld"] == warps * steps * 2
    assert total["t_sectors_pipe_lsu_mem_global_op_ld"] == warps * steps * 2 * 4  # two rows of 64 bytes
    assert total["t_requests_pipe_lsu_mem_global_op_st"] == warps
    assert total["t_sectors_pipe_lsu_mem_global_op_st"] == warps * 4
    assert total["data_pipe_lsu_wavefronts_mem_shared_op_ld"] == warps * steps * 16 * 2
    assert total["data_bank_conflicts_pipe_lsu_mem_shared_op_ld"] == 0
    assert total["barriers"] == warps * steps * 2
    loads = profile.traffic["A"]
    assert (loads.requested_bytes, loads.unique_bytes) == (128 * 64 * 4 * 8, 128 * 64 * 4)  # by 8 columns of blocks
    assert {site.line for site in profile.sites if site.kind == "shared load"} == {16}


def test_lanes_that_skip_an_access_stay_in_step():
    """256 warps of two rows of 16 pixels; 16·9 taps, and two loads for each.  46 of 48 rows and columns are inside."""
    profile = profile_file(HERE / "direct.cu", "conv2d")
    assert profile.advice == []
    (loads,) = (site for site in profile.sites if site.kind == "global load")
    assert loads.requests == 256 * 16 * 9 * 2
    assert loads.lanes == 32 * 16 * 46 * 46 * 2  # filters, channels, rows with taps, columns with taps, loads


def test_the_profile_of_a_rung(capsys):
    """8 wavefronts of 16-byte loads for each k and warp; A by copies of 4 bytes, 16 sectors each."""
    assert main(["kernels", "profile", "gemm_07_warps", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    total = result["profile"]["total"]
    assert total["l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"] == 8 * 64 * 8
    assert total["cp.async requests"] == 8 * 8 * (4 + 1)
    assert {finding["kind"] for finding in result["findings"]} <= {"uncoalesced", "bank-conflict"}


def test_the_operation_of_a_file(capsys):
    assert main(["kernels", "profile", str(HERE / "direct.cu"), "--as", "gemm"]) == 2
    assert "direct.cu" in capsys.readouterr().err
    assert main(["kernels", "profile", "gemm_07_warps", "--as", "gemm"]) == 2
    assert "--as requires a kernel file" in capsys.readouterr().err


def test_an_unknown_rung(capsys):
    assert main(["kernels", "profile", "gemm_07_warp"]) == 2
    assert "gemm_07_warp" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("rung", [*GEMMS, *CONVOLUTIONS])
def test_rungs_are_sound_with_every_order_of_threads(rung):
    sizes = AWKWARD["gemm" if rung in GEMMS else "conv2d"]
    if rung == "conv_03_1x1":
        sizes = sizes | {"KH": 1, "KW": 1, "padding": 0}
    assert [profile_rung(rung, sizes, seed).findings for seed in (0, 1, 2)] == [()] * 3
