"""The caching heap and the thread pool of csrc/cpu beside malloc and OpenMP: time and peak memory of training steps.

    python -m benchmarks.runtime [--networks NAME ...] [--allocators PATH ...] [--rounds N] [--threads N] [--write]

Compiles csrc twice more, with malloc instead of the heap and with OpenMP instead of the pool.  Needs the extra `test`.
Each side is a process of its own.  The sides take turns, round by round, with a turn of STEPS steps.  The table holds
medians of a step's time, of its ratio to the time of minires in the same round, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import minires as mr
import minires.functional as F
from benchmarks.memory import MIB
from benchmarks.tables import write_between_markers
from minires.bench.machine import describe
from minires.bench.race import peak_bytes
from minires.optim import SGD

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
BUILDS = ROOT / "build" / "runtime"
RESULTS = Path(__file__).parent / "results" / "runtime.json"
HEAD = ["network", "batch", "heap", "threads", "step", "ratio", "peak memory"]
BATCHES = {"resnet20": 128, "resnet50": 16}
STEPS = 3

# build -> its edits of csrc/cpu: (file, text that occurs once, new text)
EDITS = {
    "malloc": [
        ("memory.cpp", "    const std::size_t bytes = block_of(wanted);\n",
         "    if (!replayed_) return std::aligned_alloc(GRAIN, block_of(wanted));\n"
         "    const std::size_t bytes = block_of(wanted);\n"),
        ("memory.cpp", "    bytes = block_of(bytes);\n",
         "    if (!replayed_) return std::free(pointer);\n    bytes = block_of(bytes);\n"),
    ],
    "openmp": [
        ("cpu.cmake", "find_package(Threads REQUIRED)",
         "find_package(Threads REQUIRED)\nfind_package(OpenMP REQUIRED)"),
        ("cpu.cmake", "Threads::Threads Python::NumPy", "Threads::Threads OpenMP::OpenMP_CXX Python::NumPy"),
        ("threads.cpp", "new Pool(threads - 1)", "new Pool(0)"),
        ("threads.cpp", "    pool->run(items, body, context);\n",
         "#pragma omp parallel for schedule(dynamic) num_threads(threads)\n"
         "    for (long item = 0; item < items; item++) body(context, item);\n"),
    ],
}  # fmt: skip

# glibc that returns no memory to the system
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


def edited(build: str) -> dict[Path, str]:
    """Files, relative to csrc -> their text in a build."""
    texts: dict[Path, str] = {}
    for name, old, new in EDITS[build]:
        file = Path("cpu", name)
        text = texts.get(file) or (CSRC / file).read_text()
        if text.count(old) != 1:
            raise ValueError(f"csrc/{file}: {old!r} must occur once, not {text.count(old)} times")
        texts[file] = text.replace(old, new)
    return texts


def compiled(build: str) -> Path:
    """The folder of `minires._native` with the edits of a build.  The builds share the objects of unedited files."""
    import pybind11

    folder, texts = BUILDS / build, edited(build)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (path for path in CSRC.rglob("*") if path.is_file()):
        file = source.relative_to(CSRC)
        copy, text = BUILDS / "csrc" / file, texts.get(file) or source.read_text()
        if not copy.exists() or copy.read_text() != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text)
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if cmake is None:
        raise SystemExit("benchmarks.runtime needs cmake (pip install cmake)")
    configure = [cmake, "-S", BUILDS / "csrc", "-B", BUILDS, f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    for command in (configure, [cmake, "--build", BUILDS, "--target", "_native"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for module in BUILDS.glob("_native*.so"):
        shutil.copy(module, folder)
    return folder


def sides(allocators: Sequence[Path]) -> dict[tuple[str, str], dict[str, str]]:
    """(heap, threads) -> the environment of the side's process"""
    malloc = {"MINIRES_NATIVE": str(compiled("malloc"))}
    found = {
        ("minires", "minires"): {},
        ("minires", "OpenMP"): {"MINIRES_NATIVE": str(compiled("openmp"))},
        ("glibc", "minires"): malloc,
        ("glibc, tuned", "minires"): malloc | TUNED,
    }
    return found | {(path.name, "minires"): malloc | {"LD_PRELOAD": str(path)} for path in allocators}


def serve(network: str, batch: int) -> None:
    """In a side's process: for each line of stdin, prints the seconds of a step and the peak memory in bytes."""
    rng = np.random.default_rng(0)
    model = mr.models.create(network).fuse(training=True)
    sgd = SGD(model.parameters(), 0.0, 0.9, 1e-4)
    x = mr.tensor(rng.standard_normal((batch, *mr.models.input_shape(network)), np.float32))
    labels = rng.integers(0, 10, batch)
    with mr.backend("native"):
        for _ in sys.stdin:
            start = time.perf_counter()
            for _ in range(STEPS):
                sgd.zero_grad()
                F.cross_entropy(model(x), labels).backward()
                sgd.step()
            print(json.dumps([(time.perf_counter() - start) / STEPS, peak_bytes()]), flush=True)


@contextmanager
def process(network: str, batch: int, threads: int, environment: dict[str, str]) -> Iterator[Any]:
    words = [sys.executable, "-m", "benchmarks.runtime", "--serve", network, str(batch), "--threads", str(threads)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=os.environ | environment, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as side:
        yield side


def race(network: str, batch: int, threads: int, rounds: int, environments: dict[Any, dict[str, str]]) -> list[Any]:
    """A row for each side: heap, threads, seconds of a step, ratio, bytes.  The first round warms up."""
    with ExitStack() as stack:
        started = {key: stack.enter_context(process(network, batch, threads, env)) for key, env in environments.items()}
        times: dict[Any, list[float]] = {key: [] for key in started}
        peaks = {}
        for _ in range(rounds + 1):
            for key, side in started.items():
                side.stdin.write("\n")
                side.stdin.flush()
                seconds, peaks[key] = json.loads(side.stdout.readline())
                times[key].append(seconds)
        own = times["minires", "minires"][1:]
        ratios = {key: statistics.median(t / o for t, o in zip(times[key][1:], own, strict=True)) for key in times}
        return [[*key, statistics.median(times[key][1:]), ratios[key], peaks[key]] for key in times]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=BATCHES, default=[*BATCHES], help="networks (default: all)")
    parser.add_argument("--allocators", nargs="+", type=Path, default=[], help="libraries to preload, such as mimalloc")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds (default: 9)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all)")
    parser.add_argument("--write", action="store_true", help="write results/ and the table of benchmarks/README.md")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        mr.set_num_threads(args.threads)
        serve(args.serve[0], int(args.serve[1]))
        return 0
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    for path in args.allocators:
        if not path.is_file():
            parser.error(f"--allocators: no such file: {path}")
    environments = sides([path.resolve() for path in args.allocators])
    table, rows = Table(*HEAD), []
    for network in args.networks:
        for heap, threads, seconds, ratio, size in race(
            network, BATCHES[network], args.threads, args.rounds, environments
        ):
            figures = [f"{1e3 * seconds:.1f} ms", f"{ratio:.3f}", f"{size / MIB:,.0f} MiB"]
            rows.append([network, str(BATCHES[network]), heap, threads, *figures])
            table.add_row(*rows[-1])
    Console(width=120).print(table)
    if args.write:
        machine = describe(args.threads, "numpy") | {"rounds": args.rounds}
        RESULTS.write_text(json.dumps({"machine": machine, "head": HEAD, "rows": rows}, indent=1) + "\n")
        write_between_markers("runtime", HEAD, rows, machine)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
