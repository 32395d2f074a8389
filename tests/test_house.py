"""The house: who imports whom, and how much a reader must hold in mind."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import minires
from minires import autograd

ROOM = Path(minires.__file__).parent
LEVELS = (
    ("cli",),
    ("paper", "bench", "prediction"),
    ("training", "verify", "inspect", "weights", "kernels"),
    ("parallel",),
    ("capture", "_state", "models", "data"),
    ("optim",),
    ("nn",),
    ("functional", "operators", "_losses", "_ipython"),
    ("ops",),
    ("random",),
    ("autograd", "_returned"),
    ("tensor", "callsite"),
    ("context", "backends"),
    (
        "readonly",
        "arrays",
        "statistics",
        "_checks",
        "_repr",
        "_table",
        "_atomic",
        "_plotting",
        "_html",
        "_lazy",
        "_version",
    ),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
CORE = (
    *("arrays", "backends", "context", "readonly", "callsite", "tensor", "autograd", "_returned", "ops", "functional"),
    *("_losses", "operators", "random", "nn", "models", "optim", "capture"),
)
FILES = {
    ".".join(file.relative_to(ROOM.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in ROOM.rglob("*.py")
}


def imports(tree: ast.AST, inside_functions: bool):
    """Modules of minires that a file imports; what only a type checker reads does not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "minires":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else node.module
        if inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, inside_functions)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def upward(inside_functions: bool, rooms=LEVEL):
    """(imports that run upward, how many imports there are)"""
    found, seen = [], 0
    for module, file in FILES.items():
        for other in imports(ast.parse(file.read_text()), inside_functions):
            if room(module) in rooms and room(other) in LEVEL:
                seen += 1
                if LEVEL[room(other)] < LEVEL[room(module)]:
                    found.append(f"{module} imports {other}")
    return found, seen


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Files that reach one another: takes away what imports nothing that is left, and what nothing left imports."""
    left = set(graph)
    while True:
        imported = {other for module in left for other in graph[module] & left}
        free = {module for module in left if not graph[module] & left or module not in imported}
        if not free:
            return sorted(left)
        left -= free


def test_no_import_runs_upward():
    found, seen = upward(inside_functions=False)
    assert not found, "\n".join(found)
    assert seen > 500


def test_no_import_of_the_core_runs_upward_not_even_inside_a_function():
    found, seen = upward(inside_functions=True, rooms=CORE)
    assert not found, "\n".join(found)
    assert seen > 150


def test_no_file_imports_itself_in_a_circle_not_even_inside_a_function():
    graph = {module: set(imports(ast.parse(file.read_text()), True)) - {module} for module, file in FILES.items()}
    assert not circles(graph), ", ".join(circles(graph))


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_room_has_its_level():
    rooms = {p.stem for p in ROOM.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - set(LEVEL) == {"__init__", "__main__"}


def lines(*names: str) -> int:
    return sum(len((ROOM / name).read_text().splitlines()) for name in names)


def test_the_engine_fits_two_screens():
    assert len(inspect.getsource(autograd.Function.__call__).splitlines()) <= 25
    assert len(inspect.getsource(autograd.backward).splitlines()) <= 30
    assert lines("tensor.py", "autograd.py") <= 450


def test_the_students_core_can_be_read():
    core = [file for room in ("ops", "nn", "models", "backends/reference") for file in (ROOM / room).glob("*.py")]
    names = [str(file.relative_to(ROOM)) for file in core]
    # The aim is 4,000.
    assert lines("tensor.py", "autograd.py", "functional.py", "operators.py", *names) <= 4300
