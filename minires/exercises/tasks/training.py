"""He initialisation and SGD with momentum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minires.exercises.solutions import he_init, sgd_momentum
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, Seed, draw, times

M = Misconception

# -- He initialisation


STATISTICS = (
    *("the deviation / √(2/n)", "the mean / √(2/n)", "the kurtosis / 3", "the correlation of neighbours"),
    "the largest |w| / (3.4 deviations), at most 1,",
)
SHAPES = ((300, 200), (150, 500), (40, 120, 3, 3), (120, 30, 3, 5), (600, 40, 1, 1), (30, 20, 7, 7))


def he_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(SHAPES):
        fan = ("in", "out")[number % 2]
        kind = "linear layer" if len(shape) == 2 else "convolution"
        features = frozenset({f"fan is {fan!r}", f"the shape is that of a {kind}"})
        seed = Seed(int(rng.integers(2**31)))
        yield Case(f"{kind} {times(*shape)}, fan {fan!r}", (shape, fan, seed), {}, features)
        if number == 0:
            yield Case(f"{kind} {times(*shape)}, fan {fan!r}, same seed", (shape, fan, seed), {}, features)


def he_measure(arguments: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """STATISTICS of the weights: [1, 0, 1, 0, 1] up to chance; a complaint about an array of another shape."""
    shape, fan, _ = arguments
    weights = np.asarray(outputs[0])
    if weights.shape != tuple(shape) or weights.dtype.kind != "f":
        return (f"w has shape {weights.shape}, expected {tuple(shape)}",)
    root = math.sqrt((shape[1] if fan == "in" else shape[0]) * math.prod(shape[2:]) / 2)
    std, mean = float(weights.std()), float(weights.mean())
    if not std > 0:
        return (np.array([0, mean * root, 0, 0, 0]),)
    z = ((weights - mean) / std).ravel()
    tail = min(float(abs(z).max()) / 3.4, 1)  # 30,000 normal numbers: the largest is below 3.4 in 1 of 10^8 draws
    return (np.array([std * root, mean * root, float((z**4).mean()) / 3, float((z[1:] * z[:-1]).mean()), tail]),)


def he_among(cases: Sequence[Case], outputs: Sequence[Sequence[Any]]) -> Misconception | None:
    """Whether the weights follow from rng: equal for equal seeds, different for different seeds."""
    drawn: dict[tuple[Any, ...], list[tuple[int, Array]]] = {}
    for case, (w,) in zip(cases, outputs, strict=True):
        shape, fan, seed = case.arguments
        drawn.setdefault((shape, fan), []).append((seed.seed, w))
    calls = [(a, b) for found in drawn.values() for a, b in itertools.combinations(found, 2)]
    if any(a[0] != b[0] and np.array_equal(a[1], b[1]) for a, b in calls):
        return Misconception("rng ignored", "source of randomness", "w is the same for every rng")
    if any(a[0] == b[0] and not np.array_equal(a[1], b[1]) for a, b in calls):
        return Misconception("another source than rng", "source of randomness", "w differs for equal seeds of rng")
    measured = [he_measure(case.arguments, tuple(found))[0] for case, found in zip(cases, outputs, strict=True)]
    if all(abs(one[0] - 1) < 1e-9 for one in measured):
        text = "w · √(2/n) / (deviation of w), which makes the weights depend on each other"
        return Misconception("deviation of the sample made exact", "distribution", text)
    return None


def he_variant(bugs: Bugs, shape: tuple[int, ...], fan: str, rng: np.random.Generator) -> tuple[Array, ...]:
    has = bugs.__contains__
    field = math.prod(shape[2:])
    if has("fan-in and fan-out exchanged"):
        fan = "out" if fan == "in" else "in"
    if has("always fan-in"):
        fan = "in"
    if has("always fan-out"):
        fan = "out"
    products = (shape[1] if fan == "in" else shape[0]) * field
    if has("kernel size forgotten"):
        products //= field
    if has("kernel height only"):
        products = products // field * (shape[2] if len(shape) > 2 else 1)
    if has("all dimensions multiplied"):
        products = math.prod(shape)
    if has("sum of both fans"):
        products = (shape[0] + shape[1]) * field
    if has("mean of both fans"):
        products = (shape[0] + shape[1]) * field / 2  # type: ignore[assignment]
    gain = 2.0
    if has("gain forgotten"):
        gain = 1.0
    if has("gain not under the root"):
        gain = 4.0
    if has("gain squared root twice"):
        gain = math.sqrt(2)
    variance = gain / products
    std = math.sqrt(variance)
    if has("variance used as deviation"):
        std = variance
    if has("deviation inverted"):
        std = 1 / std
    if has("root of 2 alone"):
        std = math.sqrt(2) / products
    if has("fixed deviation 0.01"):
        std = 0.01
    if has("fixed deviation 1"):
        std = 1.0
    if has("uniform with this bound"):
        return (rng.uniform(-std, std, shape),)
    if has("uniform with the right deviation"):
        return (rng.uniform(-std * math.sqrt(3), std * math.sqrt(3), shape),)
    if has("uniform from 0 to 1"):
        return (rng.uniform(0, 1, shape) * std,)
    if has("zeros"):
        return (np.zeros(shape),)
    z = rng.standard_normal(shape)
    for limit in (1.5, 2, 2.5, 3):
        if has(f"clipped at {limit} deviations"):
            z = z.clip(-limit, limit)
        if has(f"redrawn beyond {limit} deviations"):
            while (abs(z) > limit).any():
                z = np.where(abs(z) > limit, rng.standard_normal(shape), z)
    if has("absolute values"):
        z = abs(z)
    if has("sorted"):
        z = np.sort(z.ravel()).reshape(shape)
    if has("mean 1"):
        return (1 + z * std,)
    return (z * std,)


HE = Exercise(
    name="he_init",
    teaches="which deviation keeps signals alive through many ReLUs",
    section="3.4, reference [13]",
    signature="shape, fan, rng",
    outputs=("w",),
    text="""
        Weights by He et al. (2015), for layers followed by ReLU.

        shape    (O, I) of a linear layer, or (O, C, KH, KW) of a convolution
        fan      "in" or "out"
        rng      numpy.random.Generator, the source of all random numbers
        returns  w of this shape, float64: normal numbers with mean 0 and variance 2 / n

        fan "in":   n = number of products that are summed into one output
        fan "out":  n = number of products that are summed into the gradient of one input (stride 1)
        """,
    solution=he_init,
    variant=he_variant,
    misconceptions=(
        M("fan-in and fan-out exchanged", "fan", "n = O·KH·KW for fan in, n = C·KH·KW for fan out"),
        M("always fan-in", "fan", "n = C·KH·KW, also for fan out"),
        M("always fan-out", "fan", "n = O·KH·KW, also for fan in"),
        M("kernel size forgotten", "fan", "n = C, without KH·KW"),
        M("kernel height only", "fan", "n = C·KH, without KW"),
        M("all dimensions multiplied", "fan", "n = O·C·KH·KW"),
        M("sum of both fans", "fan", "variance 2 / (fan_in + fan_out): Xavier's"),
        M("mean of both fans", "fan", "variance 2 / ((fan_in + fan_out) / 2)"),
        M("gain forgotten", "gain", "variance 1 / n"),
        M("gain not under the root", "gain", "deviation 2 / √n"),
        M("gain squared root twice", "gain", "deviation √(√2 / n)"),
        M("variance used as deviation", "std and variance", "deviation 2 / n instead of √(2 / n)"),
        M("deviation inverted", "std and variance", "deviation √(n / 2)"),
        M("root of 2 alone", "std and variance", "deviation √2 / n"),
        M("fixed deviation 0.01", "fan", "deviation 0.01 for every shape"),
        M("fixed deviation 1", "fan", "deviation 1 for every shape"),
        M("uniform with this bound", "distribution", "uniform from −√(2/n) to √(2/n), whose variance is 2 / (3·n)"),
        M("uniform with the right deviation", "distribution", "uniform from −√(6/n) to √(6/n)"),
        M("uniform from 0 to 1", "distribution", "uniform from 0 to √(2/n): the mean is not 0"),
        M("zeros", "distribution", "w = 0"),
        M("absolute values", "distribution", "w = |normal numbers|: no weight is negative"),
        M("sorted", "distribution", "w in ascending order: neighbours are almost equal"),
        M("mean 1", "distribution", "normal numbers around 1"),
        *(M(f"clipped at {k} deviations", "distribution", f"w = clip(w, −{k}·√(2/n), {k}·√(2/n))") for k in (1.5, 2)),
        M(
            "clipped at 3 deviations",
            "distribution",
            "w = clip(w, −limit, limit), with a limit of 2.5 to 3 deviations",
            ("clipped at 2.5 deviations", "redrawn beyond 2.5 deviations", "redrawn beyond 3 deviations"),
        ),
        M("redrawn beyond 2 deviations", "distribution", "truncated normal numbers: none beyond 2·√(2/n)"),
    ),
    cases=he_cases,
    right={"w": "w ~ Normal(0, 2 / n), n = C·KH·KW (fan in) or O·KH·KW (fan out)"},
    hint="rng.standard_normal(shape) has variance 1. Multiply by the deviation, the square root of the variance.",
    why="A sum of n products of variance σ² · E[x²] has n times that variance, and ReLU halves E[x²]. "
    "With σ² = 2 / n the signal keeps its size through any number of layers.",
    place="minires summary resnet20",
    tolerance=0.06,  # 30,000 weights: five times the deviation of the measured numbers, at most 0.012
    measure=he_measure,
    statistics=STATISTICS,
    among=he_among,
)

# -- SGD


def sgd_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(((1,), (2,), (3,), (2, 3), (4, 3, 2), (5,))):
        lr, momentum, decay = ((0.1, 0.0, 0.0), (0.5, 0.9, 0.0), (0.1, 0.0, 0.25), (0.1, 0.9, 0.01))[number % 4]
        if number >= 4:
            lr, momentum, decay = 0.25, 0.75, 0.125
        features = {
            "momentum is not 0": momentum != 0,
            "weight_decay is not 0": decay != 0,
        }
        text = f"p {times(*shape)}, lr {lr}, momentum {momentum}, weight_decay {decay}"
        arrays = (draw(rng, shape), draw(rng, shape), draw(rng, shape))
        yield Case(
            text, (*arrays, lr, momentum, decay), {}, frozenset(name for name, holds in features.items() if holds)
        )


def sgd_variant(
    bugs: Bugs, p: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float
) -> tuple[Array, ...]:
    has = bugs.__contains__
    decay = weight_decay * p
    if has("weight decay with the wrong sign"):
        decay = -decay
    if has("weight decay doubled"):
        decay = 2 * decay
    if has("weight decay halved"):
        decay = decay / 2
    if has("weight decay without p"):
        decay = weight_decay + 0 * p
    if has("weight decay of the sign of p"):
        decay = weight_decay * np.sign(p)
    if has("weight decay of matrices alone") and p.ndim < 2:
        decay = 0 * p
    outside = has("weight decay after the momentum") or has("decoupled weight decay")
    g = grad if has("weight decay forgotten") or outside else grad + decay
    if has("gradient with dampening"):
        g = (1 - momentum) * g
    inside = ("learning rate in the velocity", "learning rate in a negative velocity", "learning rate used twice")
    if any(map(has, inside)):
        g = lr * g
    new = momentum * velocity + g
    if has("learning rate in a negative velocity"):
        new = momentum * velocity - g
    if has("momentum forgotten"):
        new = g
    if has("old velocity not reduced"):
        new = velocity + g
    if has("momentum times everything"):
        new = momentum * (velocity + g)
    if has("momentum times the gradient"):
        new = velocity + momentum * g
    if has("velocity subtracted"):
        new = momentum * velocity - g
    step = new
    if has("old velocity used"):
        step = velocity
    if has("Nesterov"):
        step = g + momentum * new
    if has("step without the velocity"):
        step = g
    if has("weight decay after the momentum"):
        step = step + decay
    moved = p - lr * step
    if has("learning rate in the velocity"):
        moved = p - step
    if has("learning rate in a negative velocity"):
        moved = p + step
    if has("decoupled weight decay"):
        moved = p * (1 - weight_decay) - lr * step
    if has("gradient ascent"):
        moved = p + lr * step
    if has("learning rate forgotten"):
        moved = p - step
    if has("step returned"):
        moved = -lr * step
    return moved, velocity if has("old velocity returned") else new


SGD = Exercise(
    name="sgd_momentum",
    teaches="momentum and weight decay, in this order",
    section="3.4",
    signature="p, grad, velocity, lr, momentum, weight_decay",
    outputs=("p", "velocity"),
    text="""
        One step of SGD with momentum and weight decay, as in PyTorch and in the paper's experiments.

        p, grad, velocity           arrays of one shape: parameter, its gradient, its velocity before the step
        lr, momentum, weight_decay  numbers
        returns                     p and velocity after the step; the inputs stay unchanged

        Weight decay is the gradient of weight_decay / 2 · |p|², added to grad.
        The velocity is momentum times the old velocity plus this gradient.
        The step is −lr times the new velocity.
        """,
    solution=sgd_momentum,
    variant=sgd_variant,
    misconceptions=(
        M("weight decay forgotten", "weight decay", "velocity = momentum · velocity + grad"),
        M(
            "weight decay after the momentum",
            "weight decay",
            "p = p − lr · (velocity + weight_decay · p), with velocity from grad alone",
        ),
        M(
            "decoupled weight decay",
            "weight decay",
            "p = p · (1 − weight_decay) − lr · velocity, with velocity from grad alone",
        ),
        M(
            "weight decay with the wrong sign",
            "weight decay",
            "velocity = momentum · velocity + grad − weight_decay · p",
        ),
        M("weight decay of matrices alone", "weight decay", "weight_decay · p is added only if p has two axes or more"),
        M("weight decay doubled", "weight decay", "velocity = momentum · velocity + grad + 2 · weight_decay · p"),
        M("weight decay halved", "weight decay", "velocity = momentum · velocity + grad + weight_decay · p / 2"),
        M("weight decay without p", "weight decay", "velocity = momentum · velocity + grad + weight_decay"),
        M(
            "weight decay of the sign of p",
            "weight decay",
            "velocity = momentum · velocity + grad + weight_decay · sign(p)",
        ),
        M(
            "learning rate in the velocity",
            "learning rate",
            "velocity = momentum · velocity + lr · g, p = p − velocity",
        ),
        M(
            "learning rate in a negative velocity",
            "learning rate",
            "velocity = momentum · velocity − lr · g, p = p + velocity",
        ),
        M(
            "learning rate used twice",
            "learning rate",
            "velocity = momentum · velocity + lr · g, p = p − lr · velocity",
        ),
        M("learning rate forgotten", "learning rate", "p = p − velocity"),
        M("gradient with dampening", "momentum", "velocity = momentum · velocity + (1 − momentum) · g"),
        M("momentum forgotten", "momentum", "velocity = g"),
        M("old velocity not reduced", "momentum", "velocity = velocity + g"),
        M("momentum times everything", "momentum", "velocity = momentum · (velocity + g)"),
        M("momentum times the gradient", "momentum", "velocity = velocity + momentum · g"),
        M("velocity subtracted", "momentum", "velocity = momentum · velocity − g"),
        M("old velocity used", "momentum", "p = p − lr · (velocity before the step)"),
        M("Nesterov", "momentum", "p = p − lr · (g + momentum · velocity)"),
        M("step without the velocity", "momentum", "p = p − lr · g"),
        M("old velocity returned", "momentum", "velocity is returned as it came"),
        M("gradient ascent", "sign", "p = p + lr · velocity"),
        M("step returned", "nothing", "p = −lr · velocity: the step instead of the new parameter"),
    ),
    cases=sgd_cases,
    right={
        "p": "p ← p − lr · velocity, with the new velocity",
        "velocity": "velocity ← momentum · velocity + grad + weight_decay · p",
    },
    hint=(
        "Three lines: the gradient with weight decay, the velocity, the parameter. Each uses the result of the line "
        "before."
    ),
    why=(
        "The velocity is a sum of past gradients, each reduced by momentum once per step. The learning rate "
        "multiplies the whole velocity, so that a lower rate takes effect at once. Weight decay enters as a gradient, "
        "so it has momentum too."
    ),
    place="minires train resnet20 --iterations 1 (the code: minires/optim.py)",
)
EXERCISES = (HE, SGD)
