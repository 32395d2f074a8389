"""Stochastic gradient descent with momentum, Adam, and the schedules of their learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minires import backends
from minires._checks import flag, integer, iterable, mapping, number
from minires._lazy import directory
from minires._repr import shown
from minires.arrays import Array, array_module, is_array
from minires.readonly import REMEDY, unpin
from minires.tensor import Tensor

__all__ = ["SGD", "Adam", "Constant", "Schedule", "Step", "Warmup"]
__dir__ = directory(globals())


class Optimiser:
    """What optimisers share: parameters, the checks before a step, the loading of their state."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = _leaves(params)
        self.lr = number(lr, "lr", 0)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        raise NotImplementedError

    def _moving(self) -> list[tuple[int, Tensor, Array]]:
        """(position, parameter, gradient) of each parameter with a gradient; raises before anything is moved."""
        moving = [(position, p, p.grad) for position, p in enumerate(self.params) if p.grad is not None]
        for position, p, _ in moving:
            _check_gradient(p, position)
            unpin(p.data)
            if not getattr(p.data.flags, "writeable", True):
                raise ValueError(f"params[{position}] is a read-only array; nothing was moved: {REMEDY}")
        return moving

    def _loaded(self, state: Mapping[str, Array], kinds: tuple[str, ...]) -> dict[str, dict[int, Array]]:
        """Copies of the arrays named "kind.position", by kind and position.  Raises for one that fits no parameter."""
        mapping(state, "state", "names to arrays")
        names = {f"{kind}.{i}": (kind, i) for kind in kinds for i in range(len(self.params))}
        found: dict[str, dict[int, Array]] = {kind: {} for kind in kinds}
        for name, array in state.items():
            if name not in names:
                raise ValueError(f"state has {shown(name)}, which fits none of the {len(self.params)} parameters")
            kind, position = names[name]
            p = self.params[position].data
            if not is_array(array):
                raise TypeError(f"state: {name} must be an array, got {type(array).__name__}")
            if kind == "step":
                if array.shape != () or array.dtype.kind not in "iu" or array < 1:
                    raise ValueError(f"state: {name} must be an integer of shape (), at least 1, got {shown(array)}")
            elif array.shape != p.shape or array.dtype != p.dtype:
                raise ValueError(
                    f"state: {name} must be {p.dtype} {p.shape} like its parameter, got {array.dtype} {array.shape}"
                )
            found[kind][position] = array_module(p).array(array, order="C")
        return found


