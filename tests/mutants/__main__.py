"""`python -m tests.mutants [ROOM ...]`: plants one bug at a time and prints which of them the room's tests miss.

Exit code 0 when every bug was caught, 1 when one survived or a test fails without any bug.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from . import KERNELS, ROOMS, bugs, kernels
from .bug import Bug

ROOT = Path(__file__).resolve().parents[2]
PLANTING = Path(__file__).parent / "planting"
PRELOADED = ("numpy", "PIL.Image", "matplotlib.figure", "rich.progress", "safetensors.numpy", "psutil", "threadpoolctl")
BY = {1: "check", 2: "error", 3: "error"}  # exit codes of pytest: failed, not collected, internal error
OTHERWISE = {"error": "an error", "crash": "a crash", "hang": "running on and on"}
SOUND = 600  # seconds for tests without a bug


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="plant bugs, run the tests")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)} (default: all)")
    parser.add_argument("--only", default="", help="bugs whose file or reason contains this text (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th bug of a room (default: 1)")
    parser.add_argument(
        "--timeout",
        type=int,
        help="seconds for the tests of one bug (default: 30, and five times as long as without a bug)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"unknown room {unknown.pop()!r}; known are {', '.join(ROOMS)}")
    os.chdir(ROOT)
    rooms = arguments.rooms or ROOMS
    if len(rooms) == 1:
        return planted(rooms[0], arguments.only, arguments.every, arguments.timeout)
    words = ["--only", arguments.only, "--every", str(arguments.every)]
    words += [] if arguments.timeout is None else ["--timeout", str(arguments.timeout)]

    def apart(room: str) -> int:  # a room of kernels imports minires, which the other rooms must not have imported
        return subprocess.run([sys.executable, "-m", "tests.mutants", room, *words], check=False).returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return max(map(abs, pool.map(apart, rooms)))


def planted(room: str, only: str, every: int, timeout: int | None) -> int:
    """Plants the bugs of one room."""
    if room in KERNELS:  # without the user's settings, and without threads of the libraries: it forks
        for name in [name for name in os.environ if name.startswith("MINIRES_")]:
            del os.environ[name]
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    for name in PRELOADED:  # once for all: the forked processes import minires alone
        importlib.import_module(name)
    chosen = [bug for bug in bugs(room) if only in f"{bug.file}: {bug.why}"][::every]
    outcomes: dict[Bug, str] = {}
    unsound = []
    with tempfile.TemporaryDirectory(prefix="minires-planted-") as folder:
        try:
            plant = kernels.Schema(room, chosen, Path(folder)).plant if room in KERNELS and chosen else edit
        except kernels.NotPlanted as error:
            print(f"{room}: {error}")
            return 1
        for tests in dict.fromkeys(bug.tests for bug in chosen):
            began = time.monotonic()
            # The checks of kernels run here: every process that is forked then has what they computed to compare with.
            outcome = ended(partial(run, tests), SOUND) if isinstance(tests, str) else BY.get(run(tests), "")
            if outcome:
                unsound.append(f"{tests}: {outcome} without any bug, so its bugs are not planted")
                continue
            limit = timeout or 30 + int(5 * (time.monotonic() - began))
            for bug in (bug for bug in chosen if bug.tests == tests):

                def work(bug: Bug = bug) -> int:
                    plant(bug)
                    return run(bug.tests)

                outcomes[bug] = ended(work, limit)
                print(f"{outcomes[bug] or 'SURVIVES'}: {bug}", file=sys.stderr, flush=True)
    survivors = [bug for bug, by in outcomes.items() if not by]
    by = Counter(outcomes.values())
    otherwise = ", ".join(f"{by[way]} by {words}" for way, words in OTHERWISE.items() if by[way])
    count = f"{room}: {len(outcomes)} planted, {len(outcomes) - len(survivors)} caught"
    count += f" ({otherwise})" if otherwise else ""
    print("\n".join((*(f"survives: {bug}" for bug in survivors), *unsound, count)), flush=True)
    return 1 if survivors or unsound else 0


def ended(work: Callable[[], int], seconds: int) -> str:
    """How work ended in a process of its own: "check", "error", "crash" or "hang"; "" when it returned 0."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            signal.alarm(seconds)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            code = work()
        finally:
            os._exit(code)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        with suppress(ProcessLookupError):  # what the tests started and left running
            os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code in (4, 5):  # wrong arguments, no test found
        raise SystemExit(f"pytest: {pytest.ExitCode(code).name}")
    return "hang" if code == -signal.SIGALRM else "crash" if code < 0 else BY.get(code, "")


def edit(bug: Bug) -> None:
    """Plants a bug of a Python file in this process and in those that it starts, which import minires only later."""
    os.environ["MINIRES_PLANTED"] = json.dumps([str(ROOT / bug.file), bug.old, bug.new])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PLANTING), os.environ.get("PYTHONPATH"))))
    runpy.run_path(str(PLANTING / "sitecustomize.py"))


def run(tests: str | tuple[Callable[[], None], ...]) -> int:
    """Pytest's exit code; of functions 1 for a failed check and 2 for another error."""
    if isinstance(tests, str):
        return pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *shlex.split(tests)])
    import numpy as np

    for check in tests:
        try:
            with np.errstate(all="ignore"):
                check()
        except AssertionError as error:
            print(error)
            return 1
        except Exception as error:  # the emulator's, for instance: a barrier that not all threads reach
            print(f"{type(error).__name__}: {error}")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
