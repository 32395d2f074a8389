"""Every kernel compiled to machine code without a GPU, and what must hold of that code.

Needs the `contract` extra: NVRTC, cuobjdump and nvdisasm from NVIDIA's packages.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from minires.backends.kernels.catalogue import RUNGS
from minires.backends.kernels.provider import FLUSH, compile_options, sources

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="the contract extra is not installed")

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


def tools():
    import nvidia

    folders = [Path(root) for base in nvidia.__path__ for root in Path(base).rglob("bin")]
    return os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])


@cache
def machine_code(file, architecture, double, folder):
    """Path of the cubin."""
    source = file.read_bytes()

    def checked(result):
        error, *values = result
        assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
        return values[0] if values else None

    program = checked(nvrtc.nvrtcCreateProgram(source, file.name.encode(), 0, [], []))
    options = [f"--gpu-architecture=sm_{architecture}", FLUSH, *compile_options(double)]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    code = b" " * checked(nvrtc.nvrtcGetCUBINSize(program))
    checked(nvrtc.nvrtcGetCUBIN(program, code))
    cubin = folder / f"{file.stem}-{architecture}-{double}.cubin"
    cubin.write_bytes(code)
    return cubin


def dump(cubin, what):
    environment = {**os.environ, "PATH": tools()}
    result = subprocess.run(["cuobjdump", what, cubin], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cubin")


@pytest.mark.parametrize(("file", "architecture", "double"), CASES)
def test_no_local_memory(file, architecture, double, folder):
    """No register is spilled, no array is indexed at run time: both would go through memory."""
    message = dump(machine_code(file, architecture, double, folder), "--dump-resource-usage")
    usage = re.findall(r"Function (\w+):\s+(.*)", message)
    declared = re.findall(r"^KERNEL\((\w+)\)", file.read_text(encoding="utf-8"), flags=re.M)
    assert sorted(name for name, _ in usage) == sorted(name + "_f64" * double for name in declared)
    for name, numbers in usage:
        assert re.search(r"\bSTACK:0\b", numbers), (name, numbers)
        assert re.search(r"\bLOCAL:0\b", numbers), (name, numbers)
        registers, shared = (int(re.search(rf"{key}:(\d+)", numbers)[1]) for key in ("REG", "SHARED"))
        assert registers <= 255
        assert shared <= 48 << 10, "more than a kernel gets without asking"


# What a rung is about must be in its machine code: kernel -> instructions of sm_80.
INSTRUCTIONS = {
    "gemm_03_shared": ["LDS", "STS", "BAR.SYNC"],
    "gemm_04_registers": ["FFMA", "LDS"],
    "gemm_05_vectors": [r"LDG\.E\.128", r"LDS\.128", r"STS\.128"],
    "gemm_06_async": [r"LDGSTS\.E\.BYPASS\.128", "LDGDEPBAR", r"LDS\.128"],
    "gemm_07_warps": ["LDGSTS", r"LDS\.128"],
    "gemm_08_split_k": ["LDGSTS", r"LDS\.128"],
    "gemm_09_tf32": ["LDGSTS", r"LDSM\.16\.M88\.4", r"HMMA\.1688\.F32\.TF32"],
    "gemm_10_bf16": [r"LDSM\.16\.M88\.4", r"HMMA\.16816\.F32\.BF16", r"F2F.*BF16|F2FP\.BF16"],
    "conv_02_col2im_atomic": ["RED|ATOM"],
    "conv_05_vectors": [r"LDG\.E\.128", r"LDS\.128"],
    "conv_06_async": ["LDGSTS", r"LDS\.128"],
    "conv_09_fused": ["LDGSTS"],
    "conv_07_tf32": ["LDGSTS", "LDSM", r"HMMA\.1688\.F32\.TF32"],
    "conv_07_bf16": ["LDSM", r"HMMA\.16816\.F32\.BF16"],
    "conv_backward_data": ["LDGSTS", r"LDS\.128"],
    "conv_backward_weight": ["LDGSTS", r"LDS\.128"],
    "softmax_forward": [r"SHFL\.BFLY"],
    "cross_entropy_forward": [r"SHFL\.BFLY"],
}


@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_the_instructions_that_a_rung_is_about(kernel, folder):
    (file,) = [file for file in FILES if f"KERNEL({kernel})" in file.read_text(encoding="utf-8")]
    sass = dump(machine_code(file, 80, False, folder), "-sass")
    (body,) = re.findall(rf"Function : {kernel}\n(.*?)(?=Function :|\Z)", sass, flags=re.S)
    for instruction in INSTRUCTIONS[kernel]:
        assert re.search(instruction, body), f"{kernel} has no {instruction}"