class SGD(Optimiser):
    """Gradient descent with momentum.  For each parameter p with gradient g:

        g ← g + weight_decay · p
        v ← momentum · v + (1 − dampening) · g          (v ← g in the first step)
        p ← p − lr · v                                  (nesterov: p − lr · (g + momentum · v))

    as in PyTorch: lr stands outside of v, so that a drop of lr takes effect at once.

    params          leaf Tensors; one without a gradient is left as it is
    lr              learning rate, at least 0; a plain attribute, set it whenever you like
    momentum        at least 0
    weight_decay    at least 0
    nesterov        needs momentum > 0 and dampening = 0
    dampening       in [0, 1]

    Raises ValueError or TypeError that names the argument.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = number(momentum, "momentum", 0)
        self.weight_decay = number(weight_decay, "weight_decay", 0)
        self.nesterov = flag(nesterov, "nesterov")
        self.dampening = number(dampening, "dampening", 0, 1)
        if self.nesterov and not (self.momentum > 0 and self.dampening == 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening = 0, got momentum {momentum!r} and dampening {dampening!r}"
            )
        self._velocity: list[Array | None] = [None] * len(self.params)
        self._scratch: dict[Any, Array] = {}

    def step(self) -> None:
        """Moves every parameter once, in place."""
        lr, moving = number(self.lr, "lr", 0), self._moving()
        if self._step_of_backend(self.lr if isinstance(self.lr, float) else lr, moving):
            return
        for position, p, g in moving:
            xp, scratch = array_module(p.data), self._scratch_like(p.data)
            if self.weight_decay:
                xp.multiply(p.data, self.weight_decay, out=scratch)
                scratch += g
                g = scratch
            v = self._velocity[position]
            if self.momentum and v is None:
                v = self._velocity[position] = g.copy()
            elif v is not None:
                v *= self.momentum
                v += g if not self.dampening else xp.multiply(g, 1 - self.dampening, out=scratch)
            if self.nesterov or v is None:
                p.data -= xp.multiply(g, lr, out=scratch)
            if v is not None:
                p.data -= xp.multiply(v, lr * self.momentum if self.nesterov else lr, out=scratch)

    def _step_of_backend(self, lr: float, moving: list[tuple[int, Tensor, Array]]) -> bool:
        """The whole step by the backend's one kernel for all parameters, where it has one; only for plain momentum."""
        arrays, grads = [p.data for _, p, _ in moving], [g for _, _, g in moving]
        plain = self.momentum > 0 and not self.nesterov and not self.dampening
        if not plain or not arrays:
            return False
        kernel = getattr(backends.active(array_module(arrays[0]).__name__), "sgd_step", None)
        velocities = [v for i, _, _ in moving if (v := self._velocity[i]) is not None]
        if kernel is None or not all(a.flags.c_contiguous for a in (*arrays, *velocities)):
            return False
        if len({a.dtype for a in (*arrays, *grads, *velocities)}) > 1:
            return False
        if any(g.shape != a.shape for g, a in zip(grads, arrays, strict=True)):
            return False
        for i, p, _ in moving:
            if self._velocity[i] is None:
                self._velocity[i] = array_module(p.data).zeros_like(p.data)
        kernel(arrays, grads, [self._velocity[i] for i, _, _ in moving], lr, self.momentum, self.weight_decay)
        return True

    def state_dict(self) -> dict[str, Array]:
        """The velocities by position, "velocity.0" ...; a parameter that was never moved has none. Not copies."""
        return {f"velocity.{i}": v for i, v in enumerate(self._velocity) if v is not None}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Takes over what `state_dict` gave, copying; ValueError, with nothing changed, where it doesn't fit."""
        found = self._loaded(state, ("velocity",))["velocity"]
        self._velocity = [found.get(i) for i in range(len(self.params))]

    def _scratch_like(self, p: Array) -> Array:
        """An array of p's shape to compute in: all parameters of a dtype share the memory of the largest."""
        key = (array_module(p).__name__, p.dtype)
        memory = self._scratch.get(key)
        if memory is None or memory.size < p.size:
            memory = self._scratch[key] = array_module(p).empty(p.size, p.dtype)
        return memory[: p.size].reshape(p.shape)


