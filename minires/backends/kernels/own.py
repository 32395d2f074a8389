"""A kernel of your own: one .cu file, whose first line holds its launch.

    // launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
    extern "C" __global__ void mine(const float* A, const float* B, float* C, int M, int N, int K) { ... }

kind     arguments
gemm     (const float* A, const float* B, float* C, int M, int N, int K), C = A·B, row-major
conv2d   (const float* x, const float* w, float* y, int N, int C, int H, int W, int O, int KH, int KW, int stride,
         int padding), x NCHW, w OIHW

Arrays are contiguous.  `real` of common.cuh in place of float: the file is compiled for float32 and for float64.

The launch has one to three sizes of `block` and of `grid`, and `shared=BYTES` for `extern __shared__` memory.  Each is
an expression of integers, the kernel's integers by the names above (conv2d: OH and OW too), + - * / // % ( ) ceil()
min() max().  / is exact division, so that its result needs ceil() unless it is whole; // rounds down.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from minires import _atomic, _checks
from minires.backends.kernels.provider import LARGEST_GRID

SIZES = {"gemm": ("M", "N", "K"), "conv2d": ("N", "C", "H", "W", "O", "KH", "KW", "stride", "padding")}
ARRAYS = {"gemm": ("A", "B", "C"), "conv2d": ("x", "w", "y")}
DERIVED = {"gemm": (), "conv2d": ("OH", "OW")}
EXAMPLES = {
    "gemm": "// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))",
    "conv2d": "// launch: block=(256) grid=(ceil(OH*OW/256), O, N)",
}
LARGEST_BLOCK = (1024, 1024, 64)
MOST_THREADS = 1024
MOST_SHARED = 227 * 1024  # bytes, of compute capability 9.0
LARGEST_FILE = 2**20  # bytes

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {"ceil": math.ceil, "min": min, "max": max}
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)
_KERNEL = re.compile(
    r'(extern\s+"C"\s+)?__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?'
    r"(\w+)\s*\(([^)]*)\)"
)
Sizes3 = tuple[int, int, int]


@dataclass(frozen=True)
class OwnKernel:
    """What `read` found in a file.

    kind       "gemm" or "conv2d"
    name       the function's
    line       where the function begins, from 1
    text       the file's
    precision  "float", or "real" for both precisions
    launch     "block", "grid" and perhaps "shared" -> expressions
    """

    path: Path
    kind: str
    name: str
    line: int
    text: str
    precision: str
    launch: Mapping[str, tuple[ast.expr, ...]]

    def launch_of(self, **sizes: int) -> tuple[Sizes3, Sizes3]:
        """(grid, block) for the sizes `SIZES[kind]`.  Raises ValueError for a launch that no GPU accepts."""
        grid = self._three("grid", sizes, LARGEST_GRID)
        block = self._three("block", sizes, LARGEST_BLOCK)
        if math.prod(block) > MOST_THREADS:
            raise self._error(1, f"block has {math.prod(block)} threads {block}; a GPU allows {MOST_THREADS}")
        return grid, block

    def shared_of(self, **sizes: int) -> int:
        """Bytes of dynamic shared memory for the sizes; 0 without `shared=`."""
        if "shared" not in self.launch:
            return 0
        (value,) = self._values("shared", sizes)
        if not 0 <= value <= MOST_SHARED:
            raise self._error(1, f"shared is {value} bytes; 0 to {MOST_SHARED} are allowed")
        return value

    def _three(self, part: str, sizes: Mapping[str, int], largest: Sizes3) -> Sizes3:
        values = [*self._values(part, sizes), 1, 1][:3]
        if not all(1 <= value <= most for value, most in zip(values, largest, strict=True)):
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise self._error(1, f"{part} is {tuple(values)} for {given}; 1 to {largest} are allowed")
        return values[0], values[1], values[2]

    def _values(self, part: str, sizes: Mapping[str, int]) -> list[int]:
        if set(sizes) != set(SIZES[self.kind]):
            raise ValueError(f"sizes of a {self.kind} kernel must be {', '.join(SIZES[self.kind])}; got {[*sizes]}")
        known = dict(sizes)
        if self.kind == "conv2d":
            for side in ("H", "W"):
                known[f"O{side}"] = (sizes[side] + 2 * sizes["padding"] - sizes[f"K{side}"]) // sizes["stride"] + 1
        values = []
        for expression in self.launch[part]:
            try:
                value = _value(expression, known)
            except ZeroDivisionError:
                raise self._error(1, f"{part}: {ast.unparse(expression)} divides by zero for {dict(sizes)}") from None
            if value != int(value):
                remedy = "write ceil(...) to round up or // to round down"
                raise self._error(1, f"{part}: {ast.unparse(expression)} is {value}, not an integer; {remedy}")
            values.append(int(value))
        return values

    def _error(self, line: int, message: str) -> ValueError:
        return ValueError(f"{self.path}:{line}: {message}")


def read(path: str | Path, kind: str) -> OwnKernel:
    """The kernel of a file.  Raises ValueError, with file and line, for a file that lacks the form above."""
    _checks.choice(kind, "kind", SIZES)
    path = _checks.path(path, "path")
    try:
        text = _atomic.read_bytes(path, LARGEST_FILE).decode()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no kernel can be read: {getattr(error, 'strerror', None) or error}") from None
    code = _COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else re.sub(r"[^\n]", " ", m[0]), text)
    launch = _launch(path, kind, text.partition("\n")[0])
    kernels = list(_KERNEL.finditer(code))
    lines = [code.count("\n", 0, found.start()) + 1 for found in kernels]
    form = f'extern "C" __global__ void {path.stem if path.stem.isidentifier() else "mine"}{_signature(kind, "float")}'
    if len(kernels) != 1:
        where = f"{len(kernels)} kernels at lines {', '.join(map(str, lines))}" if kernels else "no __global__ function"
        raise ValueError(f"{path}:{lines[1] if kernels else 1}: the file has {where}; write exactly one, {form}")
    external, name, arguments = kernels[0].groups()
    if not external:
        raise ValueError(f'{path}:{lines[0]}: {name} lacks extern "C", so its name is mangled; write {form}')
    taken = [_argument(argument) for argument in arguments.split(",")]
    precision = "real" if any("real" in kind for kind, _ in taken) else "float"
    expected = _types(kind, precision)
    names, wanted = [name.lower() for _, name in taken], [n.lower() for n in (*ARRAYS[kind], *SIZES[kind])]
    if [kind for kind, _ in taken] != expected or (sorted(names) == sorted(wanted) and names != wanted):
        came = " ".join(arguments.split())
        raise ValueError(f"{path}:{lines[0]}: {name} takes ({came}); a {kind} kernel takes {_signature(kind, 'float')}")
    if "shared" not in launch and (found := re.search(r"extern\s+__shared__", code)):
        line = code.count("\n", 0, found.start()) + 1
        raise ValueError(f"{path}:{line}: extern __shared__ needs its size; add shared=BYTES to the launch line")
    return OwnKernel(path, kind, name, lines[0], text, precision, launch)


def _launch(path: Path, kind: str, line: str) -> dict[str, tuple[ast.expr, ...]]:
    found = re.fullmatch(r"\s*//\s*launch:(.{1,500})", line.rstrip())
    start, *parts = re.split(r"\b(\w+)\s*=(?!=)", found[1]) if found else ["?"]
    names = parts[::2]
    if start.strip() or sorted(names) not in (["block", "grid"], ["block", "grid", "shared"]):
        form = f"the launch with block, grid and perhaps shared, once each, such as {EXAMPLES[kind]}"
        raise ValueError(f"{path}:1: the first line must be {form}; got {line[:100]!r}")
    return {part: _expressions(path, kind, part, text) for part, text in zip(names, parts[1::2], strict=True)}


def _expressions(path: Path, kind: str, part: str, text: str) -> tuple[ast.expr, ...]:
    known, text = (*SIZES[kind], *DERIVED[kind]), text.strip().rstrip(",").rstrip()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{path}:1: {part}={text} is no expression; see {EXAMPLES[kind]}") from None
    expressions = tuple(tree.elts) if isinstance(tree, ast.Tuple) else (tree,)
    most = 1 if part == "shared" else 3
    if not 1 <= len(expressions) <= most:
        raise ValueError(f"{path}:1: {part} has {len(expressions)} sizes; 1 to {most} are allowed, got {text}")
    for expression in expressions:
        if wrong := _unknown(expression, known):
            allowed = f"{', '.join(known)}, integers, + - * / // % ( ) ceil() min() max()"
            raise ValueError(f"{path}:1: {part} uses {wrong!r}; allowed are {allowed}")
    return expressions


def _unknown(node: ast.expr, known: tuple[str, ...]) -> str:
    """The first part of an expression that is not allowed, or ""."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _unknown(node.left, known) or _unknown(node.right, known)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        enough = len(node.args) == 1 if node.func.id == "ceil" else len(node.args) >= 2
        found = (_unknown(argument, known) for argument in node.args)
        return next(filter(None, found), "") if enough and not node.keywords else ast.unparse(node)
    allowed = node.id in known if isinstance(node, ast.Name) else type(getattr(node, "value", None)) is int
    return "" if allowed and isinstance(node, (ast.Name, ast.Constant)) else ast.unparse(node)


