"""What a malformed call must end in: an error that names the argument, or an answer, the right one where it is numbers.

documented      beside ValueError and TypeError, what some calls are documented to raise
oracle          the same call on ordinary float64 copies, computed by the reference backend
"""

from __future__ import annotations

import copy
import inspect
import re
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
from malformed.good import Good
from minires import data, training, weights

# What a call may raise beside ValueError and TypeError, by what its name begins with.
DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {
    "Tensor.__getitem__": (IndexError,),
    "backend": (mr.BackendUnavailable,),
    "gradcheck": (mr.GradcheckError,),
    "data.": (data.DataError, IndexError),
    "inspect.Trace.save": (OSError,),
    "nn.Module.to": (mr.BackendUnavailable,),
    "nn.Sequential.__getitem__": (IndexError,),
    "nn.ModuleList.": (IndexError,),
    "training.": (training.CheckpointError, training.Diverged, data.DataError, mr.BackendUnavailable, OSError),
    "weights.": (weights.WeightsError, training.CheckpointError, weights.OnnxMissing, OSError),
    "prediction.": (
        *(weights.WeightsError, training.CheckpointError, data.DataError, training.Diverged, OSError, IndexError),
        mr.BackendUnavailable,
    ),
}
# What an error may call an argument instead of its name.
ALSO = {
    "other": {"operand", "operands", "Tensor", "shapes"},  # of an operator
    "grad": {"params"},
    "inputs": {"x", "<lambda>()", "positional arguments"},  # of a module; of the function that gradcheck is given
    "images": {"x"},
    "x": {"start_dim"},  # fine for another x
    "module": {"modules"},
    "values": {"setting", "network", "data set"},
    "name": {"network", "data set", "backend", "exercise"},  # what it is the name of
}
NEVER_COMPARED = {"functional.dropout", "nn.Dropout.forward"}  # random: two calls differ


class Finding(Exception):
    """What must not be."""


def judge(name: str, good: Good, changed: set[str]) -> str:
    """`changed` holds the names of the odd arguments, and the keys of those that are mappings.

    Runs the call; "ValueError", "TypeError", another documented error's name, "right" for an answer that is the
    oracle's, or "accepted" for one that has none.  Raises Finding."""
    before = {argument: _bytes(value) for argument, value in good.arguments.items()}
    oracle = _ordinary(good) if _comparable(name) else None
    error: Exception | None = None
    result: Any = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = good()
    except Exception as raised:
        error = raised
    for argument, content in before.items():
        if argument not in good.written and argument not in INPLACE and _bytes(good.arguments[argument]) != content:
            raise Finding(f"the call wrote into {argument}")
    if error is not None:
        return _judge_error(name, error, changed)
    if oracle is None:
        return "accepted"
    _judge_answer(good, result, oracle)
    return "right"


INPLACE = {"rng", "generator", "report"}


def _judge_error(name: str, error: Exception, changed: set[str]) -> str:
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        if not str(error).strip():
            raise Finding("MemoryError without a word of what was too large") from error
        return kind
    documented = tuple(k for begin, kinds in DOCUMENTED.items() if name.startswith(begin) for k in kinds)
    if documented and isinstance(error, documented) and not isinstance(error, (TypeError, ValueError)):
        if not str(error).strip():
            raise Finding(f"{kind} without a message") from error
        return kind
    if not isinstance(error, (TypeError, ValueError)):
        raise Finding(f"{kind}: {error}") from error
    message = str(error)
    names = changed | {other for argument in changed for other in ALSO.get(argument, ())}
    if not any(re.search(rf"(?<![A-Za-z_]){re.escape(word)}(?![A-Za-z_])", message) for word in names):
        raise Finding(f"{kind} names none of {', '.join(sorted(changed))}: {message}") from error
    if len(message) > 1200:
        raise Finding(f"{kind} of {len(message)} characters") from error
    return "TypeError" if isinstance(error, TypeError) else "ValueError"


# -- answers


