"""What a function reaches and may move: modules, optimisers, leaves and arrays, so that a capture can restore them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import partial
from itertools import chain
from operator import is_
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from minires import random
from minires.arrays import Array
from minires.nn import Module
from minires.optim import Optimiser
from minires.readonly import release
from minires.tensor import Tensor


class Saved(NamedTuple):
    """A copy of everything that is reached."""

    arrays: list[tuple[Array, Array]]  # (array, copy) of parameters, statistics and loose arrays
    optimisers: list[tuple[dict[str, Array], float]]  # velocities by name, learning rate
    grads: list[tuple[Tensor, Array | None]]
    random_state: Any


class Reached:
    """What `fn`, its closure, the globals that it names and their attributes hold."""

    def __init__(self, fn: Any) -> None:
        self.modules: list[tuple[str, Module]] = []
        self.optimisers: list[Optimiser] = []
        self.loose: dict[str, Any] = {}  # Tensors and arrays outside of modules and optimisers
        for name, value in _walk(fn):
            if isinstance(value, Module):
                self.modules.append((name, value))
            elif isinstance(value, Optimiser):
                self.optimisers.append(value)
            else:
                self.loose[name] = value
        self._parts = [part for _, module in self.modules for part in module.modules()]
        self._own = [vars(part) for part in self._parts]
        self._held = [held for own in self._own for held in (own["_children"], own["_parameters"], own["_buffers"])]
        self._leaves = self.leaves()
        self._modes, self._objects, self._arrays = self._current()

    def leaves(self) -> list[Tensor]:
        found = [p for part in self._parts for p in part._parameters.values()]
        found += [value for value in self.loose.values() if isinstance(value, Tensor)]
        found += [p for optimiser in self.optimisers for p in optimiser.params]
        return list({id(leaf): leaf for leaf in found}.values())

    def arrays(self) -> dict[str, Array]:
        """Parameters, statistics, loose arrays, and what optimisers keep, by name."""
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
        return any(array is own or np.may_share_memory(array, own) for own in self.arrays().values())

    def contents(self) -> dict[str, bytes]:
        """A digest of every array and gradient, by name."""
        grads = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves()) if leaf.grad is not None}
        return {name: digest(array) for name, array in (self.arrays() | grads).items()}

    def changed(self) -> str:
        """What is not as it was found first: modes of modules, or what they hold; "" where all is.

        Runs before each replay, so it is written to take some microseconds.
        """
        modes, objects, arrays = self._current()
        if modes != self._modes:
            return "the mode of a module (training, fused) has changed"
        same = len(objects) == len(self._objects) and all(map(is_, objects, self._objects))
        if not same or not all(map(is_, arrays, self._arrays)):
            return "a parameter, a running statistic or a module has been replaced"
        return ""

    def save(self) -> Saved:
        return Saved(
            [(array, array.copy()) for array in self.arrays().values()],
            [({name: a.copy() for name, a in o.state_dict().items()}, o.lr) for o in self.optimisers],
            [(leaf, leaf.grad) for leaf in self.leaves()],
            random.generator().bit_generator.state,
        )

    def restore(self, saved: Saved, in_place: bool) -> None:
        """Everything as it was.

        in_place   what optimisers keep stays in its arrays, and is 0 where it did not exist yet; otherwise they get
                   new arrays, or none
        """
        for array, copy in saved.arrays:
            release(array)
            array[...] = copy
        for optimiser, (state, lr) in zip(self.optimisers, saved.optimisers, strict=True):
            optimiser.lr = lr
            if in_place:
                for name, array in optimiser.state_dict().items():
                    array[...] = state.get(name, 0)
            else:
                optimiser.load_state_dict(state)
        for leaf, grad in saved.grads:
            leaf.grad = grad
        random.generator().bit_generator.state = saved.random_state

    def _current(self) -> tuple[list[bool], list[Any], list[Array]]:
        """Modes; children, parameters and statistics of every module; the arrays of every leaf."""
        modes = [own["training"] for own in self._own] + [own["fused"] for own in self._own]
        objects = list(chain.from_iterable(map(dict.values, self._held)))
        return modes, objects, [leaf.data for leaf in self._leaves]


def digest(array: Array) -> bytes:
    """Of the numbers in their logical order; a digest takes no memory while captures are tested."""
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=16).digest()


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """(name, Module, Optimiser, Tensor or array) that `root` reaches, each once."""
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [(getattr(root, "__name__", type(root).__name__), root)]
    while queue:
        name, value = queue.pop()
        if id(value) in seen or isinstance(value, (ModuleType, type)):
            continue
        seen.add(id(value))
        if isinstance(value, (Module, Optimiser, Tensor, np.ndarray)):
            yield name, value
        elif isinstance(value, MethodType):
            queue += [(name, value.__self__), (name, value.__func__)]
        elif isinstance(value, partial):
            queue += [(name, value.func), (name, value.args), (name, value.keywords)]
        elif isinstance(value, FunctionType) and not (value.__module__ or "").startswith("minires."):
            found = inspect.getclosurevars(value)
            queue += [*found.nonlocals.items(), *found.globals.items(), (name, value.__defaults__)]
        elif isinstance(value, dict):
            queue += [(f"{name}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set)):
            queue += [(f"{name}[{position}]", item) for position, item in enumerate(value)]
        elif hasattr(value, "__dict__") and not isinstance(value, FunctionType):
            queue += [(f"{name}.{attribute}", item) for attribute, item in vars(value).items()]