class Adam(Optimiser):
    """Adam (Kingma and Ba, arXiv:1412.6980).  For each parameter p with gradient g, in its step t = 1, 2, ...:

        g ← g + weight_decay · p
        m ← β₁ · m + (1 − β₁) · g                       (exp_avg, from 0)
        v ← β₂ · v + (1 − β₂) · g²                      (exp_avg_sq, from 0)
        p ← p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + eps)

    as in PyTorch.

    params          leaf Tensors; one without a gradient is left as it is, and its t too
    lr              learning rate, at least 0; a plain attribute, set it whenever you like
    betas           (β₁, β₂), each in [0, 1)
    eps             at least 0
    weight_decay    at least 0

    Raises ValueError or TypeError that names the argument.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be a pair of numbers, got {shown(betas)}")
        self.betas = number(betas[0], "betas", 0), number(betas[1], "betas", 0)
        if max(self.betas) >= 1:
            raise ValueError(f"betas must be below 1, got {shown(betas)}")
        self.eps = number(eps, "eps", 0)
        self.weight_decay = number(weight_decay, "weight_decay", 0)
        self._steps = [0] * len(self.params)
        self._exp_avg: dict[int, Array] = {}
        self._exp_avg_sq: dict[int, Array] = {}

    def step(self) -> None:
        """Moves every parameter once, in place."""
        lr, (beta1, beta2) = number(self.lr, "lr", 0), self.betas
        for i, p, grad in self._moving():
            xp = array_module(p.data)
            if not self._steps[i]:
                self._exp_avg[i], self._exp_avg_sq[i] = xp.zeros_like(p.data), xp.zeros_like(p.data)
            self._steps[i] += 1
            m, v, t = self._exp_avg[i], self._exp_avg_sq[i], self._steps[i]
            g = grad + self.weight_decay * p.data if self.weight_decay else grad
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            p.data -= lr / (1 - beta1**t) * m / (xp.sqrt(v / (1 - beta2**t)) + self.eps)

    def state_dict(self) -> dict[str, Array]:
        """By position "step.0", "exp_avg.0", "exp_avg_sq.0" ...; none for a parameter never moved. Not copies."""
        state: dict[str, Array] = {}
        for i in sorted(self._exp_avg):
            state |= {f"step.{i}": np.array(self._steps[i]), f"exp_avg.{i}": self._exp_avg[i]}
            state[f"exp_avg_sq.{i}"] = self._exp_avg_sq[i]
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Takes over what `state_dict` gave, copying; ValueError, with nothing changed, where it doesn't fit."""
        steps, exp_avg, exp_avg_sq = self._loaded(state, ("step", "exp_avg", "exp_avg_sq")).values()
        for i in {*steps, *exp_avg, *exp_avg_sq}:
            if not (i in steps and i in exp_avg and i in exp_avg_sq):
                raise ValueError(f"state must hold step.{i}, exp_avg.{i} and exp_avg_sq.{i} together")
        self._steps = [int(steps.get(i, 0)) for i in range(len(self.params))]
        self._exp_avg, self._exp_avg_sq = exp_avg, exp_avg_sq


def _check_gradient(p: Tensor, position: int) -> None:
    grad = p.grad
    if grad is None or not is_array(grad):
        kind = type(grad).__name__
        raise TypeError(f"params[{position}] has a gradient that is no array: its grad is of type {kind}")
    if grad.shape != p.data.shape:
        raise ValueError(f"params[{position}] has shape {p.data.shape}, its gradient {grad.shape}")
    if grad.dtype.kind != "f":
        raise TypeError(f"params[{position}] has dtype {p.data.dtype}, its gradient {grad.dtype}")


def _check_observed(iteration: int, training_error: float) -> None:
    integer(iteration, "iteration", 0)
    number(training_error, "training_error", 0, 100)


def _leaves(params: Iterable[Tensor]) -> list[Tensor]:
    if isinstance(params, Tensor):
        raise TypeError("params must be an iterable of Tensors, got one Tensor; write [tensor]")
    leaves = iterable(params, "params", "an iterable of Tensors")
    if not leaves:
        raise ValueError("params must hold at least one Tensor, got none")
    for i, p in enumerate(leaves):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{i}] must be a Tensor, got {type(p).__name__}")
        if not p.is_leaf:
            raise ValueError(f"params[{i}] is the result of {p.node!r}; only leaf Tensors can be optimised")
        if p.dtype.kind != "f":
            raise TypeError(f"params[{i}] must have a floating dtype, got {p.dtype}")
    if len({id(p) for p in leaves}) != len(leaves):
        raise ValueError("params names the same Tensor twice")
    return leaves


