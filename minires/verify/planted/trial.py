"""One kernel bug after the other, each in a process of its own: it may crash, or never end.

    python -m minires.verify.planted.trial MODULE:NAME SHARE SHARES

tries the SHARE-th share (0, 1, ...) of SHARES of a list of bugs with the modules that MINIRES_NATIVE and
MINIRES_EMULATION name, and prints a line of JSON for each: {"number": 17, "by": "check", "told": "..."}.  Number 0 is
the kernels as they are.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minires.verify.planted.mutant import Mutant

PATIENCE = 20  # seconds; the checks of a kernel as it is take less than one


def complaint(checks: tuple[Callable[[], None], ...]) -> tuple[str, str] | None:
    """By what the first complaint is, "check" or "error", and its words; None when there is none."""
    for check in checks:
        try:
            with np.errstate(all="ignore"):
                check()
        except AssertionError as error:
            return "check", str(error)
        except Exception as error:  # the emulator's, for instance: a barrier that not all threads reach
            return "error", f"{type(error).__name__}: {error}"
    return None


def tried(work: Callable[[], tuple[str, str] | None], patience: float = PATIENCE) -> tuple[str, str] | None:
    """What `work` returns, in a process of its own; ("crash", ...) if that dies, ("hang", ...) if it does not end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    heard, deadline = b"", time.monotonic() + patience
    try:
        while select.select([reading], [], [], max(deadline - time.monotonic(), 0))[0]:
            piece = os.read(reading, 1 << 16)
            if not piece:
                break
            heard += piece
        else:
            os.kill(child, signal.SIGKILL)
            return "hang", f"no answer in {patience:g} s"
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "crash", signal.Signals(os.WTERMSIG(status)).name
    if not heard:
        return "crash", "it ended without a word"
    answer: Any = json.loads(heard)
    return None if answer is None else (answer[0], answer[1])


def select_bug(number: int, module: str) -> None:
    """The bug of this number is in that module from now on, none in the other."""
    for name, variable in (("_native", "MINIRES_NATIVE"), ("_emulation", "MINIRES_EMULATION")):
        for file in Path(os.environ[variable]).glob(f"{name}*.so"):
            ctypes.c_int.in_dll(ctypes.CDLL(str(file)), "minires_planted").value = number if name == module else 0


def main(listed: str, share: int, shares: int) -> None:
    from minires import set_num_threads

    module, _, name = listed.partition(":")
    mutants: tuple[Mutant, ...] = getattr(importlib.import_module(module), name)
    set_num_threads(1)  # a process with threads cannot be forked
    # Bugs that the same checks look for go to the same process, which computes once what the checks compare with.
    together = list(dict.fromkeys(mutant.checks for mutant in mutants))
    mine = [n for n, mutant in enumerate(mutants, 1) if together.index(mutant.checks) % shares == share]

    def say(number: int, found: tuple[str, str] | None) -> None:
        by, told = found or ("", "")
        print(json.dumps({"number": number, "by": by, "told": told[:300]}), flush=True)

    # Sound kernels must pass; that also computes what the reference backend gives, which every fork then has.
    for checks in together[share::shares]:
        found = complaint(checks)
        if found:
            say(0, found)
            return
    for number in mine:
        mutant = mutants[number - 1]

        def work(number: int = number, mutant: Mutant = mutant) -> tuple[str, str] | None:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            select_bug(number, mutant.module)
            return complaint(mutant.checks)

        say(number, tried(work))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
