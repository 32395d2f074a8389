"""One process of malformed calls: `python -m tests.malformed.worker BACKEND CALLS SEED FOLDER [NAME ...]`.

Before each call the worker writes the call into FOLDER/call, so that the report of a crash or a hang names it.  At the
end FOLDER/counts.json holds the counts and the findings.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import resource
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import numpy as np
from hypothesis import strategies as st

import minires as mr
from malformed.good import FACTORIES, Files
from malformed.judge import Finding, judge, place
from malformed.values import odd
from minires._repr import shown

SECONDS = 30  # of one call
MEMORY = 8 << 30  # bytes of address space: what is absurd is a MemoryError, and not the end of the machine


def message(value: object) -> str:
    array = value.data if isinstance(value, mr.Tensor) else value
    more = ""
    if isinstance(array, np.ndarray):
        more = f" (strides {array.strides}, {'' if array.flags.writeable else 'read-only, '}first {array.ravel()[:3]})"
    return shown(value) + more


def shares(names: list[str], calls: int) -> dict[str, int]:
    """Each name as often as any other, or once more."""
    each, rest = divmod(calls, len(names))
    return {name: each + (i < rest) for i, name in enumerate(names) if each or i < rest}


def run(backend: str, calls: int, seed: int, folder: Path, names: list[str]) -> None:
    if "asan" not in os.environ.get("LD_PRELOAD", "") and "tsan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    # A place of their own: what a malformed call writes, it writes here.
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        files = Files(folder)
    names = names or list(FACTORIES)
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}

    def once(name: str, data: st.DataObject) -> None:
        good = FACTORIES[name](files)
        keys = {argument: set(map(str, v)) for argument, v in good.arguments.items() if isinstance(v, dict)}
        changed = data.draw(st.lists(st.sampled_from(sorted(good.arguments)), min_size=1, max_size=2, unique=True))
        for argument in changed:
            good.arguments[argument] = data.draw(odd(good.arguments[argument]))
        what = f"{name}({', '.join(f'{argument}={message(good.arguments[argument])}' for argument in changed)})"
        (folder / "call").write_text(what, errors="replace")
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            with mr.backend(backend), contextlib.redirect_stderr(io.StringIO()):
                counts[judge(name, good, set(changed).union(*(keys.get(argument, ()) for argument in changed)))] += 1
        except Exception as finding:  # a Finding, or what the judge itself trips over
            counts["findings"] += 1
            cause = finding.__cause__ or (None if isinstance(finding, Finding) else finding)
            at = place(cause) if cause is not None else ""
            findings.setdefault(
                f"{name} {at} {str(finding).partition(': ')[0] if at else finding}", f"{what}\n    {finding} [{at}]"
            )
        finally:
            faulthandler.cancel_dump_traceback_later()
            mr.set_num_threads(1)

    for name, share in shares(names, calls).items():

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=share,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(st.just(name), st.data())
        def calls_of(name: str, data: st.DataObject) -> None:
            once(name, data)

        calls_of()
    counts["calls"] = sum(counts.values())
    (folder / "counts.json").write_text(json.dumps({"counts": counts, "findings": list(findings.values())}))


if __name__ == "__main__":
    backend, calls, seed, folder, *names = sys.argv[1:]
    faulthandler.enable()
    run(backend, int(calls), int(seed), Path(folder).resolve(), names)
