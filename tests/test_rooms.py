"""What `import minires` loads, what loads on first use, and what each room offers to `dir()`."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import minires as mr

ROOMS = (
    *("minires", "minires.functional", "minires.nn", "minires.models", "minires.optim", "minires.data"),
    *("minires.inspect", "minires.verify", "minires.weights", "minires.training", "minires.prediction"),
    *("minires.exercises", "minires.paper", "minires.bench", "minires.parallel", "minires.random", "minires.backends"),
)
CORE = {"autograd", "backends", "functional", "models", "nn", "operators", "ops", "optim", "random", "tensor"}


def fresh(code: str) -> object:
    """What a new interpreter prints as JSON."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_import_minires_loads_the_core_alone():
    loaded = set(fresh("import json, sys, minires; print(json.dumps([*sys.modules]))"))
    ours = {name.partition(".")[2] for name in loaded if name.startswith("minires.")}
    rooms = {name.partition(".")[0] for name in ours}
    folders = {m.name for m in pkgutil.iter_modules(mr.__path__) if m.ispkg}
    assert rooms & folders == {"backends", "models", "nn", "ops"}
    assert rooms - folders >= CORE - folders
    slow = {"PIL", "matplotlib", "rich", "safetensors", "multiprocessing", "importlib.metadata", "urllib.request"}
    assert loaded & slow == set()


@pytest.mark.parametrize(
    "use",
    [
        *("training.restore", "weights.load", "data.load", "inspect.trace", "verify.gradcheck", "prediction.predict"),
        *(
            "paper.table1.__name__",
            "bench.race.__name__",
            "parallel.Alone",
            "exercises.check",
            "summary",
            "gradcheck",
            "GradcheckError",
        ),
        *("__version__", "nn.init"),
    ],
)
def test_the_rest_loads_on_first_use(use):
    assert fresh(f"import minires as mr; mr.{use}; print('true')") is True


def test_every_room_is_listed_before_it_is_loaded():
    listed = set(fresh("import json, minires; print(json.dumps(dir(minires)))"))
    rooms = {m.name for m in pkgutil.iter_modules(mr.__path__) if m.ispkg}
    # Not for users: the command line, operations without checks, and what `minires kernels` does.
    assert rooms - listed == {"cli", "ops", "kernels"}


@pytest.mark.parametrize("room", ROOMS)
def test_dir_offers_the_public_names_alone(room):
    module = importlib.import_module(room)
    dunders = {name for name in vars(module) if name.startswith("__") and name.endswith("__")}
    assert dir(module) == sorted({*module.__all__, *dunders})
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        getattr(module, name)
        assert not name.startswith("_")


@pytest.mark.parametrize("room", ["minires", "minires.paper"])
def test_a_name_that_no_room_has(room):
    module = importlib.import_module(room)
    with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("room", ["minires", "minires.paper", "minires.bench"])
def test_type_checkers_see_what_loads_later(room):
    """They read imports that never run: those must name all that `__getattr__` loads."""
    tree = ast.parse(Path(importlib.import_module(room).__file__).read_text())
    guarded = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name for n in ast.walk(guarded) if isinstance(n, ast.ImportFrom) for alias in n.names}
    first = f"import sys, json, {room} as m; names = {{*m.__all__}} - {{*vars(m)}}; print(json.dumps([*names]))"
    assert seen >= set(fresh(first))
