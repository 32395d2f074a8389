"""One kernel in gdb: your own .cu file, or a rung of the ladders, compiled for the CPU without optimisation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minires._checks import choice, integer
from minires._repr import shown
from minires.arrays import Array, channels_first, channels_last
from minires.backends import reference
from minires.backends.kernels import own_build
from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS
from minires.backends.kernels.own import SIZES, OwnKernel, read
from minires.backends.kernels.provider import emulation_sources, sources
from minires.backends.unavailable import BackendUnavailable
from minires.kernels.launches import launches_of

DEFAULTS = {
    "gemm": {"M": 150, "N": 70, "K": 40},
    "conv2d": {"N": 2, "C": 5, "H": 9, "W": 7, "O": 6, "KH": 3, "KW": 3, "stride": 2, "padding": 1},
}
FLAGS = ("-g", "-O0", "-std=c++17", "-Wno-unknown-pragmas")
SHOWN = ("print threadIdx", "info args", "backtrace 1")  # by gdb without a prompt


@dataclass(frozen=True)
class Step:
    """One launch of a kernel.

    arguments   integers, and for an array the number of its elements (csrc/emulation/step.cpp fills it)
    expected    the right output, or None where the launch is one of several
    """

    kernel: OwnKernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    arguments: tuple[int, ...]
    expected: Array | None

    def program(self, flags: Sequence[str] = FLAGS, scheduler: Sequence[str] = FLAGS) -> Path:
        """step.cpp compiled with the kernel."""
        objects = own_build.scheduler(scheduler)
        return own_build.build(self.kernel, emulation_sources() / "step.cpp", "step", flags, objects)

    def command(self, program: Path, seed: int = 0) -> list[str]:
        """The program's command line."""
        words = "-".join(map(str, self.arguments))
        expected = program.with_name(f"expected-{words}.float32")
        if self.expected is not None:
            expected.write_bytes(self.expected.astype(np.float32).tobytes())
        three = [",".join(map(str, (*sizes, 1, 1)[:3])) for sizes in (self.grid, self.block)]
        file = "-" if self.expected is None else str(expected)
        return [str(program), *three, str(self.shared), str(seed), file, *map(str, self.arguments)]

    def stop(self, line: str | None, thread: Sequence[int]) -> str:
        """gdb's command for a breakpoint: at a line, given by its number or text, or where the kernel begins.

        Raises ValueError for a thread outside of the block, BackendUnavailable without gdb.
        """
        if shutil.which("gdb") is None:
            raise BackendUnavailable("gdb is not installed (apt install gdb)")
        if any(index >= size for index, size in zip(thread, (*self.block, 1, 1), strict=False)):
            block, came = (",".join(map(str, sizes)) for sizes in (self.block, thread))
            raise ValueError(f"thread must lie in the block, which is {block}; got {came}")
        place = self.kernel.name if line is None else f"{self.kernel.path.name}:{self._number(line)}"
        condition = " && ".join(f"threadIdx.{axis} == {index}" for axis, index in zip("xyz", thread, strict=False))
        return f"break {place}{f' if {condition}' if condition else ''}"

    def _number(self, line: str) -> int:
        lines = self.kernel.text.splitlines()
        if line.isdecimal() and 1 <= int(line) <= len(lines):
            return int(line)
        found = [number for number, text in enumerate(lines, 1) if line in text]
        if len(found) != 1:
            came = f"{shown(line)}, which {len(found)} lines contain"
            raise ValueError(f"break must be a line from 1 to {len(lines)} or the text of one; got {came}")
        return found[0]


def gdb(command: Sequence[str], stop: str, then: Sequence[str], batch: bool) -> list[str]:
    """gdb's command line: it stops there and runs the commands `then`; `batch`: without a prompt."""
    commands = ["set pagination off", "set width 0", stop, "run", *(then or (SHOWN if batch else ()))]
    start = ["gdb", "-q", *["-batch"] * batch]
    return [*start, *(word for text in commands for word in ("-ex", text)), "--args", *command]


def step(target: str, kind: str | None, sizes: dict[str, int]) -> Step:
    """The launch of a .cu file (`kind` is what it computes) or of a rung, for sizes that change `DEFAULTS`.

    Of a rung with several launches, the first.
    """
    own = target.endswith(".cu")
    rungs = {**dict.fromkeys(GEMMS, "gemm"), **dict.fromkeys(CONVOLUTIONS, "conv2d")}
    kind = choice(kind, "as", SIZES) if own else rungs[choice(target, "kernel", rungs)]
    for name, size in sizes.items():
        integer(size, choice(name, "size", SIZES[kind]), 0 if name == "padding" else 1, 4096)
    chosen = DEFAULTS[kind] | sizes
    left, right, out = _arrays(kind, chosen, own)
    if own:
        kernel = read(target, kind)
        grid, block = kernel.launch_of(**chosen)
        counts = (left.size, right.size, out.size)
        shared, numbers = kernel.shared_of(**chosen), tuple(chosen[name] for name in SIZES[kind])
        return Step(kernel, grid, block, shared, counts + numbers, out)
    return _of_rung(target, kind, chosen, left, right, out)


def _of_rung(rung: str, kind: str, sizes: dict[str, int], left: Array, right: Array, out: Array) -> Step:
    result = np.empty_like(out)
    name, grid, block, arguments = launches_of(rung, sizes, left, right, result)[0]
    declared = re.compile(rf"^KERNEL\({name}\)", re.M)
    path, text = next((f, t) for f in sources().glob("*.cu") if declared.search(t := f.read_text(encoding="utf-8")))
    line = text.count("\n", 0, declared.search(text).start()) + 1  # type: ignore[union-attr]
    last = [a for a in arguments if isinstance(a, np.ndarray)][-1]
    numbers = tuple(a.size if isinstance(a, np.ndarray) else int(a) for a in arguments)
    kernel = OwnKernel(path, kind, name, line, text, True, {})
    return Step(kernel, grid, block, 0, numbers, out if np.shares_memory(last, result) else None)


def _arrays(kind: str, sizes: dict[str, int], own: bool) -> tuple[Array, Array, Array]:
    """Both operands as step.cpp fills them, and the right output; a rung's images are channels-last."""
    if kind == "gemm":
        a, b = _pattern(0, sizes["M"], sizes["K"]), _pattern(1, sizes["K"], sizes["N"])
        return a, b, a @ b
    N, C, H, W, O, KH, KW, stride, padding = (sizes[name] for name in SIZES["conv2d"])
    x = _pattern(0, N, C, H, W) if own else _pattern(0, N, H, W, C)
    w = _pattern(1, O, C, KH, KW) if own else _pattern(1, O, KH, KW, C)
    operands = (x, w) if own else (channels_first(x), channels_first(w))
    y = reference.conv2d_forward(*operands, None, (stride,) * 2, (padding,) * 2, (1, 1), 1)
    return x, w, y if own else channels_last(y)


def _pattern(k: int, *shape: int) -> Array:
    """Array number k, as `fill` in step.cpp computes it."""
    bits = (np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(1000003 * k)) * np.uint32(2654435761)
    bits = (bits ^ bits >> np.uint32(15)) * np.uint32(2246822519)
    return ((bits >> np.uint32(13)) % np.uint32(7)).astype(np.float32).reshape(shape) - 3
