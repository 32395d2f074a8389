"""Who imports whom: from top to bottom, never upward."""

from __future__ import annotations

import ast
from pathlib import Path

import minires

ROOM = Path(minires.__file__).parent
LEVELS = (
    ("cli",),
    ("paper", "bench", "prediction"),
    ("training", "verify", "inspect", "weights"),
    ("parallel",),
    ("models", "data", "optim"),
    ("nn",),
    ("functional", "operators", "_losses", "_ipython"),
    ("ops",),
    ("random",),
    ("autograd", "_returned"),
    ("tensor", "callsite"),
    ("context", "backends"),
    ("readonly", "arrays", "statistics", "_checks", "_shown", "_atomic", "_figures", "_html", "_lazy", "_version"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def imported(tree: ast.Module):
    """Names of minires's rooms that a file imports when it is loaded; what is imported later, in a function, may be."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "minires":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minires."):
            yield node.module.split(".")[1]


def test_no_import_runs_upward():
    upward, seen = [], 0
    for file in sorted(ROOM.rglob("*.py")):
        room = file.relative_to(ROOM).with_suffix("").parts[0]
        for other in imported(ast.parse(file.read_text())):
            if room in LEVEL and other in LEVEL:
                seen += 1
                if LEVEL[other] < LEVEL[room]:
                    upward.append(f"{file.relative_to(ROOM)} imports {other}")
    assert not upward, "\n".join(upward)
    assert seen > 500


def test_every_room_has_its_level():
    rooms = {p.stem for p in ROOM.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - set(LEVEL) == {"__init__", "__main__"}
