"""The state that a function reaches and may move, so that a capture can compare and restore it."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterator
from functools import partial
from itertools import chain, starmap
from operator import attrgetter, getitem, is_
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from minires import random
from minires.arrays import Array, array_module, is_array, on_cpu
from minires.nn import Module
from minires.optim import Optimiser
from minires.readonly import unpin, writable
from minires.tensor import Tensor

_DATA, _REQUIRES_GRAD = attrgetter("data"), attrgetter("requires_grad")


class Saved(NamedTuple):
    """A copy of everything that is reached."""

    arrays: list[tuple[Array, Array]]  # (array, copy) of parameters, statistics, velocities and loose arrays
    optimisers: list[dict[str, Any]]  # attributes, their lists and dicts copied
    grads: list[tuple[Tensor, Array | None]]
    random_state: Any


class State:
    """Modules, optimisers, Tensors and arrays that `fn`, its closure, its globals and their attributes hold."""

    def __init__(self, fn: Any) -> None:
        self.modules: list[tuple[str, Module]] = []
        self.optimisers: list[Optimiser] = []
        self.loose: dict[str, Any] = {}  # Tensors and arrays outside of modules and optimisers
        self._names: list[tuple[Any, str, Any]] = []  # (namespace, name, value) of what code looks up by name
        for name, value in self._walk(fn):
            if isinstance(value, Module):
                self.modules.append((name, value))
            elif isinstance(value, Optimiser):
                self.optimisers.append(value)
            else:
                self.loose[name] = value
        self._parts = [part for _, module in self.modules for part in module.modules()]
        self._leaves = self.leaves()

    def leaves(self) -> list[Tensor]:
        found = [p for part in self._parts for p in part._parameters.values()]
        found += [value for value in self.loose.values() if isinstance(value, Tensor)]
        found += [p for optimiser in self.optimisers for p in optimiser.params]
        return list({id(leaf): leaf for leaf in found}.values())

    def arrays(self) -> dict[str, Array]:
        """Parameters, statistics, loose arrays, and the arrays of optimisers, by name."""
        named: dict[str, Array] = {}
        for root, module in self.modules:
            named |= {f"{root}.{name}": array for name, array in module.state_dict().items()}
        named |= {name: value.data if isinstance(value, Tensor) else value for name, value in self.loose.items()}
        for number, optimiser in enumerate(self.optimisers):
            prefix = f"{type(optimiser).__name__} {number}: "
            named |= {f"{prefix}params[{i}]": p.data for i, p in enumerate(optimiser.params)}
            named |= {prefix + name: array for name, array in optimiser.state_dict().items()}
        return named

    def holds(self, array: Array) -> bool:
        kind = array_module(array)
        return any(array_module(own) is kind and kind.may_share_memory(array, own) for own in self.arrays().values())

    def contents(self) -> dict[str, bytes]:
        """A digest of every array and gradient, by name."""
        grads = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves()) if leaf.grad is not None}
        return {name: digest(array) for name, array in (self.arrays() | grads).items()}

    def save(self) -> Saved:
        return Saved(
            [(array, array.copy()) for array in self.arrays().values()],
            [{k: copy.copy(v) for k, v in vars(optimiser).items()} for optimiser in self.optimisers],
            [(leaf, leaf.grad) for leaf in self.leaves()],
            random.generator().bit_generator.state,
        )

    def disturb(self, saved: Saved) -> None:
        """Moves every saved float in place: what depends on the state by other ways than kernel calls then shows."""
        for array in {id(a): a for a, _ in saved.arrays if a.dtype.kind == "f"}.values():
            unpin(array)
            with writable(array):
                if getattr(array.flags, "writeable", True):
                    array[...] = 0.75 * array + 0.01  # variances stay positive

    def restore(self, saved: Saved, keep_new: bool) -> None:
        """Everything as it was, in the arrays that it was in.

        keep_new   an array that an optimiser has made since stays, filled with 0; otherwise it is dropped
        """
        for leaf, grad in saved.grads:
            leaf.grad = grad
        random.generator().bit_generator.state = saved.random_state
        for optimiser, attributes in zip(self.optimisers, saved.optimisers, strict=True):
            if keep_new:
                optimiser.lr = attributes["lr"]
                known = {id(array) for array, _ in saved.arrays}
                for array in optimiser.state_dict().values():
                    if id(array) not in known:
                        array[...] = 0
            else:
                vars(optimiser).update({k: copy.copy(v) for k, v in attributes.items()})
        for array, before in saved.arrays:
            if digest(array) != digest(before):
                unpin(array)
                with writable(array):
                    array[...] = before

    def settle(self, written: list[Array], fixed_rates: bool) -> None:
        """From now on `changed` compares with the present.

        written       arrays that the recording writes: optimisers of other arrays don't matter
        fixed_rates   learning rates are recorded as numbers, not as inputs
        """
        known = {id(array) for array in written}
        self._moving = [
            o for o in self.optimisers
            if not known.isdisjoint(map(id, (*(p.data for p in o.params), *o.state_dict().values())))
        ]  # fmt: skip
        owners: list[Any] = [(vars(part), ("training", "fused", "eps", "momentum", "p")) for part in self._parts]
        names = ("momentum", "weight_decay", "nesterov", "dampening", *(("lr",) if fixed_rates else ()))
        owners += [(vars(optimiser), names) for optimiser in self._moving]
        self._settings = [(own, name) for own, names in owners for name in names if name in own]
        held = [kind for part in self._parts for kind in (part._children, part._parameters, part._buffers)]
        self._empty = [kind for kind in held if not kind]
        self._held = [kind.values() for kind in held if kind]  # views, which follow their dictionaries
        self._before = self._current()

    def changed(self) -> str:
        """What has changed since `settle`, of all that a recording takes for fixed; "" if nothing has.

        Runs before each replay, so it compares flat lists, without a line of Python for each entry.
        """
        settings, objects, wants = self._current()
        if settings != self._before[0]:
            return "a setting of a module or an optimiser (such as training, fused, eps, lr) has changed"
        same = len(objects) == len(self._before[1]) and all(map(is_, objects, self._before[1]))
        if not same or any(self._empty) or wants != self._before[2]:
            return "a parameter, a statistic, a velocity, a module or requires_grad has been replaced"
        if any(namespace.get(name) is not value for namespace, name, value in self._names):
            return "a global name of fn stands for another object"
        return ""

    def _current(self) -> tuple[list[Any], list[Any], list[bool]]:
        """Settings; children, parameters, statistics, arrays of leaves and optimisers; requires_grad of the leaves."""
        objects = [*chain.from_iterable(self._held), *map(_DATA, self._leaves)]
        for optimiser in self._moving:
            objects += [array for array in optimiser.state_dict().values() if array.ndim]
        return [*starmap(getitem, self._settings)], objects, [*map(_REQUIRES_GRAD, self._leaves)]

    def _walk(self, root: Any) -> Iterator[tuple[str, Any]]:
        """(name, Module, Optimiser, Tensor or array) that `root` reaches, each once."""
        seen: set[int] = set()
        queue: list[tuple[str, Any]] = [(getattr(root, "__name__", type(root).__name__), root)]
        while queue:
            name, value = queue.pop()
            if id(value) in seen or isinstance(value, (ModuleType, type)):
                continue
            seen.add(id(value))
            if isinstance(value, (Module, Optimiser, Tensor)) or is_array(value):
                yield name, value
            elif isinstance(value, MethodType):
                queue += [(name, value.__self__), (name, value.__func__)]
            elif isinstance(value, partial):
                queue += [(name, value.func), (name, value.args), (name, value.keywords)]
            elif isinstance(value, FunctionType):
                if not (value.__module__ or "").startswith("minires."):
                    queue += [*self._looked_up(value), (name, value.__defaults__), (name, value.__kwdefaults__)]
            elif isinstance(value, dict):
                queue += [(f"{name}[{key!r}]", item) for key, item in value.items()]
            elif isinstance(value, (list, tuple, set)):
                queue += [(f"{name}[{position}]", item) for position, item in enumerate(value)]
            elif hasattr(value, "__dict__"):
                queue += [(f"{name}.{attribute}", item) for attribute, item in vars(value).items()]

    def _looked_up(self, fn: FunctionType) -> Iterator[tuple[str, Any]]:
        """(name, value) of a function's closure, of its globals, and of the attributes of modules among them."""
        yield from inspect.getclosurevars(fn).nonlocals.items()
        names = _names(fn.__code__)
        for name in names & fn.__globals__.keys():
            value = fn.__globals__[name]
            self._names.append((fn.__globals__, name, value))
            yield name, value
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in ("minires", "numpy"):
                for attribute in names & vars(value).keys():
                    self._names.append((vars(value), attribute, vars(value)[attribute]))
                    yield f"{name}.{attribute}", vars(value)[attribute]


def digest(array: Array) -> bytes:
    """A hash of the numbers in their logical order: it compares two states without a copy of the first."""
    return hashlib.blake2b(np.ascontiguousarray(on_cpu(array)).reshape(-1).view(np.uint8).data, digest_size=16).digest()


def _names(code: CodeType) -> set[str]:
    """The global names and attributes in a function's code and in that of the functions inside it."""
    nested = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*nested)
