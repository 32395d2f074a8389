"""The kernels compiled with every bug in them, see `mutant`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from minires.verify.planted.mutant import DECLARATION, DEFINITION, Mutant, plant

CSRC = Path(__file__).parents[3] / "csrc"
HOMES = {"_emulation": "emulation/launch.cpp", "_native": "cpu/threads.cpp"}  # where each module's number lives


class NotPlanted(Exception):
    """The kernels cannot be compiled here; the message is one line."""


def missing() -> str:
    """What is not there that compiling needs; "" if nothing."""
    if not (CSRC / "emulation").is_dir():
        return "csrc, the kernels' sources, is not part of an installed package: run it in a checkout"
    if not sys.platform.startswith("linux") or not shutil.which(os.environ.get("CXX") or "g++"):
        return "they are compiled by g++ on Linux (apt install g++)"
    if not _tool("cmake"):
        return "they are built by cmake (pip install cmake)"
    if importlib.util.find_spec("pybind11") is None:
        return "they are bound by pybind11 (pip install pybind11)"
    return ""


def build(folder: Path, mutants: Sequence[Mutant], jobs: int) -> None:
    """Compiles those of minires._native and minires._emulation that have bugs into the folder.

    Raises NotPlanted with the compiler's words.
    """
    import pybind11

    source = folder / "csrc"
    shutil.copytree(CSRC, source)
    plant(source, mutants)
    header = folder / "planted.h"
    header.write_text(DECLARATION, encoding="utf-8")
    for home in HOMES.values():
        with (source / home).open("a", encoding="utf-8") as file:
            file.write(DEFINITION)
    # Compiling takes longer than the checks: one instruction set, the one that every processor has, hardly optimised.
    recipe = source / "cpu" / "cpu.cmake"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("-O3", "-O1"), encoding="utf-8")
    configure = [
        _tool("cmake"), "-S", source, "-B", folder, *(("-G", "Ninja") if _tool("ninja") else ()),
        "-DMINIRES_FOR_X86=OFF", "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF", "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
        f"-DCMAKE_CXX_FLAGS=-w -include {header}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    modules = sorted({mutant.module for mutant in mutants})
    compile_ = [_tool("cmake"), "--build", folder, "--target", *modules, "--parallel", str(jobs)]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    for command in (configure, compile_):
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
        )
        if done.returncode:
            told = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
            raise NotPlanted(f"they do not compile: {(told or ['cmake failed'])[0].strip()}")


def _tool(name: str) -> str:
    """The program, on the path or beside this Python; "" where there is none."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.exists() else "")
