"""Records a call of an operation, to repeat it alone: on the same or other operands, with the same or another backend.

A saved call is an .npz file with these arrays:

    call             JSON text: the operation and its options
    input.x, …       the operands
    option.labels, … options that are arrays
    grad_output      the gradient that arrived in backward, if any
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires import backends, ops, random
from minires._atomic import write_bytes
from minires.arrays import Array, as_array, is_array
from minires.autograd import Function
from minires.inspect.card import input_names
from minires.tensor import Tensor
from minires.verify.distance import relative_norm


@dataclass
class Recorded:
    """A node's call: its operation, options and operands.

    node           copy of the node before forward; `forward` runs further copies of it
    inputs         arrays of the original run (not copied), None for an absent input
    names          the inputs' names in the operation's forward
    random_state   state of the random generator before the call, for dropout's mask
    """

    node: Function
    inputs: tuple[Array | None, ...]
    names: tuple[str, ...]
    random_state: Any

    @classmethod
    def before(cls, node: Function, inputs: tuple[Array | None, ...]) -> Recorded:
        """Records a call; to be used in an observer's `before_forward`."""
        names = tuple(input_names(node))
        return cls(_duplicate(node), inputs, names, random.generator().bit_generator.state)

    def forward(self, inputs: Sequence[Any] | None = None, backend: Any = None) -> tuple[Array, Function]:
        """Repeats the call; returns the output, and a node whose `backward` takes a cotangent.

        inputs    operands; default: the recorded ones
        backend   a backend such as `backends.active()`; default: the backend of the recorded call

        The call updates copies of the running statistics.  It records nothing on a tape and calls no observer.
        """
        again = _duplicate(self.node)
        if backend is not None:
            again.backend = backend
        given = self.inputs if inputs is None else tuple(inputs)
        with _generator_at(self.random_state):
            output = as_array(again.forward(*given))
        again.output_shape = output.shape
        return output, again

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Repeats the call on Tensors, one for each input that is present, and records it on the tape."""
        given = iter(inputs)
        with _generator_at(self.random_state):
            return _duplicate(self.node)(*(None if a is None else next(given) for a in self.inputs))

    def save(self, path: Path, grad_output: Array | None = None) -> None:
        """Writes an .npz file for `load_call`.  Raises ValueError for an operation that is not minires' own."""
        node = self.node
        if getattr(ops, node.name, None) is not type(node):
            raise ValueError(f"{node!r} is no operation of minires, so its call cannot be saved")
        options = {k: v for k, v in vars(node).items() if k not in Function.__annotations__}
        call = {
            "operation": node.name,
            "module": node.module,
            "options": {k: _to_json(v) for k, v in options.items() if not is_array(v)},
            "names": self.names,
            "needs_input_grad": node.needs_input_grad,
            "random_state": self.random_state,
        }
        arrays = {f"input.{n}": a for n, a in zip(self.names, self.inputs, strict=True) if a is not None}
        arrays |= {f"option.{k}": v for k, v in options.items() if is_array(v)}
        arrays |= {} if grad_output is None else {"grad_output": grad_output}
        file = io.BytesIO()
        on_cpu: dict[str, Any] = {k: a if isinstance(a, np.ndarray) else a.get() for k, a in arrays.items()}
        np.savez(file, call=np.array(json.dumps(call)), **on_cpu)
        write_bytes(path, file.getvalue())


