"""The public face: every public function, constructor, method and setter that takes an argument, by its name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

ROOMS = (
    *("", "functional", "backends", "data", "inspect", "models", "nn", "nn.init", "optim", "random"),
    *("training", "weights", "prediction", "exercises"),
)

# Through which Python's own syntax calls a method.
OPERATORS = {
    f"__{name}__"
    for name in (
        *("call", "getitem", "setitem", "delitem", "setattr", "add", "radd", "sub", "rsub", "mul", "rmul"),
        *("truediv", "rtruediv", "pow", "rpow", "matmul", "rmatmul", "lt", "le", "gt", "ge"),
    )
}  # == and != are left out: of what is no number they say that it is unequal, as everywhere in Python

RECORD = "a record that minires fills: it holds what it is given"
ENGINE = "called by the engine, with what the engine made"

# name, or what it begins with -> why it gets no malformed calls
LEFT_OUT = {
    "Function.forward": "every operation defines its own, and the engine calls it",
    "Function.backward": "every operation defines its own, and the engine calls it",
    "Function.run_backward": ENGINE,
    "data.FolderImages.update": "called by `digest`, with its own hash",
    "nn.BatchNorm2d.function": "functional.batch_norm, or what parallel sets in its place",
    "training.Config.rates": "called by the training loop, with what it made",
    "Observer.": ENGINE,
    "inspect.breakpoint.before_": ENGINE,
    "inspect.breakpoint.after_": ENGINE,
    "inspect.detect_anomaly.before_": ENGINE,
    "inspect.detect_anomaly.after_": ENGINE,
    "inspect.record.after_": ENGINE,
    "inspect.Call.": ENGINE,
    "backends.using": ENGINE,
    **dict.fromkeys(("backends.Backend", "backends.Backend."), "a protocol"),
    **dict.fromkeys(("backends.Reference", "backends.Reference."), "called by operations, with what they have checked"),
    "data.register": "changes the whole process; tests/data/test_own.py gives it malformed calls",
    "random.uniform": ENGINE,
    "random.drawing": ENGINE,
    "backends.for_arrays": ENGINE,
    "backends.optional": ENGINE,
    "capture": "its function stands before what is spread; tests/test_capture.py gives it malformed calls",
    **dict.fromkeys(
        [f"{name}.forward_fused" for name in ("nn.Module", "nn.Sequential", "models.BasicBlock", "models.Bottleneck")],
        "called by Module.__call__ in place of forward",
    ),
    "models.ResNet.forward_fused": "called by Module.__call__ in place of forward",
    "training.RunFolder.begin": "called by the training loop, with what it made",
    "nn.Module.forward": "every module defines its own",
    **dict.fromkeys(("optim.Schedule", "optim.Schedule."), "a protocol"),
    **dict.fromkeys(
        (
            *("inspect.Card", "inspect.Row", "inspect.Summary", "inspect.Trace", "training.Checkpoint"),
            *("inspect.Call", "inspect.Explanation"),
            *("training.Evaluation", "training.Result", "training.Row", "training.Trained", "weights.Match"),
            *("weights.WeightFile", "prediction.Classifier", "prediction.Prediction", "exercises.Result"),
        ),
        RECORD,
    ),
    **dict.fromkeys(
        ("training.RunFolder.write_config", "training.RunFolder.write_history", "training.RunFolder.write_curves"),
        "called by the training loop, with what it made",
    ),
}


def left_out(name: str) -> bool:
    """Names that end in a point or an underscore stand for all that begin so."""
    return any(name == given or (given[-1] in "._" and name.startswith(given)) for given in LEFT_OUT)


def face() -> dict[str, Any]:
    """Name, such as "nn.Module.load_state_dict" -> the callable."""
    found: dict[str, Any] = {}
    known: set[int] = set()
    for room in ROOMS:
        module = importlib.import_module(f"minires.{room}".rstrip("."))
        for name in sorted(getattr(module, "__all__", None) or _defined_in(module)):
            thing = getattr(module, name)
            if id(thing) in known or inspect.ismodule(thing) or not callable(thing):
                continue
            known.add(id(thing))
            path = f"{room}.{name}".lstrip(".")
            if not inspect.isclass(thing):
                found[path] = thing
            elif not issubclass(thing, BaseException):
                found[path] = thing
                found.update((f"{path}.{method}", call) for method, call in _methods(thing))
    return {path: call for path, call in found.items() if parameters(call)}


def parameters(call: Any) -> list[inspect.Parameter]:
    """What may be malformed: all but `self`."""
    if inspect.isclass(call) and call.__init__ is object.__init__:
        return []
    return [p for p in inspect.signature(call).parameters.values() if p.name != "self"]


def _defined_in(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Of the class itself and of its private bases; the public ones have their own names."""
    own = [base for base in cls.__mro__ if base is cls or base.__name__.startswith("_")]
    frozen = getattr(getattr(cls, "__dataclass_params__", None), "frozen", False)
    for name in {name: None for base in own for name in vars(base)}:
        thing = inspect.getattr_static(cls, name)
        if isinstance(thing, property):
            if thing.fset is not None:
                yield f"{name}=", thing.fset
        elif name.startswith("_") and (name not in OPERATORS or (name == "__setattr__" and frozen)):
            continue
        elif isinstance(thing, (staticmethod, classmethod)) or inspect.isfunction(thing):
            yield name, getattr(cls, name)
