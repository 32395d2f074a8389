"""Show which versions, backends, compilers, GPUs, MPI and data sets minires finds on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from threadpoolctl import threadpool_info

import minires
from minires import backends, data
from minires.backends.native.compiled import default_winograd, instruction_set, native
from minires.cli.common import print_json
from minires.cli.parser import Parser, add
from minires.cli.tables import print_table

EXAMPLES = ("doctor", "doctor --data-dir data --json")


def flags(parser: Parser) -> None:
    add(parser, "--data-dir --json")


def run(arguments: argparse.Namespace) -> int:
    sections = {
        "versions": _versions(),
        "processor": _processor(),
        "backends": _backends(),
        "data": _data_found(arguments.data_dir),
    }
    if arguments.json:
        print_json(sections)
        return 0
    rows, last = [], []
    for section, facts in sections.items():
        rows += [(section if i == 0 else "", name, str(fact)) for i, (name, fact) in enumerate(facts.items())]
        last.append(len(rows) - 1)
    title = "found on this machine"
    print_table(("section", "name", "found"), rows, title, drop=("section",), sections=last)
    return 0


def _versions() -> dict[str, str]:
    versions = {"minires": minires.__version__, "python": platform.python_version()}
    for name in ("numpy", "safetensors", "pillow", "matplotlib", "rich", "threadpoolctl"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def _processor() -> dict[str, str]:
    np.dot(np.ones(2), np.ones(2))  # loads NumPy's BLAS
    facts = {"machine": f"{platform.system()} {platform.machine()}", "threads": str(minires.get_num_threads())}
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    libraries = [f"{pool['internal_api']} {pool['version'] or ''}, {pool['num_threads']} threads" for pool in pools]
    facts["BLAS"] = "; ".join(libraries) or "not found by threadpoolctl"
    compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    paths = (shutil.which(name) for name in compilers if name)
    facts["C++ compiler"] = next(filter(None, paths), "none: compiled backends cannot be built")
    facts["CUDA compiler"] = shutil.which("nvcc") or "none"
    facts["GPU"] = _gpu()
    facts["MPI"] = _mpi()
    return facts


def _mpi() -> str:
    """The MPI library, found without starting MPI: a process may start it only once."""
    mpirun = shutil.which("mpirun") or "no mpirun"
    try:
        found = f"mpi4py {version('mpi4py')}"
    except PackageNotFoundError:
        return f"mpi4py is not installed (extra mpi); {mpirun}"
    import mpi4py

    mpi4py.rc.initialize = False
    try:
        return f"{minires.parallel.library()}, {found}, {mpirun}"
    except (ImportError, RuntimeError) as error:
        return f"{found}, which finds no MPI library ({' '.join(str(error).split())}); {mpirun}"


def _gpu() -> str:
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (extras cuda12x, cuda13x)"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
        return f"{', '.join(names)}; CuPy {cupy.__version__}"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__}, no usable device: {error}"


def _backends() -> dict[str, str]:
    states = {name: reason or "available" for name, reason in backends.available().items()}
    if states["native"] == "available":
        states["native"] += f": {_instruction_sets()}"
    try:
        default = backends.active().name
    except backends.BackendUnavailable as error:  # MINIRES_BACKEND names a missing backend
        default = str(error)
    return {"default": default} | states


def _instruction_sets() -> str:
    """Instruction sets of the native backend on this processor, and the one in use."""
    here = [name for name, kernels in native().instruction_sets().items() if kernels is not None]
    winograd = "on" if default_winograd() else "off"
    return f"{', '.join(here)}; uses {instruction_set('auto').name}, winograd {winograd}"


def _data_found(data_dir: str | None) -> dict[str, str]:
    return {name: str(data.find(name, data_dir) or "not found") for name in data.names()}