@dataclass
class Call:
    """A call read from a file.

    recorded      the call
    grad_output   gradient that arrived in backward, or None
    """

    recorded: Recorded
    grad_output: Array | None

    def results(self, backend: Any, **options: Any) -> dict[str, Array]:
        """Repeats the call with a backend (as for `mr.backend`).

        Returns the output, the running statistics and, if there is a grad_output, the gradients.
        """
        with backends.backend(backend, **options) as chosen:
            output, node = self.recorded.forward(backend=chosen)
            found = {"output": output} | statistics(node)
            if self.grad_output is not None:
                grads = gradients(node, self.grad_output)
                found |= {f"∂{n}": g for n, g in zip(self.recorded.names, grads, strict=True) if g is not None}
        return found

    def compare(self, first: Any, second: Any, **options: Any) -> str:
        """Repeats the call with two backends.  The returned text has a line for each result.

        A line contains the second backend's error, relative to the first, the worst index and both values there.
        """
        lines = []
        ours, theirs = self.results(first), self.results(second, **options)
        first, second = (getattr(backend, "name", backend) for backend in (first, second))
        for name in {**ours, **theirs}:
            if name not in ours or name not in theirs:
                has, lacks = (first, second) if name in ours else (second, first)
                lines.append(f"{name:12} {has} computes it, {lacks} does not")
                continue
            expected, found = ours[name], theirs[name]
            difference = np.abs(found.astype(np.float64) - expected)
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), difference.shape))
            values = f"{first} {expected[index]:.9g}, {second} {found[index]:.9g}"
            lines.append(f"{name:12} {relative_norm(found, expected):.2e}  worst at {index}: {values}")
        return "\n".join(lines)


def load_call(path: str | Path) -> Call:
    """Reads a call that `Recorded.save` wrote, without executing anything in the file.

    Raises FileNotFoundError if the file is missing, ValueError if it is not a valid saved call.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        call = json.loads(str(arrays.pop("call")))
        operation = getattr(ops, call["operation"], None)
        if not (isinstance(operation, type) and issubclass(operation, Function)):
            raise ValueError(f"unknown operation {call['operation']!r}")
        node = object.__new__(operation)
        for name, value in call["options"].items():
            setattr(node, name, _from_json(value))
        for name, array in arrays.items():
            if name.startswith("option."):
                setattr(node, name.removeprefix("option."), array)
        names = tuple(map(str, call["names"]))
        inputs = tuple(arrays.get(f"input.{name}") for name in names)
        node.module = str(call["module"])
        node.needs_input_grad = tuple(map(bool, call["needs_input_grad"]))
        node.input_shapes = tuple(None if a is None else a.shape for a in inputs)
        random.generator().bit_generator.__class__().state = call["random_state"]  # raises unless it fits
        return Call(Recorded(node, inputs, names, call["random_state"]), arrays.get("grad_output"))
    except (KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f"{path}: invalid saved call: {error}") from None


def _to_json(value: Any) -> Any:
    """An option (a number, a string, a tuple, a slice or Ellipsis) as a JSON value."""
    if isinstance(value, tuple):
        return {"tuple": [_to_json(v) for v in value]}
    if isinstance(value, slice):
        return {"slice": [_to_json(v) for v in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tuple":
            return tuple(map(_from_json, content))
        return slice(*map(_from_json, content)) if kind == "slice" else Ellipsis
    return value


def statistics(node: Function) -> dict[str, Array]:
    """The floating arrays among a node's options (not copied): a batch norm's running statistics."""
    options = {name: value for name, value in vars(node).items() if name not in Function.__annotations__}
    return {name: value for name, value in options.items() if is_array(value) and value.dtype.kind == "f"}


def gradients(node: Function, grad_output: Array) -> tuple[Array | None, ...]:
    """Runs `backward` of a node from `Recorded.forward`; returns a tuple with one gradient per input."""
    grads = node.backward(grad_output)
    return tuple(map(as_array, grads)) if isinstance(grads, tuple) else (as_array(grads),)


def _duplicate(node: Function) -> Function:
    """A copy of the node without its call's state; arrays among its options are copied."""
    again: Function = object.__new__(type(node))  # a node refuses copy.copy
    vars(again).update(vars(node))
    again.saved, again.frozen, again.parents = None, (), ()
    vars(again).pop("serial", None)
    for name, value in vars(again).items():
        if name not in Function.__annotations__ and is_array(value):
            setattr(again, name, value.copy())
    return again


@contextmanager
def _generator_at(state: Any) -> Iterator[None]:
    generator = random.generator().bit_generator
    outer, generator.state = generator.state, state
    try:
        yield
    finally:
        generator.state = outer
