"""Module: a named tree of layers, their parameters and their running statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minires._checks import choice, flag, instance, mapping
from minires._repr import shown
from minires.arrays import Array, array_module, is_array, on_cpu
from minires.backends.unavailable import usable_cupy
from minires.context import context
from minires.readonly import REMEDY, unpin
from minires.tensor import Tensor


class Module:
    """A part of a network.

    An attribute that is a Tensor is a parameter, one that is a Module is a child; `register_buffer` adds arrays that
    belong to the state but are not trained.  A subclass defines `forward`; calling the module runs it, and the tape
    nodes made meanwhile carry the module's path, e.g. "layer2.0.conv1".
    """

    training: bool
    fused: bool
    _parameters: dict[str, Tensor]
    _buffers: dict[str, Array]
    _children: dict[str, Module]
    _name: str  # in the parent
    normed: tuple[tuple[str, str], ...] = ()  # names of (convolution, its only user, batch norm): see `fuse`

    def __init__(self) -> None:
        # Through object: __setattr__ below sorts into these dictionaries.
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_buffers", {})
        object.__setattr__(self, "_children", {})
        object.__setattr__(self, "_name", "")
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "fused", False)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_children" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before it sets {name!r}")
        instance(name, "name", str)
        if name in self._parameters and not (value is None or isinstance(value, (Tensor, Module))):
            came = type(value).__name__
            raise TypeError(f"{name} is a parameter: its value can become another Tensor or None, got {came}")
        kind: dict[str, Any] | None = None
        if name in self._buffers and is_array(value):
            kind = self._buffers
        elif isinstance(value, Tensor):
            kind = self._parameters
        elif isinstance(value, Module):
            value._take_name(name)
            kind = self._children
        elif isinstance(value, (list, tuple, dict)):
            inside = value.values() if isinstance(value, dict) else value
            if any(isinstance(item, Module) for item in inside):
                came = type(value).__name__
                raise TypeError(
                    f"{name} must not be a {came} of modules: their parameters would be lost; use ModuleList"
                )
        self._forget(name, kept=kind)
        if kind is not None:
            kind[name] = value  # in the place of the one before: the order of a Sequential is that of its children
        object.__setattr__(self, name, value)

    def _take_name(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._forget(name)

    def _forget(self, name: str, kept: dict[str, Any] | None = None) -> None:
        kinds: tuple[dict[str, Any], ...] = (self._parameters, self._buffers, self._children)
        for kind in kinds:
            if kind is not kept:
                kind.pop(name, None)

    def register_buffer(self, name: str, array: Array) -> None:
        """Adds an array (such as a running mean) that is saved and moved with the module, but has no gradient.

        An array that is assigned to the name later takes its place.
        """
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"name must be a word without a point, got {shown(name)}")
        if not is_array(array):
            raise TypeError(f"{name[:80]} must be an array, got {type(array).__name__}")
        setattr(self, name, array)
        self._buffers[name] = array

    def __call__(self, *inputs: Tensor) -> Tensor:
        outer = context.module
        context.module = f"{outer}.{self._name}" if outer and self._name else outer or self._name
        try:  # not `with`: Ctrl-C could come between a context manager's end and its `__exit__`
            return (self.forward_fused if self.fused and "forward" not in vars(self) else self.forward)(*inputs)
        finally:
            context.module = outer

    def forward(self, *inputs: Any) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def forward_fused(self, *inputs: Any) -> Tensor:
        """`forward` with fused operations, bit for bit the same: what a module has that `fuse` can speed up."""
        raise TypeError(f"{type(self).__name__} defines no forward_fused")

    # -- what is inside

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._children.items()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module ("") and of all below, parents first; one that is shared, by its first path."""
        instance(prefix, "prefix", str)
        seen: set[int] = set()
        for path, module in self._every_module(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module

    def _every_module(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) for every path, shared or not."""
        yield prefix, self
        for name, child in self._children.items():
            yield from child._every_module(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(path, leaf Tensor) of every parameter; one that is shared, by its first path."""
        seen: set[int] = set()
        for path, module, name in self._slots("_parameters"):
            parameter = module._parameters[name]
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield path, parameter

    def parameters(self) -> Iterator[Tensor]:
        """Every parameter: leaf Tensors with .data and .grad."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(path, array) of every running statistic."""
        yield from ((path, module._buffers[name]) for path, module, name in self._slots("_buffers"))

    def _slots(self, kind: str) -> Iterator[tuple[str, Module, str]]:
        for prefix, module in self.named_modules():
            for name in getattr(module, kind):
                yield f"{prefix}.{name}" if prefix else name, module, name

    # -- saving and loading

    def state_dict(self) -> dict[str, Array]:
        """Parameters and running statistics as plain arrays by name, in torchvision's names; not copies.

        What is shared stands under each of its names.
        """
        state = {}
        for prefix, module in self._every_module():
            own = {name: p.data for name, p in module._parameters.items()} | module._buffers
            state.update({f"{prefix}.{name}" if prefix else name: array for name, array in own.items()})
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copies arrays into the parameters and running statistics of the same names.

        strict   every name must be on both sides; otherwise only those on both sides are loaded

        Shapes must agree in any case; dtype and device stay the module's, and a number beyond that dtype is an error.
        Counters named `num_batches_tracked` are passed over.  Everything is converted before anything is copied: on
        ValueError the module is unchanged, and `state` may hold the module's own arrays.
        """
        mapping(state, "state", "names to arrays")
        strict = flag(strict, "strict")
        given = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        own = self.state_dict()
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in own if name not in given]
            problems += [f"unexpected: {name}" for name in given if name not in own]
        arrays = {name: given[name] for name in own if name in given}
        for name, value in arrays.items():
            unpin(own[name])
            arrays[name] = value = value.data if isinstance(value, Tensor) else value
            if not is_array(value):
                problems.append(f"{name}: expected an array, got {type(value).__name__}")
            elif value.shape != own[name].shape:
                problems.append(f"{name}: shape {value.shape}, the module has {own[name].shape}")
            elif value.dtype.kind not in "fiu":
                problems.append(f"{name}: dtype {value.dtype} is not a real number's")
            elif not getattr(own[name].flags, "writeable", True):
                problems.append(f"{name}: the module's array is read-only: {REMEDY}")
            else:
                arrays[name] = converted = _converted(value, own[name])
                if bool((array_module(converted).isinf(converted) & ~array_module(value).isinf(value)).any()):
                    problems.append(f"{name}: holds numbers beyond {own[name].dtype}")
        if problems:
            more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ValueError("state does not fit this module:\n  " + "\n  ".join(problems[:10]) + more)
        for name, converted in arrays.items():
            own[name][...] = converted

    # -- modes, device, dtype

    def train(self, mode: bool = True) -> Self:
        """Training mode: batch statistics, dropout. Returns the module."""
        mode = flag(mode, "mode")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode: running statistics, no dropout. Returns the module."""
        return self.train(False)

    if TYPE_CHECKING:  # bound in minires/nn/fusing.py

        def fuse(self, on: bool = True, *, training: bool = False) -> Self: ...

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str) -> Self:
        """Moves parameters and statistics to "cpu" or "cuda". Returns the module.

        Raises BackendUnavailable when CuPy or a GPU is missing.
        """
        if choice(device, "device", ("cpu", "cuda")) == "cpu":
            return self._map(on_cpu)
        return self._map(usable_cupy().asarray)

    def astype(self, dtype: Any) -> Self:
        """Converts parameters and statistics to "float32" or "float64". Returns the module."""
        try:
            chosen = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"dtype must be float32 or float64, got {shown(dtype)}") from None
        if chosen.kind != "f" or chosen.itemsize < 4:
            raise TypeError(f"dtype must be float32 or float64, got {shown(dtype)}")
        return self._map(lambda array: array.astype(chosen, copy=False))

    def _map(self, convert: Any) -> Self:
        """Every array through `convert`; parameters stay the same Tensors, so that an optimiser keeps hold of them."""
        for parameter in self.parameters():
            parameter.data = convert(parameter.data)
            if parameter.grad is not None:
                parameter.grad = convert(parameter.grad)
        for module in self.modules():
            for name in list(module._buffers):
                module.register_buffer(name, convert(module._buffers[name]))
        return self

    def extra_repr(self) -> str:
        """The options of this layer, for `repr`."""
        return ""

    def __repr__(self) -> str:
        """The tree.  Of more than 24 modules, each child in one line: `model.layer1` then shows what is in there."""
        whole = sum(1 for _ in self.modules()) <= 24
        shown = {k: repr(m) if whole or not m._children else m._in_a_line() for k, m in self._children.items()}
        lines = [f"({name}): {child}".replace("\n", "\n  ") for name, child in shown.items()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n  " + "\n  ".join(lines) + "\n)" if lines else ")")

    def _in_a_line(self) -> str:
        kinds = Counter(type(child).__name__ for child in self._children.values())
        counts = [f"{count} × {kind}" if count > 1 else kind for kind, count in kinds.items()]
        return f"{type(self).__name__}({', '.join(counts)}; {sum(p.size for p in self.parameters()):,} parameters)"


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within it every part of the model is in evaluation mode, in every thread; afterwards each is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            object.__setattr__(module, "training", mode)


def _converted(value: Array, like: Array) -> Array:
    """A copy of `value` with the dtype and on the device of `like`."""
    with np.errstate(over="ignore"):  # what overflows is reported with its name
        return array_module(like).array(
            value if array_module(value) is array_module(like) else on_cpu(value), like.dtype
        )
