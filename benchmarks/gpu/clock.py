"""How long the device computes, without the time in which it waits for the host.

Before each measured call a kernel spins on the device.  Meanwhile the host queues the first event, the call's launches
and the last event, so that the device runs them one after another.  The first event must not have passed when the last
is queued; else the spin was too short and the time counts as one with gaps.  L2 is flushed before each call by reading
a large array: a write would leave modified lines, which the measured call would have to write back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long begin = clock64();
    while (clock64() - begin < cycles) {}
}
"""
L2 = 256 << 20  # bytes: more than the L2 of any GPU
WARM = 2  # calls of each contender before the first that counts
SHORTEST, LONGEST = 2**18, 2**27  # cycles of a spin: some 0.1 ms, and less than 0.1 s
CLOCK_RATE, MULTIPROCESSORS = 13, 16  # cudaDevAttrClockRate (kHz), cudaDevAttrMultiProcessorCount
LANES = {"70": 64, "72": 64, "75": 64, "80": 64}  # fp32 units of a multiprocessor; 128 in all later ones


class ClockError(RuntimeError):
    """The clock or a peer gives times that cannot be true: nothing else that it measures can be trusted."""


@dataclass(frozen=True)
class Time:
    """Seconds of one call.

    median, low, high   of the repeats
    gaps                whether the device may have waited for the host within it
    """

    median: float
    low: float
    high: float
    gaps: bool


class Clock:
    """Measures calls on CuPy's current stream.

    repeats   of each call
    seconds   after which a race ends, with at least three repeats
    """

    def __init__(self, cupy: Any, repeats: int = 9, seconds: float = 2.0) -> None:
        self.cupy, self.repeats, self.seconds = cupy, repeats, seconds
        device, attribute = cupy.cuda.Device(), cupy.cuda.runtime.deviceGetAttribute
        self.hertz = 1e3 * attribute(CLOCK_RATE, device.id)
        lanes = LANES.get(device.compute_capability, 128)
        self.peak = 2 * lanes * attribute(MULTIPROCESSORS, device.id) * self.hertz  # fp32 operations a second
        self._spin = cupy.RawModule(code=SPIN, options=("-std=c++17",)).get_function("spin")
        self._flush = cupy.zeros(L2, np.uint8)
        self._begin, self._end = cupy.cuda.Event(), cupy.cuda.Event()

    def race(self, calls: Mapping[str, Callable[[], Any]], spin: bool = True) -> dict[str, Time]:
        """Times of the calls, in turn.  Without a spin, gaps between launches are part of the times."""
        taken: dict[str, list[float]] = {name: [] for name in calls}
        gaps = dict.fromkeys(calls, not spin)
        cycles = dict.fromkeys(calls, SHORTEST if spin else 0)
        began = time.monotonic()
        for number in range(WARM + self.repeats):
            if number >= WARM + 3 and time.monotonic() - began > self.seconds:
                break
            for name, call in calls.items():
                seconds, hidden = self._once(call, cycles[name])
                while spin and not hidden and cycles[name] < LONGEST:
                    cycles[name] *= 8
                    seconds, hidden = self._once(call, cycles[name])
                if number >= WARM:
                    taken[name].append(seconds)
                    gaps[name] |= not hidden
        return {name: Time(statistics.median(t), min(t), max(t), gaps[name]) for name, t in taken.items()}

    def _once(self, call: Callable[[], Any], cycles: int) -> tuple[float, bool]:
        """(seconds, whether all of it was queued before the device reached it)"""
        self._flush.max()
        if cycles:
            self._spin((1,), (1,), (np.int64(cycles),))
        self._begin.record()
        call()
        self._end.record()
        hidden = not self._begin.done
        self._end.synchronize()
        return 1e-3 * self.cupy.cuda.get_elapsed_time(self._begin, self._end), hidden

    def check(self, calls: Mapping[str, Callable[[], Any]], operations: int) -> None:
        """Raises ClockError for times that cannot be true.

        calls        a peer's calls in fp32, by name: a product of matrices and a 1×1 convolution, as neither has an
                     algorithm with fewer operations
        operations   of each call
        """
        cycles = int(0.01 * self.hertz)
        spun = min(self._once(lambda: self._spin((1,), (1,), (np.int64(cycles),)), 0)[0] for _ in range(3))
        self._within("a spin", spun, cycles / self.hertz, 100)
        for name, taken in self.race(calls).items():
            self._within(f"the peer's fp32 {name}", taken.median, operations / self.peak, 10)

    def _within(self, what: str, taken: float, floor: float, factor: float) -> None:
        if not 0.95 * floor <= taken <= factor * floor:
            limits = f"{1e3 * floor:.3g} ms at the device's peak, and at most {factor:g} times as long"
            reason = "its work may be on another stream, or in another precision"
            raise ClockError(f"{what} took {1e3 * taken:.3g} ms, but needs {limits}: {reason}")