def _value(node: ast.expr, known: Mapping[str, int]) -> Any:
    """The expression's exact value, an int or a Fraction."""
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](Fraction(_value(node.left, known)), Fraction(_value(node.right, known)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](*(_value(argument, known) for argument in node.args))
    return known[node.id] if isinstance(node, ast.Name) else getattr(node, "value")  # noqa: B009


def _types(kind: str, real: str) -> list[str]:
    return [f"const {real}*", f"const {real}*", f"{real}*"] + ["int"] * len(SIZES[kind])


def _signature(kind: str, real: str) -> str:
    names = (*ARRAYS[kind], *SIZES[kind])
    return f"({', '.join(f'{type} {name}' for type, name in zip(_types(kind, real), names, strict=True))})"


def _argument(text: str) -> tuple[str, str]:
    """(type, name) of "const float* __restrict__ A"; the name may be missing."""
    words = [word for word in re.findall(r"\w+|\S", text) if word not in ("__restrict__", "__restrict")]
    name = words.pop() if len(words) > 1 and words[-1] not in ("*", "int", "float", "real", "const") else ""
    pointer = "*" in words
    base = words[: words.index("*")] if pointer else [word for word in words if word != "const"]
    constant = "const " if "const" in base else ""
    kept = " ".join(word for word in base if word != "const")
    return f"{constant}{kept}{'*' * words.count('*')}", name
