"""Calls that run at the same time, each in a thread of its own; what one raises, the caller sees."""

from __future__ import annotations

import threading


def at_once(*calls):
    """What each call returns, all of them running at the same time."""
    found, errors, barrier = {}, [], threading.Barrier(len(calls))

    def run(place, call):
        try:
            barrier.wait(timeout=60)
            found[place] = call()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert not any(worker.is_alive() for worker in workers), "a thread hangs"
    if errors:
        raise errors[0]
    return [found[place] for place in range(len(calls))]
