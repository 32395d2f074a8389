"""A call of an operation, recorded, so that it can be made again: alone, on other operands, by another backend.

A saved call is an .npz file: "call", a JSON text with the operation and its options, "input.x", ... the operands,
"option.labels", ... options that are arrays, and "grad_output" if there is one.
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
    """What one node was given.

    node           as it stood before its forward ran; never run itself
    inputs         arrays, None for an absent one; those of the run itself, not copies
    names          what forward calls them
    random_state   of the generator, which dropout drew its mask from
    """

    node: Function
    inputs: tuple[Array | None, ...]
    names: tuple[str, ...]
    random_state: Any

    @classmethod
    def before(cls, node: Function, inputs: tuple[Array | None, ...]) -> Recorded:
        """For an observer's `before_forward`."""
        names = tuple(input_names(node))
        return cls(_duplicate(node), inputs, names, random.generator().bit_generator.state)

    def forward(self, inputs: Sequence[Any] | None = None, backend: Any = None) -> tuple[Array, Function]:
        """Makes the call again; the output, and a node whose `backward` can be called with a cotangent.

        inputs    instead of the recorded ones
        backend   instead of the one that computed it, e.g. `backends.active()`

        Running statistics that the call updates are copies.  Nothing is put on a tape and no observer is told.
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
        """Makes the call again on Tensors, in place of the inputs that there are; recorded on the tape as any call."""
        given = iter(inputs)
        with _generator_at(self.random_state):
            return _duplicate(self.node)(*(None if a is None else next(given) for a in self.inputs))

    def save(self, path: Path, grad_output: Array | None = None) -> None:
        """Writes an .npz that `load_call` reads.  Raises ValueError for an operation that is not minires' own."""
        node = self.node
        if getattr(ops, node.name, None) is not type(node):
            raise ValueError(f"{node!r} is no operation of minires: its call cannot be saved")
        options = {k: v for k, v in vars(node).items() if k not in Function.__annotations__}
        told = {
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
        np.savez(file, call=np.array(json.dumps(told)), **on_cpu)
        write_bytes(path, file.getvalue())


@dataclass
class Call:
    """A call read from a file.

    recorded      the call
    grad_output   what arrived in backward, or None
    """

    recorded: Recorded
    grad_output: Array | None

    def results(self, backend: Any, **options: Any) -> dict[str, Array]:
        """By a backend, as `mr.backend` takes it: output, running statistics and, with a grad_output, gradients."""
        with backends.backend(backend, **options) as chosen:
            output, node = self.recorded.forward(backend=chosen)
            found = {"output": output} | statistics(node)
            if self.grad_output is not None:
                grads = gradients(node, self.grad_output)
                found |= {f"∂{n}": g for n, g in zip(self.recorded.names, grads, strict=True) if g is not None}
        return found

    def compare(self, first: Any, second: Any, **options: Any) -> str:
        """A line for every result: the second backend's error, with the index where it is largest and both numbers."""
        lines = []
        ours, theirs = self.results(first), self.results(second, **options)
        first, second = (getattr(backend, "name", backend) for backend in (first, second))
        for name in {**ours, **theirs}:
            if name not in ours or name not in theirs:
                has, lacks = (first, second) if name in ours else (second, first)
                lines.append(f"{name:12} {has} gives it, {lacks} does not")
                continue
            expected, found = ours[name], theirs[name]
            difference = np.abs(found.astype(np.float64) - expected)
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), difference.shape))
            told = f"{first} {expected[index]:.9g}, {second} {found[index]:.9g}"
            lines.append(f"{name:12} {relative_norm(found, expected):.2e}  worst at {index}: {told}")
        return "\n".join(lines)


def load_call(path: str | Path) -> Call:
    """Reads what `Recorded.save` wrote; nothing in the file is executed.

    Raises FileNotFoundError, and ValueError for anything that is no such file.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        told = json.loads(str(arrays.pop("call")))
        operation = getattr(ops, told["operation"], None)
        if not (isinstance(operation, type) and issubclass(operation, Function)):
            raise ValueError(f"unknown operation {told['operation']!r}")
        node = object.__new__(operation)
        for name, value in told["options"].items():
            setattr(node, name, _from_json(value))
        for name, array in arrays.items():
            if name.startswith("option."):
                setattr(node, name.removeprefix("option."), array)
        names = tuple(map(str, told["names"]))
        inputs = tuple(arrays.get(f"input.{name}") for name in names)
        node.module = str(told["module"])
        node.needs_input_grad = tuple(map(bool, told["needs_input_grad"]))
        node.input_shapes = tuple(None if a is None else a.shape for a in inputs)
        random.generator().bit_generator.__class__().state = told["random_state"]  # raises unless it fits
        return Call(Recorded(node, inputs, names, told["random_state"]), arrays.get("grad_output"))
    except (KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no saved call: {error}") from None


def _to_json(value: Any) -> Any:
    """Options are numbers, words, tuples, slices and Ellipsis."""
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
    """What a node holds beside its operands and its forward may write: a batch norm's running statistics; no copies."""
    options = {name: value for name, value in vars(node).items() if name not in Function.__annotations__}
    return {name: value for name, value in options.items() if is_array(value) and value.dtype.kind == "f"}


def gradients(node: Function, grad_output: Array) -> tuple[Array | None, ...]:
    """`backward` of a node that `Recorded.forward` gave, always as a tuple with one entry per input."""
    grads = node.backward(grad_output)
    return tuple(map(as_array, grads)) if isinstance(grads, tuple) else (as_array(grads),)


def _duplicate(node: Function) -> Function:
    """The same operation with the same options, before any call; arrays among the options are copied."""
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
