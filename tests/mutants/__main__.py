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
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from . import ROOMS
from .bug import Bug

ROOT = Path(__file__).resolve().parents[2]
PLANTING = Path(__file__).parent / "planting"
PRELOADED = ("numpy", "PIL.Image", "matplotlib.figure", "rich.progress", "safetensors.numpy", "psutil", "threadpoolctl")
BY = {1: "check", 2: "error", 3: "error"}  # exit codes of pytest: failed, not collected, internal error
SOUND = 600  # seconds for tests without a bug


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="plant bugs, run the tests")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)} (default: all)")
    parser.add_argument("--only", default="", help="bugs whose file or reason contains this text (default: all)")
    parser.add_argument(
        "--timeout",
        type=int,
        help="seconds for the tests of one bug (default: 30, and five times as long as without a bug)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"unknown room {unknown.pop()!r}; known are {', '.join(ROOMS)}")
    os.chdir(ROOT)
    for name in PRELOADED:  # once for all: the forked processes import minires alone
        importlib.import_module(name)
    outcomes: dict[str, dict[Bug, str]] = {}
    unsound = []
    for room in arguments.rooms or ROOMS:
        bugs = [bug for bug in ROOMS[room] if arguments.only in f"{bug.file}: {bug.why}"]
        limits = {}
        for tests in dict.fromkeys(bug.tests for bug in bugs):
            began = time.monotonic()
            if outcome := tried(tests, None, arguments.timeout or SOUND):
                unsound.append(f"{tests}: {outcome} without any bug, so its bugs are not planted")
            else:
                limits[tests] = arguments.timeout or 30 + int(5 * (time.monotonic() - began))
        outcomes[room] = {}
        for bug in bugs:
            if bug.tests not in limits:
                continue
            outcomes[room][bug] = outcome = tried(bug.tests, bug, limits[bug.tests])
            print(f"{outcome or 'SURVIVES'}: {bug}", file=sys.stderr, flush=True)
    from minires.verify.planted import Planted, Row  # not before the bugs are planted

    rows = [
        Row(
            "room",
            room,
            len(found),
            Counter(filter(None, found.values())),
            tuple(str(b) for b in found if not found[b]),
        )
        for room, found in outcomes.items()
    ]
    found = Planted(tuple(rows), tuple(unsound))
    for row in rows:
        print(f"{row.where}: {Planted((row,))}")
    print("\n".join((*(f"survives: {told}" for told in found.survivors), *found.unsound, str(found))))
    return 0 if found.holds else 1


def tried(tests: str, bug: Bug | None, timeout: int) -> str:
    """How the tests ended: "check", "error", "crash" or "hang"; "" when all of them passed."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _run(tests, bug, timeout)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        with suppress(ProcessLookupError):  # what the tests started and left running
            os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code in (4, 5):  # wrong arguments, no test found
        raise SystemExit(f"pytest {tests}: {pytest.ExitCode(code).name}")
    return "hang" if code == -signal.SIGALRM else "crash" if code < 0 else BY.get(code, "")


def _run(tests: str, bug: Bug | None, timeout: int) -> NoReturn:
    """pytest in this process, which imports minires only now."""
    signal.alarm(timeout)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if bug is not None:
        os.environ["MINIRES_PLANTED"] = json.dumps([str(ROOT / bug.file), bug.old, bug.new])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PLANTING), os.environ.get("PYTHONPATH"))))
        runpy.run_path(str(PLANTING / "sitecustomize.py"))
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *shlex.split(tests)]))


if __name__ == "__main__":
    sys.exit(main())
