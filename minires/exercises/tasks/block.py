"""The building block of Figure 2, wired from given layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.exercises.layer import Layer
from minires.exercises.solutions import residual_block
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, draw, times

M = Misconception
# N, channels in, H, W, channels out, stride, option
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    *((1, 1, 2, 2, 1, 1, "A"), (1, 2, 2, 2, 2, 1, "B"), (1, 1, 4, 4, 2, 2, "A"), (1, 1, 4, 4, 2, 2, "B")),
    *((2, 2, 4, 4, 4, 2, "A"), (2, 2, 4, 6, 4, 2, "B"), (2, 3, 5, 4, 3, 1, "A"), (2, 2, 6, 4, 5, 2, "A")),
    *((1, 2, 3, 2, 3, 1, "A"), (1, 2, 6, 9, 4, 3, "A"), (1, 2, 4, 4, 2, 2, "A")),
    *((1, 1, 5, 5, 1, 2, "A"), (2, 2, 7, 5, 4, 2, "A")),
)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    for N, C, H, W, O, stride, option in GEOMETRIES:

        def norm(channels: int) -> Layer:
            return Layer("bn", (rng.choice((-1.5, 0.5, 2.0), channels), rng.choice((-1.0, 0.5, 1.0), channels)))

        def conv(filters: int, channels: int, size: int, step: int) -> Layer:
            return Layer("conv", (rng.standard_normal((filters, channels, size, size)),), step, size // 2)

        grows = stride > 1 or C != O
        projection = conv(O, C, 1, stride) if option == "B" and grows else None
        features = {
            "the dimensions increase": grows,
            "option is 'A'": option == "A",
            "option is 'B'": option == "B",
            "option is 'A' and the dimensions increase": grows and option == "A",
            "the stride is larger than 1": stride > 1,
            "a size is odd and the stride is larger than 1": stride > 1 and (H % 2 == 1 or W % 2 == 1),
            "the dimensions stay": not grows,
        }
        yield Case(
            f"x {times(N, C, H, W)}, {O} filters, stride {stride}, option {option}",
            (draw(rng, (N, C, H, W)), conv(O, C, 3, stride), norm(O), conv(O, O, 3, 1), norm(O), option, projection),
            {"N": N},
            frozenset(name for name, holds in features.items() if holds),
        )


def variant(
    bugs: Bugs, x: Array, conv1: Layer, bn1: Layer, conv2: Layer, bn2: Layer, option: str, projection: Layer | None
) -> tuple[Array, ...]:
    has = bugs.__contains__

    def relu(a: Array) -> Array:
        return np.maximum(a, 0)

    if has("batch norms exchanged"):
        bn1, bn2 = bn2, bn1
    if has("first batch norm used twice"):
        bn2 = bn1
    y = conv1(x)
    if has("batch norm after ReLU"):
        y = bn1(relu(y))
    elif has("first ReLU forgotten"):
        y = bn1(y)
    elif has("first batch norm forgotten"):
        y = relu(y)
    elif has("first batch norm before the convolution"):
        y = relu(conv1(bn1(x)))
    elif has("batch norm and ReLU before the convolution") and x.shape[1] == y.shape[1]:
        y = conv1(relu(bn1(x)))
    else:
        y = relu(bn1(y))
    if has("second convolution forgotten"):
        y = bn2(y)
    elif has("second batch norm forgotten"):
        y = conv2(y)
    elif has("second batch norm before the convolution"):
        y = conv2(bn2(y))
    else:
        y = bn2(conv2(y))
    shortcut: Array = x
    if projection is not None:
        shortcut = projection(x)
        if has("ReLU on the projection"):
            shortcut = relu(shortcut)
    elif y.shape != x.shape:
        C = x.shape[1]
        stride = -(-x.shape[2] // y.shape[2])
        OH, OW = y.shape[2:]
        small = x[:, :, ::stride, ::stride]
        if has("corner of x instead of every stride-th pixel"):
            small = x[:, :, :OH, :OW]
        if has("average instead of every stride-th pixel"):
            edges = ((0, 0), (0, 0), (0, OH * stride - x.shape[2]), (0, OW * stride - x.shape[3]))
            whole = np.pad(x, edges, constant_values=np.nan)
            small = np.nanmean(whole.reshape(*x.shape[:2], OH, stride, OW, stride), (3, 5))
        everywhere = has("subsampling begins at pixel 1, also with stride 1")
        if everywhere or (has("subsampling begins at pixel 1") and stride > 1):
            small = np.zeros((*x.shape[:2], OH, OW))
            found = x[:, :, 1::stride, 1::stride]
            small[:, :, : found.shape[2], : found.shape[3]] = found
        shortcut = np.zeros_like(y)
        first = 0
        if has("zero channels first"):
            first = y.shape[1] - C
        if has("zero channels on both sides"):
            first = (y.shape[1] - C) // 2
        shortcut[:, first : first + C] = small
        if has("channels repeated instead of zeros"):
            shortcut = small[:, np.arange(y.shape[1]) % C]
        if has("no shortcut where the dimensions increase"):
            shortcut = np.zeros_like(y)
    if has("ReLU on the shortcut"):
        shortcut = relu(shortcut)
    if has("batch norm on the shortcut"):
        shortcut = bn2(shortcut)
    if has("shortcut forgotten"):
        shortcut = np.zeros_like(y)
    if has("shortcut subtracted"):
        shortcut = -shortcut
    if has("ReLU before the addition"):
        return (relu(y) + shortcut,)
    if has("ReLU before and after the addition"):
        return (relu(relu(y) + shortcut),)
    if has("last ReLU forgotten"):
        return (y + shortcut,)
    if has("shortcut multiplied"):
        return (relu(y * shortcut),)
    if has("mean of both branches"):
        return (relu((y + shortcut) / 2),)
    if has("shortcut added before the last batch norm"):
        return (relu(bn2(conv2(relu(bn1(conv1(x)))) + shortcut)),)
    if has("shortcut returned"):
        return (relu(shortcut),)
    return (relu(y + shortcut),)


BLOCK = Exercise(
    name="residual_block",
    teaches="the building block, and how option A and option B change dimensions",
    section="3.2, 3.3, Figure 2",
    signature="x, conv1, bn1, conv2, bn2, option, projection",
    outputs=("y",),
    text="""
        Output of a building block (Figure 2): y = F(x) + shortcut, with ReLU after the addition.

        x                       (N, C, H, W)
        conv1, bn1, conv2, bn2  layers: functions of one array; conv1 may change channels and size
        option                  "A" or "B": the kind of shortcut where the dimensions increase
        projection              option B where the dimensions increase: a function of x; otherwise None
        returns                 y, of the shape of conv2's output

        F(x) has ReLU after bn1 alone.
        Where x has the shape of F(x), the shortcut is x.
        Option A otherwise: the shortcut takes every stride-th pixel of x, beginning with pixel (0, 0),
        and appends channels of zeros after the channels of x.
        """,
    solution=residual_block,
    variant=variant,
    misconceptions=(
        M("ReLU before the addition", "activation", "y = relu(F(x)) + shortcut"),
        M("ReLU before and after the addition", "activation", "y = relu(relu(F(x)) + shortcut)"),
        M("last ReLU forgotten", "activation", "y = F(x) + shortcut"),
        M("first ReLU forgotten", "activation", "F(x) = bn2(conv2(bn1(conv1(x))))"),
        M("ReLU on the shortcut", "activation", "y = relu(F(x) + relu(shortcut))"),
        M("shortcut forgotten", "shortcut", "y = relu(F(x)): a plain block"),
        M("shortcut subtracted", "shortcut", "y = relu(F(x) − shortcut)"),
        M("shortcut multiplied", "shortcut", "y = relu(F(x) · shortcut)"),
        M("mean of both branches", "shortcut", "y = relu((F(x) + shortcut) / 2)"),
        M("shortcut added before the last batch norm", "shortcut", "y = relu(bn2(conv2(…) + shortcut))"),
        M("batch norm on the shortcut", "shortcut", "y = relu(F(x) + bn2(shortcut))"),
        M("shortcut returned", "shortcut", "y = relu(shortcut)"),
        M(
            "no shortcut where the dimensions increase",
            "shortcut",
            "y = relu(F(x)) where F(x) has another shape than x",
        ),
        M(
            "corner of x instead of every stride-th pixel",
            "option A",
            "shortcut[i,j] = x[i,j] instead of x[i·stride,j·stride]",
        ),
        M(
            "average instead of every stride-th pixel",
            "option A",
            "shortcut[i,j] = mean of a stride×stride square of x",
        ),
        M(
            "subsampling begins at pixel 1",
            "option A",
            "shortcut[i,j] = x[i·stride+1,j·stride+1]",
            ("subsampling begins at pixel 1, also with stride 1",),
        ),
        M("ReLU on the projection", "activation", "y = relu(F(x) + relu(projection(x)))"),
        M("first batch norm before the convolution", "order of layers", "F(x) = bn2(conv2(relu(conv1(bn1(x)))))"),
        M("zero channels first", "option A", "the channels of x come after the zeros"),
        M("zero channels on both sides", "option A", "half of the zero channels come before the channels of x"),
        M("channels repeated instead of zeros", "option A", "shortcut channel c = x channel c mod C"),
        M("batch norms exchanged", "order of layers", "F(x) = bn1(conv2(relu(bn2(conv1(x)))))"),
        M("first batch norm used twice", "order of layers", "F(x) = bn1(conv2(relu(bn1(conv1(x)))))"),
        M("batch norm after ReLU", "order of layers", "F(x) = bn2(conv2(bn1(relu(conv1(x)))))"),
        M("first batch norm forgotten", "order of layers", "F(x) = bn2(conv2(relu(conv1(x))))"),
        M("second batch norm forgotten", "order of layers", "F(x) = conv2(relu(bn1(conv1(x))))"),
        M("second convolution forgotten", "order of layers", "F(x) = bn2(relu(bn1(conv1(x))))"),
        M("second batch norm before the convolution", "order of layers", "F(x) = conv2(bn2(relu(bn1(conv1(x)))))"),
        M("batch norm and ReLU before the convolution", "order of layers", "F(x) = bn2(conv2(conv1(relu(bn1(x)))))"),
    ),
    cases=cases,
    right={"y": "y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut)"},
    hint=(
        "Compute F(x) first. Its shape shows whether the dimensions increase. The stride follows from the two heights, "
        "rounded up."
    ),
    why="If F(x) is 0, the block passes x on: more layers can do no worse than fewer. ReLU stands after "
    "the addition, so that F(x) may be negative and can correct x in both directions. Option A changes the shape "
    "without a parameter.",
    place="minires step resnet20 --at layer2.0 --backend reference",
)
EXERCISES = (BLOCK,)
