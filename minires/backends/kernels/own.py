"""A kernel of your own: one .cu file, whose first line holds its launch (launch_line.py).

    // launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
    extern "C" __global__ void mine(const float* A, const float* B, float* C, int M, int N, int K) { ... }

kind     arguments
gemm     (const float* A, const float* B, float* C, int M, int N, int K): C = A·B, row-major
conv2d   (const float* x, const float* w, float* y, int N, int C, int H, int W, int O, int KH, int KW, int stride,
         int padding): x NCHW, w OIHW, y (N, O, OH, OW)

Arrays are contiguous.  The launch has the names of these integers; conv2d's also OH and OW.  A kernel of `real` instead
of float (csrc/cuda/common.cuh) computes in float32 and in float64, which finite differences need.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from minires import _atomic, _checks
from minires.backends.kernels import launch_line
from minires.backends.kernels.provider import LARGEST_GRID

SIZES = {"gemm": ("M", "N", "K"), "conv2d": ("N", "C", "H", "W", "O", "KH", "KW", "stride", "padding")}
ARRAYS = {"gemm": ("A", "B", "C"), "conv2d": ("x", "w", "y")}
EXAMPLES = {
    "gemm": "// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))",
    "conv2d": "// launch: block=256 grid=(ceil(OH*OW/256), O, N)",
}
LARGEST_BLOCK = (1024, 1024, 64)
MOST_THREADS = 1024
MOST_SHARED = 227 << 10  # bytes a block, of compute capability 9.0
LARGEST_FILE = 1 << 20  # bytes
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)  # or a string, which may hold //
_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf'(extern\s+"C"\s+)?__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)')
_DYNAMIC = re.compile(r"\bextern\s+__shared__\b")
Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class OwnKernel:
    """What `read` found in a file.

    kind    "gemm" or "conv2d"
    name    the function's
    line    where the function begins, from 1
    text    the file's
    real    whether the arguments are `real`: the kernel computes in float64 too
    """

    path: Path
    kind: str
    name: str
    line: int
    text: str
    real: bool
    launch: launch_line.Launch

    def launch_of(self, **sizes: int) -> tuple[Sizes, Sizes]:
        """(grid, block) for the sizes `SIZES[kind]`.  Raises ValueError for a launch that no GPU accepts."""
        grid, block = self._three("grid", sizes, LARGEST_GRID), self._three("block", sizes, LARGEST_BLOCK)
        if math.prod(block) > MOST_THREADS:
            raise self._error(f"block has {math.prod(block)} threads, {block}; 1 to {MOST_THREADS} are allowed")
        return grid, block

    def shared_of(self, **sizes: int) -> int:
        """Bytes of dynamic shared memory for the sizes; 0 without `shared=`."""
        (size,) = self._values("shared", sizes) if "shared" in self.launch else (0,)
        if not 0 <= size <= MOST_SHARED:
            raise self._error(f"shared is {size} bytes for {launch_line.shown(sizes)}; 0 to {MOST_SHARED} are allowed")
        return size

    def _three(self, part: str, sizes: dict[str, int], largest: Sizes) -> Sizes:
        x, y, z = [*self._values(part, sizes), 1, 1][:3]
        if not all(1 <= size <= most for size, most in zip((x, y, z), largest, strict=True)):
            allowed = f"(1, 1, 1) to {largest} are allowed"
            raise self._error(f"{part} is {(x, y, z)} for {launch_line.shown(sizes)}; {allowed}")
        return x, y, z

    def _values(self, part: str, sizes: dict[str, int]) -> list[int]:
        if set(sizes) != set(SIZES[self.kind]):
            raise ValueError(f"sizes must be {', '.join(SIZES[self.kind])}; got {', '.join(sizes)}")
        known = {name: _checks.integer(size, name, 0) for name, size in sizes.items()}
        if self.kind == "conv2d":
            for side in "HW":
                windows = (sizes[side] + 2 * sizes["padding"] - sizes[f"K{side}"]) // sizes["stride"] + 1
                known[f"O{side}"] = max(windows, 0)
        try:
            return launch_line.values(self.launch, part, known)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _error(self, message: str, line: int = 1) -> ValueError:
        return ValueError(f"{self.path}:{line}: {message}")


def read(path: str | Path, kind: str) -> OwnKernel:
    """The kernel of a file.  Raises ValueError, with file and line, for a file that lacks the form above."""
    _checks.choice(kind, "kind", SIZES)
    path = _checks.path(path, "path")
    try:
        text = _atomic.read_bytes(path, LARGEST_FILE).decode()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the kernel cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def at(line: int, message: str) -> ValueError:
        return ValueError(f"{path}:{line}: {message}")

    try:
        names = (*SIZES[kind], *(("OH", "OW") if kind == "conv2d" else ()))
        launch = launch_line.parse(text.partition("\n")[0], names, EXAMPLES[kind])
    except ValueError as wrong:
        raise at(1, str(wrong)) from None
    code = without_comments(text)
    found = list(_KERNEL.finditer(code))
    lines = [code.count("\n", 0, kernel.start()) + 1 for kernel in found]
    form = f'extern "C" __global__ void {path.stem if path.stem.isidentifier() else "mine"}{_signature(kind)}'
    if not found:
        raise at(1, f"the file has no kernel; write {form}")
    if len(found) > 1:
        raise at(lines[1], f"the file has {len(found)} kernels, at lines {lines}; keep one, {form}")
    external, name, arguments = found[0].groups()
    if not external:
        raise at(lines[0], f'{name} lacks extern "C", so that its name is mangled; write {form}')
    came = [_argument(argument) for argument in arguments.split(",")]
    real = came[0][0] == "const real*"
    order = [name.lower() for _, name in came], [name.lower() for name in (*ARRAYS[kind], *SIZES[kind])]
    permuted = order[0] != order[1] and sorted(order[0]) == sorted(order[1])
    if [type for type, _ in came] != _types(kind, "real" if real else "float") or permuted:
        takes = " ".join(arguments.split())
        raise at(lines[0], f"{name} takes ({takes}); a {kind} kernel takes {_signature(kind)}")
    if "shared" not in launch and (dynamic := _DYNAMIC.search(code)):
        line = code.count("\n", 0, dynamic.start()) + 1
        raise at(line, "extern __shared__ has no size; add shared=BYTES to the launch line")
    return OwnKernel(path, kind, name, lines[0], text, real, launch)


def without_comments(text: str) -> str:
    """The text with spaces for its comments, in the same lines."""
    return _COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else re.sub(r"[^\n]", " ", m[0]), text)


def _types(kind: str, real: str) -> list[str]:
    return [f"const {real}*", f"const {real}*", f"{real}*"] + ["int"] * len(SIZES[kind])


def _signature(kind: str) -> str:
    pairs = zip(_types(kind, "float"), (*ARRAYS[kind], *SIZES[kind]), strict=True)
    return f"({', '.join(' '.join(pair) for pair in pairs)})"


def _argument(text: str) -> tuple[str, str]:
    """(type, name) of an argument such as "const float* __restrict__ A"; the name may be missing."""
    words = [word for word in re.findall(r"\w+|\S", text) if not word.startswith("__restrict")]
    name = words.pop() if len(words) > 1 and words[-1] not in ("*", "int", "float", "real", "const") else ""
    stars = words.count("*")
    base = words[: words.index("*")] if stars else words
    constant = "const " if stars and "const" in base else ""
    return constant + " ".join(word for word in base if word != "const") + "*" * stars, name