class Schedule(Protocol):
    """The learning rate of every iteration (counted from 0); what it learns on the way is its state."""

    def __call__(self, iteration: int) -> float: ...

    def observe(self, iteration: int, training_error: float) -> None:
        """Receives the error of each iteration's batch, in percent, before the update."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class _Stateless:
    def observe(self, iteration: int, training_error: float) -> None:
        _check_observed(iteration, training_error)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if mapping(state, "state", "names to values"):
            raise ValueError(f"state must be empty for {type(self).__name__}, got {shown(state)}")


@dataclass(frozen=True)
class Constant(_Stateless):
    """The same learning rate throughout."""

    lr: float

    def __post_init__(self) -> None:
        number(self.lr, "lr", 0)

    def __call__(self, iteration: int) -> float:
        integer(iteration, "iteration", 0)
        return self.lr


@dataclass(frozen=True)
class Step(_Stateless):
    """lr · factor^k after k milestones: the paper divides by 10 at 32k and at 48k of 64k iterations.

    milestones   iterations, rising; from each of them on the rate is lower
    """

    lr: float
    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        number(self.lr, "lr", 0)
        number(self.factor, "factor", 0)
        steps = [integer(m, "milestones", 0) for m in iterable(self.milestones, "milestones", "iterations")]
        if steps != sorted(steps):
            raise ValueError(f"milestones must rise, got {shown(self.milestones)}")
        object.__setattr__(self, "milestones", tuple(steps))
        try:
            number(self.lr * self.factor ** len(steps), "factor")
        except (OverflowError, ValueError):
            limit = f"factor must leave the rate finite after {len(steps)} milestones"
            raise ValueError(f"{limit}, got {shown(self.factor)}") from None

    @classmethod
    def at(cls, lr: float, milestones: Iterable[float], iterations: int, factor: float = 0.1) -> Step:
        """Milestones in iterations or, below 1, as fractions of a run of `iterations`."""
        integer(iterations, "iterations", 1)
        places = iterable(milestones, "milestones", "iterations or fractions")
        steps = (
            round(m * iterations) if number(m, "milestones", 0) < 1 else integer(m, "milestones", 0) for m in places
        )
        return cls(lr, tuple(steps), factor)

    def __call__(self, iteration: int) -> float:
        integer(iteration, "iteration", 0)
        drops = sum(iteration >= m for m in self.milestones)
        return self.lr * self.factor**drops


class Warmup:
    """A low learning rate first, then another schedule.

    "We use 0.01 to warm up the training until the training error is below 80 % (about 400 iterations), and then go back
    to 0.1" (the paper on ResNet-110, section 4.2).

    schedule      what follows; its milestones count from the start of training
    lr            the rate of the warm-up, at least 0
    iterations    the length of the warm-up; None: until the training error, averaged over 50 iterations, is below
                  `until_error`
    until_error   percent
    """

    window = 50

    def __init__(
        self, schedule: Schedule, lr: float = 0.01, iterations: int | None = None, until_error: float = 80.0
    ) -> None:
        if not callable(schedule) or not hasattr(schedule, "observe"):
            raise TypeError(f"schedule must be a Schedule, got {shown(schedule)}")
        self.schedule = schedule
        self.lr = number(lr, "lr", 0)
        self.until_error = number(until_error, "until_error", 0, 100)
        self.ends = None if iterations is None else integer(iterations, "iterations", 0)
        self._errors: list[float] = []

    def __call__(self, iteration: int) -> float:
        integer(iteration, "iteration", 0)
        return self.lr if self.ends is None or iteration < self.ends else self.schedule(iteration)

    def observe(self, iteration: int, training_error: float) -> None:
        _check_observed(iteration, training_error)
        self.schedule.observe(iteration, training_error)
        if self.ends is None:
            self._errors = [*self._errors, training_error][-self.window :]
            if len(self._errors) == self.window and sum(self._errors) / self.window < self.until_error:
                self.ends, self._errors = iteration + 1, []

    def state_dict(self) -> dict[str, Any]:
        return {"ends": self.ends, "errors": list(self._errors), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(mapping(state, "state", "names to values")) != {"ends", "errors", "schedule"}:
            raise ValueError(f"state of a Warmup must hold ends, errors and schedule, got {shown(state)}")
        ends = None if state["ends"] is None else integer(state["ends"], "state: ends", 0)
        errors = [number(e, "state: errors", 0, 100) for e in iterable(state["errors"], "state: errors", "numbers")]
        self.schedule.load_state_dict(state["schedule"])
        self.ends, self._errors = ends, errors