def _comparable(name: str) -> bool:
    numeric = name.startswith(("functional.", "Tensor.")) or name.endswith((".forward", "nn.Module.__call__"))
    return numeric and name not in NEVER_COMPARED and "=" not in name and name not in ("Tensor", "Tensor.backward")


def _ordinary(good: Good) -> Good:
    """The same call on float64 copies in ordinary memory."""

    def plain(value: Any) -> Any:
        if isinstance(value, mr.Tensor):
            return mr.Tensor(plain(value.data), value.requires_grad and value.dtype.kind == "f")
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return np.array(value, np.float64, order="C", subok=False)
        if type(value) in (tuple, list) and any(isinstance(v, (mr.Tensor, np.ndarray)) for v in value):
            return type(value)(map(plain, value))
        return value

    function = good.function
    owner = getattr(function, "__self__", None)
    if isinstance(owner, mr.Tensor):
        function = getattr(mr.Tensor(np.array(owner.data, np.float64), owner.requires_grad), function.__name__)
    elif isinstance(function, mr.nn.Module):
        function = copy.deepcopy(function).astype("float64")
    return Good(function, {name: plain(value) for name, value in good.arguments.items()}, good.spread, good.written)


def _judge_answer(good: Good, result: Any, oracle: Good) -> None:
    with warnings.catch_warnings(), mr.backend("reference"), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            expected = oracle()
        except Exception as error:
            raise Finding(f"an answer, where the oracle raises {type(error).__name__}: {error}") from error
    if not isinstance(result, mr.Tensor):
        raise Finding(f"{type(result).__name__} instead of a Tensor")
    _compare("the answer", result.data, expected.data, good)
    if not expected.requires_grad:
        return
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cotangent = np.random.default_rng(0).standard_normal(result.shape)
        try:
            result.backward(cotangent.astype(result.dtype))
        except Exception as error:
            raise Finding(f"backward raises {type(error).__name__}: {error}") from error
        with mr.backend("reference"):
            expected.backward(cotangent)
    for argument, value in good.arguments.items():
        if isinstance(value, mr.Tensor) and value.is_leaf and value.requires_grad:
            _compare(f"the gradient of {argument}", value.grad, oracle.arguments[argument].grad, good)


def _compare(what: str, found: Any, expected: Any, good: Good) -> None:
    if found is None and expected is None:
        return
    if found is None or expected is None or found.shape != expected.shape:
        raise Finding(f"{what} has shape {getattr(found, 'shape', None)} instead of {getattr(expected, 'shape', None)}")
    if not (found.dtype.kind == expected.dtype.kind):
        raise Finding(f"{what} has dtype {found.dtype}")
    if found.size == 0 or found.dtype.kind != "f":
        return
    if not _moderate(good):  # float32 overflows where float64 does not: only that the error names it
        return
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    tolerance = (1e-4 if found.dtype == np.float32 else 1e-10) * max(scale, 1e-3)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        close = np.abs(found.astype(np.float64) - expected) <= tolerance
    if not (same | close).all():
        raise Finding(f"{what} is wrong: {found.ravel()[:4]} instead of {expected.ravel()[:4]}")


def _moderate(good: Good) -> bool:
    """Whether no finite number is so large that float32 could overflow on the way."""
    for value in good.arguments.values():
        array = value.data if isinstance(value, mr.Tensor) else value
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            finite = np.abs(np.asarray(array, np.longdouble)[np.isfinite(array)])
            if finite.size and finite.max() > 1e9:
                return False
        if isinstance(value, float) and abs(value) > 1e9 and np.isfinite(value):
            return False
    return True


def _bytes(value: Any) -> Any:
    """A digest that changes with the array."""
    if isinstance(value, mr.Tensor):
        return _bytes(value.data)
    if isinstance(value, np.ma.MaskedArray):
        return _bytes(value.data)
    return value.tobytes() if isinstance(value, np.ndarray) and not value.dtype.hasobject else None


def place(error: BaseException) -> str:
    """File and line where an error arose, of this repository's files the innermost."""
    root = Path(inspect.getfile(mr)).parents[1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(root / "minires")]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
