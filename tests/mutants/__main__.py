"""`python -m tests.mutants [ROOM ...]`: plants one bug at a time and prints which of them the room's tests miss.

Exit code 0 when every bug was caught, 1 when one survived or a test fails without any bug.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from minires.verify.planted import Planted, Row
from . import ROOMS
from .bug import Bug

ROOT = Path(__file__).resolve().parents[2]
PLANTING = Path(__file__).parent / "planting"
BY = {1: "check", 2: "error", 3: "error"}  # exit codes of pytest: failed, not collected, internal error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="plant bugs, run the tests")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)} (default: all)")
    parser.add_argument("--only", default="", help="bugs whose file or reason contains this text (default: all)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for the tests of one bug (default: 600)")
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"unknown room {unknown.pop()!r}; known are {', '.join(ROOMS)}")
    rows, unsound = [], []
    for room in arguments.rooms or ROOMS:
        bugs = [bug for bug in ROOMS[room] if arguments.only in f"{bug.file}: {bug.why}"]
        for tests in dict.fromkeys(bug.tests for bug in bugs):
            if outcome := tried(tests, None, arguments.timeout):
                unsound.append(f"{tests}: {outcome} without any bug")
        outcomes = {bug: tried(bug.tests, bug, arguments.timeout) for bug in bugs}
        survivors = tuple(f"survives: {bug}" for bug, outcome in outcomes.items() if not outcome)
        rows.append(Row("room", room, len(bugs), Counter(filter(None, outcomes.values())), survivors))
        print("\n".join((f"{room}: {Planted(tuple(rows[-1:]))}", *survivors)), flush=True)
    found = Planted(tuple(rows), tuple(unsound))
    print("\n".join((*found.unsound, str(found))))
    return 0 if found.holds else 1


def tried(tests: str, bug: Bug | None, timeout: int) -> str:
    """How the tests ended: "check", "error", "crash" or "hang"; "" when all of them passed."""
    environment = dict(os.environ)
    if bug is not None:
        environment["MINIRES_PLANTED"] = json.dumps([str(ROOT / bug.file), bug.old, bug.new])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PLANTING), environment.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "hang"
    if done.returncode in (4, 5):  # wrong arguments, no test found
        raise SystemExit(f"pytest {tests}:\n{done.stdout}{done.stderr}")
    return "crash" if done.returncode < 0 else BY.get(done.returncode, "")


if __name__ == "__main__":
    sys.exit(main())
