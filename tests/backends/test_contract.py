"""Every kernel compiled to machine code without a GPU, and what must hold of that code.

Needs the `contract` extra: NVRTC, cuobjdump and nvdisasm from NVIDIA's packages.
"""

from __future__ import annotations

import re

import pytest

from minires.backends.kernels.catalogue import RUNGS
from minires.backends.kernels.provider import sources
from minires.kernels import machine_code

pytest.importorskip("cuda.bindings.nvrtc", reason="the contract extra is not installed")

ARCHITECTURES = (75, 80, 90, 100)
FILES = sorted(sources().glob("*.cu"))


def needs(file):
    """The oldest architecture that has the instructions of a file's kernels."""
    capability = [rung.needs for rung in RUNGS if rung.needs and rung.name[:7] == file.stem[:7]]
    return int(max(capability, default="7.5").replace(".", ""))


CASES = [
    pytest.param(file, architecture, double, id=f"{file.stem}-sm_{architecture}{'-f64' * double}")
    for file in FILES
    for architecture in ARCHITECTURES
    for double in (False, True)
    if architecture >= needs(file) and not (double and re.search("tf32|bf16", file.stem))
]


@pytest.mark.parametrize(("file", "architecture", "double"), CASES)
def test_no_local_memory(file, architecture, double):
    """No register is spilled, no array is indexed at run time: both would go through memory."""
    reports = machine_code.reports(file, architecture, double)
    assert sorted(reports) == sorted(machine_code.kernels_of(file))
    for report in reports.values():
        assert (report.stack, report.spills) == (0, 0), report
        assert report.registers <= 255
        assert report.shared <= 48 << 10, "more than a kernel gets without asking"
        assert report.blocks >= 1


CLAIMS = re.compile(
    r"^// Registers +(\d+); (?:shared memory ([\d.]+) KiB|no shared memory); (\d+) blocks? a multiprocessor"
    r"(?:; (\d+) % multiply-adds)?\.(?:  Needs sm_(\d+)\.)?$",
    flags=re.M,
)


LADDERS = [file for file in FILES if file.stem.startswith(("gemm", "conv"))]


@pytest.mark.parametrize("file", LADDERS, ids=lambda file: file.stem)
def test_the_numbers_of_a_files_header(file):
    """Of all its kernels for sm_90: the most registers and shared memory, the fewest blocks a multiprocessor, and the
    least share of multiply-adds in a main loop through tiles in shared memory."""
    text = file.read_text(encoding="utf-8")
    (registers, shared, blocks, share, needed), *more = CLAIMS.findall(text)
    assert not more
    reports = machine_code.reports(file).values()
    found = max(r.registers for r in reports), max(r.shared for r in reports), min(r.blocks for r in reports)
    assert found == (int(registers), float(shared or 0) * 1024, int(blocks))
    shares = [r.share for r in reports if r.shared and r.multiply_adds >= 32]
    assert int(100 * min(shares, default=0)) == int(share or 0)
    assert int(needed or 75) == needs(file)


def test_the_ladder_of_float_climbs():
    """Each rung leaves more of the loop to multiply-adds than the rung whose loop it changes."""
    ladder = ("gemm_03_shared", "gemm_04_registers", "gemm_07_warps", "gemm_11_wide")
    shares = [machine_code.report(rung).share for rung in ladder]
    assert shares == sorted(shares)
    assert shares[-1] > 0.88


def test_occupancy():
    """Examples of NVIDIA's occupancy calculator."""
    assert machine_code.blocks_of(90, 256, 128, 16896) == 2
    assert machine_code.blocks_of(90, 256, 129, 16896) == 1
    assert machine_code.blocks_of(90, 256, 32, 0) == 8
    assert machine_code.blocks_of(80, 1024, 32, 48 << 10) == 2
    assert machine_code.blocks_of(75, 256, 32, 33 << 10) == 1


def test_an_unknown_kernel():
    with pytest.raises(ValueError, match="'gemm_99' is not in"):
        machine_code.report("gemm_99")


# What a rung is about must be in its machine code: kernel -> instructions of sm_80.
INSTRUCTIONS = {
    "gemm_03_shared": ["LDS", "STS", "BAR.SYNC"],
    "gemm_04_registers": ["FFMA", "LDS"],
    "gemm_05_vectors": [r"LDG\.E\.128", r"LDS\.128", r"STS\.128"],
    "gemm_06_async": [r"LDGSTS\.E\.BYPASS\.128", "LDGDEPBAR", r"LDS\.128"],
    "gemm_07_warps": ["LDGSTS", r"LDS\.128"],
    "gemm_08_split_k": ["LDGSTS", r"LDS\.128"],
    "gemm_09_tf32": ["LDGSTS", r"LDSM\.16\.M88\.4", r"HMMA\.1688\.F32\.TF32"],
    "gemm_11_wide": [r"LDGSTS\.E\.BYPASS\.128", r"LDS\.128", r"STG\.E\.128"],
    "gemm_12_3xtf32": ["LDGSTS", r"LDSM\.16\.M88\.4", r"HMMA\.1688\.F32\.TF32"],
    "gemm_10_bf16": [r"LDG\.E\.128", r"LDSM\.16\.M88\.4", r"HMMA\.16816\.F32\.BF16", r"F2F.*BF16|F2FP\.BF16"],
    "conv_02_col2im_atomic": ["RED|ATOM"],
    "conv_05_vectors": [r"LDG\.E\.128", r"LDS\.128"],
    "conv_06_async": ["LDGSTS", r"LDS\.128"],
    "conv_08_products": ["LDGSTS", r"LDS\.128"],
    "conv_09_fused": ["LDGSTS"],
    "conv_10_split_k": ["LDGSTS"],
    "conv_07_tf32": ["LDGSTS", "LDSM", r"HMMA\.1688\.F32\.TF32"],
    "conv_07_bf16": ["LDSM", r"HMMA\.16816\.F32\.BF16"],
    "conv_backward_data": ["LDGSTS", r"LDS\.128"],
    "conv_backward_weight": ["LDGSTS", r"LDS\.128"],
    "softmax_forward": [r"SHFL\.BFLY"],
    "cross_entropy_forward": [r"SHFL\.BFLY"],
}


@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_the_instructions_that_a_rung_is_about(kernel):
    (file,) = [file for file in FILES if kernel in machine_code.kernels_of(file)]
    sass = machine_code.machine_code(file, 80)
    (body,) = re.findall(rf"Function : {kernel}\n(.*?)(?=Function :|\Z)", sass, flags=re.S)
    for instruction in INSTRUCTIONS[kernel]:
        assert re.search(instruction, body), f"{kernel} has no {instruction}"
