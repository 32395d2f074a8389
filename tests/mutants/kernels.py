"""Bugs in C++ and CUDA kernels: all of them are compiled at once, and a number selects one at run time.

To compile a kernel anew for each of hundreds of bugs would take hours.  A *mutant schema* (Untch, Offutt and Harrold:
Mutation Analysis Using Mutant Schemata, 1993) holds the original and all its mutants, and a variable selects:

    sum += a * b;      becomes      sum += (minires_planted == 17 ? (a - b) : (a * b));
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .bug import Bug

CSRC = Path(__file__).parents[2] / "csrc"
# Of each room: the compiled module, the variable that names its folder, and the file that defines the number.
MODULES = {
    "cuda": ("_emulation", "MINIRES_EMULATION", "emulation/launch.cpp"),
    "cpu": ("_native", "MINIRES_NATIVE", "cpu/threads.cpp"),
}
DECLARATION = 'extern "C" int minires_planted;  // the number of the bug that is there, 0: none\n'
DEFINITION = '\nextern "C" {\n__attribute__((visibility("default"))) int minires_planted = 0;\n}\n'


class NotPlanted(Exception):
    """The kernels cannot be compiled here; the message is one line."""


def missing() -> str:
    """The program or package that compiling needs and that is missing; "" if nothing."""
    if not sys.platform.startswith("linux") or not shutil.which(os.environ.get("CXX") or "g++"):
        return "they are compiled by g++ on Linux (apt install g++)"
    if not _tool("cmake"):
        return "they are built by cmake (pip install cmake)"
    if importlib.util.find_spec("pybind11") is None:
        return "they are bound by pybind11 (pip install pybind11)"
    return ""


class Schema:
    """The compiled module of a room with every one of these bugs in it, in a folder.

    Sets the environment such that this process, which must not have loaded minires' kernels yet, loads that module.
    Raises NotPlanted with the compiler's words.
    """

    def __init__(self, room: str, bugs: Sequence[Bug], folder: Path) -> None:
        module, variable, home = MODULES[room]
        if reason := missing():
            raise NotPlanted(reason)
        _build(folder, bugs, module, home)
        os.environ[variable] = str(folder)
        (file,) = folder.glob(f"{module}*.so")
        self._number = ctypes.c_int.in_dll(ctypes.CDLL(str(file)), "minires_planted")
        self._bugs = bugs
        importlib.import_module("minires").set_num_threads(1)  # a process with threads cannot be forked

    def plant(self, bug: Bug) -> None:
        """From now on this bug is in the module, and no other."""
        self._number.value = self._bugs.index(bug) + 1


def _build(folder: Path, bugs: Sequence[Bug], module: str, home: str) -> None:
    import pybind11

    source = folder / "csrc"
    shutil.copytree(CSRC, source)
    by_file: dict[str, list[tuple[int, Bug]]] = defaultdict(list)
    for number, bug in enumerate(bugs, 1):
        by_file[bug.file].append((number, bug))
    for name, numbered in by_file.items():
        path = folder / name
        path.write_text(schema(path.read_text(encoding="utf-8"), numbered), encoding="utf-8")
    header = folder / "planted.h"
    header.write_text(DECLARATION, encoding="utf-8")
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
    compile_ = [_tool("cmake"), "--build", folder, "--target", module, "--parallel", str(os.cpu_count() or 1)]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    for command in (configure, compile_):
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
        )
        if done.returncode:
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
            raise NotPlanted(f"they do not compile: {(errors or ['cmake failed'])[0].strip()}")


def _tool(name: str) -> str:
    """The path of a program, searched in PATH and beside this Python; "" if it is missing."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.exists() else "")


def schema(source: str, numbered: Sequence[tuple[int, Bug]]) -> str:
    """The source with every bug in it, to be selected by its number."""
    at_place: dict[tuple[int, int], list[tuple[int, Bug]]] = defaultdict(list)
    for number, bug in numbered:
        at_place[bug.place(source)].append((number, bug))
    places = sorted(at_place, reverse=True)
    for earlier, later in zip(places[1:], places[:-1], strict=True):
        if earlier[1] > later[0]:
            raise ValueError(f"{at_place[earlier][0][1]} and {at_place[later][0][1]} overlap")
    for begin, end in places:
        old = source[begin:end]
        choices = [(number, bug.new) for number, bug in at_place[begin, end]]
        chosen = _statement(old, choices) if old.endswith(";") else _expression(old, choices)
        source = source[:begin] + chosen + source[end:]
    return source


def _expression(old: str, choices: Sequence[tuple[int, str]]) -> str:
    return "(" + "".join(f"minires_planted == {n} ? ({new}) : " for n, new in choices) + f"({old}))"


def _statement(old: str, choices: Sequence[tuple[int, str]]) -> str:
    return "{ " + "".join(f"if (minires_planted == {n}) {{ {new} }} else " for n, new in choices) + f"{{ {old} }} }}"
