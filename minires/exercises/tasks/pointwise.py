"""ReLU, linear layer, skip-add and cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.exercises.solutions import (
    linear_backward,
    relu_backward,
    skip_add_backward,
    softmax_cross_entropy_backward,
)
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, draw, times

M = Misconception

# -- ReLU


def relu_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in ((3,), (1,), (2, 3), (2, 3, 4), (2, 3, 5, 4)):
        x = draw(rng, shape)
        if x.size > 1:
            x.flat[1] = 0
        yield Case(f"x {times(*shape)}", (draw(rng, shape), x), {"N": shape[0]})
    x = np.array([2.0, -3.0, 0.0, -0.0, 1e-9, -1e-9])
    yield Case("x of 6 numbers near 0", (np.array([1.0, 2.0, 3.0, -4.0, -5.0, -6.0]), x), {"N": 6})
    x = np.asfortranarray(draw(rng, (4, 6)))
    yield Case("x 4×6, in Fortran order", (draw(rng, (4, 6)), x), {"N": 4})


def relu_variant(bugs: Bugs, grad_output: Array, x: Array) -> tuple[Array, ...]:
    has = bugs.__contains__
    if has("grad_output replaced by ones"):
        grad_output = np.ones_like(grad_output)
    mask = (x > 0).astype(float)
    for name, other in {
        "gradient passes at 0": x >= 0,
        "half of the gradient at 0": np.where(x == 0, 0.5, mask),
        "mask inverted": x < 0,
        "mask inverted, with 0": x <= 0,
        "mask of grad_output": grad_output > 0,
        "mask of both": (x > 0) & (grad_output > 0),
        "multiplied by ReLU's output": np.maximum(x, 0),
        "multiplied by x": x,
        "multiplied by the sign of x": np.sign(x),
        "leaky": np.where(x > 0, 1.0, 0.01),
        "mask of x > 1": x > 1,
    }.items():
        if has(name):
            mask = other.astype(float)
    if has("forward returned"):
        return (np.maximum(x, 0),)
    if has("last index of the first axis left out"):
        mask[-1:] = 0
    return (grad_output * mask,)


RELU = Exercise(
    name="relu_backward",
    teaches="a gradient that passes or stops, element by element",
    section="3.4",
    signature="grad_output, x",
    outputs=("grad_x",),
    text="""
        Gradient of y = max(x, 0), element by element.

        grad_output, x  arrays of one shape; grad_output is the gradient of the loss with respect to y
        returns         grad_x, of the same shape

        grad_x = grad_output · dy/dx.  At the kink x = 0, take dy/dx = 0.
        """,
    solution=relu_backward,
    variant=relu_variant,
    misconceptions=(
        M("gradient passes at 0", "kink", "grad_x = grad_output · [x ≥ 0]"),
        M("half of the gradient at 0", "kink", "grad_x = grad_output / 2 where x = 0"),
        M("mask inverted", "wrong mask", "grad_x = grad_output · [x < 0]"),
        M("mask inverted, with 0", "wrong mask", "grad_x = grad_output · [x ≤ 0]"),
        M("mask of grad_output", "wrong mask", "grad_x = grad_output · [grad_output > 0]"),
        M("mask of both", "wrong mask", "grad_x = grad_output · [x > 0] · [grad_output > 0]"),
        M("mask of x > 1", "wrong mask", "grad_x = grad_output · [x > 1]"),
        M("multiplied by ReLU's output", "derivative", "grad_x = grad_output · max(x, 0)"),
        M("multiplied by x", "derivative", "grad_x = grad_output · x"),
        M("multiplied by the sign of x", "derivative", "grad_x = grad_output · sign(x), the gradient of |x|"),
        M("leaky", "derivative", "grad_x = 0.01 · grad_output where x ≤ 0"),
        M("forward returned", "derivative", "grad_x = max(x, 0)"),
        M("grad_output replaced by ones", "cotangent", "grad_x = [x > 0]"),
        M("last index of the first axis left out", "range too short", "grad_x[−1] = 0"),
    ),
    cases=relu_cases,
    right={"grad_x": "grad_x = grad_output · [x > 0]"},
    hint="Where x > 0, y is x and its slope is 1. Where x < 0, y is constant. What is left is one multiplication.",
    why="ReLU is the identity where x is positive, so the gradient passes there unchanged. Elsewhere y "
    "does not depend on x. The mask comes from the forward's input, never from the gradient.",
    place="minires step resnet20 --at ReLU --when backward --backend reference",
)

# -- linear layer


def linear_cases(rng: np.random.Generator) -> Iterator[Case]:
    for N, I, O in ((1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 2, 3), (2, 2, 2), (2, 3, 2), (3, 3, 3), (5, 4, 7), (4, 4, 4)):
        x, w, grad_output = draw(rng, (N, I)), draw(rng, (O, I)), draw(rng, (N, O))
        if N == 5:
            x, w, grad_output = np.asfortranarray(x), np.asfortranarray(w), np.asfortranarray(grad_output)
        features = {
            "there is more than one sample": N > 1,
            "there is more than one output": O > 1,
            "there is more than one input": I > 1,
            "the layer is not square": I != O,
        }
        sizes = {"N": N, "O": O, "I": I, "N·O": N * O, "N·I": N * I}
        yield Case(
            f"x {times(N, I)}, w {times(O, I)}",
            (grad_output, x, w),
            sizes,
            frozenset(k for k, v in features.items() if v),
        )


def linear_variant(bugs: Bugs, grad_output: Array, x: Array, w: Array) -> tuple[Array, ...]:
    has = bugs.__contains__
    g, N = grad_output, len(grad_output)
    if has("grad_output replaced by ones"):
        g = np.ones_like(g)
    square = w.shape[0] == w.shape[1]
    grad_x = g @ (w.T if has("w transposed") and square else w)
    if has("grad_x from the mean over the batch"):
        grad_x = np.broadcast_to(g.mean(0) @ w, grad_x.shape)
    if has("grad_x summed over the batch"):
        grad_x = g.sum(0) @ w
    if has("outputs summed before the product"):
        grad_x = g.sum(1, keepdims=True) * w.sum(0)
    if has("outputs averaged in grad_x"):
        grad_x = grad_x / w.shape[0]
    rows = slice(N - 1, N) if has("only the last sample") else slice(0, 1) if has("only the first sample") else slice(N)
    grad_w = g[rows].T @ x[rows]
    if has("sums before the product"):
        grad_w = np.outer(g.sum(0), x.sum(0))
    if has("means before the product"):
        grad_w = np.outer(g.mean(0), x.mean(0))
    if has("grad_w not summed over the batch"):
        grad_w = np.einsum("no,ni->noi", g, x)
    if has("x and grad_output exchanged in grad_w") and square:
        grad_w = x.T @ g
    if has("grad_w reshaped instead of transposed"):
        grad_w = (x.T @ g).reshape(w.shape)
    grad_b = g.sum(0)
    if has("only the last sample in grad_b"):
        grad_b = g[-1]
    if has("only the first sample in grad_b"):
        grad_b = g[0]
    if has("grad_b not summed"):
        grad_b = g
    if has("grad_b summed over the outputs"):
        grad_b = g.sum(1)
    if has("grad_b summed over everything"):
        grad_b = g.sum()
    if has("everything summed into each grad_b"):
        grad_b = np.full(g.shape[1], g.sum())
    if has("x in grad_b"):
        grad_b = (g.T @ x).sum(1)
    return grad_x, grad_w, np.asarray(grad_b)


LINEAR = Exercise(
    name="linear_backward",
    teaches="the gradients of a matrix product and of a broadcast bias",
    section="3.3",
    signature="grad_output, x, w",
    outputs=("grad_x", "grad_w", "grad_b"),
    text="""
        Gradients of a linear layer, y = x wᵀ + b.

        grad_output  (N, O)    gradient of the loss with respect to y
        x            (N, I)
        w            (O, I)
        returns      grad_x (N, I), grad_w (O, I), grad_b (O,)

        y[n, o] = b[o] + Σ_i x[n, i] · w[o, i]
        """,
    solution=linear_backward,
    variant=linear_variant,
    misconceptions=(
        M("w transposed", "transposed", "grad_x[n,i] = Σ_o grad_output[n,o] · w[i,o]"),
        M(
            "grad_x from the mean over the batch",
            "mean for sum",
            "grad_x[n,i] = Σ_o (mean of grad_output over n) · w[o,i]",
        ),
        M("grad_x summed over the batch", "reduction", "grad_x[i] = Σ_n,o grad_output[n,o] · w[o,i]"),
        M("outputs summed before the product", "sum before product", "grad_x[n,i] = (Σ_o grad_output) · (Σ_o w)"),
        M("outputs averaged in grad_x", "mean for sum", "grad_x[n,i] = Σ_o grad_output[n,o] · w[o,i] / O"),
        M("only the last sample", "overwritten", "grad_w[o,i] = grad_output[N−1,o] · x[N−1,i]"),
        M("only the first sample", "overwritten", "grad_w[o,i] = grad_output[0,o] · x[0,i]"),
        M("sums before the product", "sum before product", "grad_w[o,i] = (Σ_n grad_output[n,o]) · (Σ_n x[n,i])"),
        M("means before the product", "sum before product", "grad_w[o,i] = mean_n grad_output[n,o] · mean_n x[n,i]"),
        M("grad_w not summed over the batch", "reduction", "grad_w[n,o,i] = grad_output[n,o] · x[n,i]"),
        M("x and grad_output exchanged in grad_w", "transposed", "grad_w[o,i] = Σ_n x[n,o] · grad_output[n,i]"),
        M("grad_w reshaped instead of transposed", "reshaped", "grad_w = (xᵀ grad_output).reshape(O, I)"),
        M("only the last sample in grad_b", "overwritten", "grad_b[o] = grad_output[N−1,o]"),
        M("only the first sample in grad_b", "overwritten", "grad_b[o] = grad_output[0,o]"),
        M("grad_b not summed", "reduction", "grad_b = grad_output"),
        M("grad_b summed over the outputs", "reduction", "grad_b[n] = Σ_o grad_output[n,o]"),
        M("grad_b summed over everything", "reduction", "grad_b = Σ_n,o grad_output[n,o], one number"),
        M("everything summed into each grad_b", "reduction", "grad_b[o] = Σ_n,o grad_output[n,o]"),
        M("x in grad_b", "derivative", "grad_b[o] = Σ_n,i grad_output[n,o] · x[n,i]"),
        M("grad_output replaced by ones", "cotangent", "the gradient of Σ y instead of that of Σ grad_output · y"),
    ),
    cases=linear_cases,
    right={
        "grad_x": "grad_x[n,i] = Σ_o grad_output[n,o] · w[o,i]",
        "grad_w": "grad_w[o,i] = Σ_n grad_output[n,o] · x[n,i]",
        "grad_b": "grad_b[o] = Σ_n grad_output[n,o]",
    },
    hint="Differentiate y[n,o] = b[o] + Σ_i x[n,i] · w[o,i] with respect to one x[n,i], one w[o,i], one b[o]. "
    "Each gradient sums over the indices that it lacks. The shapes then leave one order of the product.",
    why="Each product x[n,i] · w[o,i] occurs once, in y[n,o]. So grad_output[n,o] returns to x times w "
    "and to w times x. Summing over the missing index gives a matrix product; for the bias, whose factor is 1, it "
    "gives a plain sum.",
    place="minires step resnet20 --at fc --when backward --backend reference",
)

# -- skip-add


SKIPS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    *(((2,), (2,)), ((2,), (1,)), ((1,), (3,)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), (1, 3)), ((2, 3), ())),
    *(((2, 1), (1, 3)), ((3,), (2, 3)), ((2, 3, 2, 2), (2, 3, 2, 2)), ((2, 3, 2, 2), (3, 1, 1))),
    *(((2, 3, 2, 2), (1, 3, 1, 1)), ((2, 3, 4, 5), (4, 5)), ((2, 3, 4, 5), (2, 1, 4, 1)), ((4, 1), (2, 3, 4, 5))),
    *(((1, 1, 1, 1), (2, 3, 4, 5)), ((2, 2, 2), (2, 1, 2))),
)


def skip_cases(rng: np.random.Generator) -> Iterator[Case]:
    for a, b in SKIPS:
        shape = np.broadcast_shapes(a, b)
        features = {
            "the shapes differ": a != b,
            "an axis of size 1 was repeated": any(
                m == 1 != n for s in (a, b) for m, n in zip(s[::-1], shape[::-1], strict=False)
            ),
            "a leading axis was added": min(len(a), len(b)) < len(shape),
        }
        yield Case(
            f"a {times(*a) or '()'}, b {times(*b) or '()'}",
            (draw(rng, shape), a, b),
            {"N": shape[0]},
            frozenset(name for name, holds in features.items() if holds),
        )


def skip_variant(
    bugs: Bugs, grad_output: Array, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> tuple[Array, ...]:
    has = bugs.__contains__
    if has("grad_output replaced by ones"):
        grad_output = np.ones_like(grad_output)

    def reduced(shape: tuple[int, ...], one: str) -> Array:
        whole = (1,) * (grad_output.ndim - len(shape)) + tuple(shape)
        leading = tuple(range(grad_output.ndim - len(shape)))
        ones = tuple(axis for axis, n in enumerate(whole) if n == 1 and axis not in leading)
        grad = grad_output
        if has("gradient halved"):
            grad = grad / 2
        if has(f"gradient lost in {one}"):
            return np.zeros(shape)
        if has("b subtracted") and one == "b":
            grad = -grad
        if has("not summed"):
            return grad
        if has("first element instead of the sum"):
            for axis in (*leading, *ones):
                grad = grad.take([0], axis)
            return grad.reshape(shape)
        if has("averaged over leading axes"):
            return np.asarray(
                grad.mean(leading).sum(tuple(a - len(leading) for a in ones), keepdims=True).reshape(shape)
            )
        if has("averaged over axes of size 1"):
            return np.asarray(
                grad.sum(leading).mean(tuple(a - len(leading) for a in ones), keepdims=True).reshape(shape)
            )
        if has("last axes summed instead of leading ones"):
            while grad.ndim > len(shape):
                grad = grad.sum(-1)
            return np.asarray(grad.sum(tuple(a for a, n in enumerate(shape) if n == 1), keepdims=True))
        total = np.mean if has("averaged") else np.max if has("maximum instead of the sum") else np.sum
        if has("shapes lined up at the left"):
            for axis, (m, n) in enumerate(zip(grad.shape, shape, strict=False)):
                if n == 1 < m:
                    grad = grad.sum(axis, keepdims=True)
            return grad
        if has("shapes lined up at the left, unequal axes summed"):
            for axis in range(min(len(shape), grad.ndim)):
                if shape[axis] != grad.shape[axis]:
                    grad = grad.sum(axis, keepdims=True)
            return grad
        if has("only leading axes summed"):
            return np.asarray(total(grad, axis=leading))
        if has("only axes of size 1 summed"):
            return np.asarray(total(grad, axis=ones, keepdims=True))
        if has("only the first axis of size 1 summed"):
            grad = np.asarray(total(grad, axis=leading))
            ones = tuple(axis for axis, n in enumerate(shape) if n == 1)[:1]
            return np.asarray(total(grad, axis=ones, keepdims=True))
        if has("axes of size 1 dropped"):
            return np.asarray(total(grad, axis=(*leading, *ones)))
        if has("leading axes kept"):
            return np.asarray(total(grad, axis=(*leading, *ones), keepdims=True))
        if has("everything summed") and whole != grad.shape:
            return np.full(shape, total(grad))
        return np.asarray(total(grad, axis=(*leading, *ones)).reshape(shape))

    return reduced(a_shape, "a"), reduced(b_shape, "b")


SKIP = Exercise(
    name="skip_add_backward",
    teaches="why a shortcut passes its gradient on, and what broadcasting adds",
    section="3.2",
    signature="grad_output, a_shape, b_shape",
    outputs=("grad_a", "grad_b"),
    text="""
        Gradients of y = a + b, where NumPy's broadcasting makes the shapes equal.

        grad_output  gradient of the loss with respect to y, of the broadcast shape
        a_shape      shape of a, a tuple; any number of axes, also ()
        b_shape      shape of b
        returns      grad_a of shape a_shape, grad_b of shape b_shape
        """,
    solution=skip_add_backward,
    variant=skip_variant,
    misconceptions=(
        M("not summed", "broadcast", "grad_a = grad_output, of y's shape"),
        M(
            "averaged",
            "mean for sum",
            "grad_a = mean of grad_output over the repetitions",
            ("averaged over leading axes", "averaged over axes of size 1"),
        ),
        M("maximum instead of the sum", "broadcast", "grad_a = maximum of grad_output over the repetitions"),
        M("first element instead of the sum", "broadcast", "grad_a = grad_output[0], the first repetition"),
        M(
            "last axes summed instead of leading ones",
            "broadcast",
            "grad_a = Σ over the last axes of grad_output; broadcasting adds axes at the left",
        ),
        M("only leading axes summed", "broadcast", "grad_a = Σ over the added axes; axes of size 1 are not summed"),
        M("only axes of size 1 summed", "broadcast", "grad_a = Σ over the axes of size 1; added axes are not summed"),
        M("only the first axis of size 1 summed", "broadcast", "grad_a = Σ over one of the axes of size 1"),
        M(
            "shapes lined up at the left",
            "broadcast",
            "axis 0 of a shape is compared with axis 0 of grad_output; broadcasting lines shapes up at the right",
            ("shapes lined up at the left, unequal axes summed",),
        ),
        M("axes of size 1 dropped", "keepdims", "grad_a has no axes of size 1: (2, 1) becomes (2,)"),
        M("leading axes kept", "keepdims", "grad_a keeps added axes with size 1: (3,) becomes (1, 3)"),
        M("everything summed", "reduction", "grad_a = Σ of all of grad_output, wherever something was repeated"),
        M("gradient halved", "factor", "grad_a = grad_b = grad_output / 2"),
        M("gradient lost in a", "nothing", "grad_a = 0"),
        M("gradient lost in b", "nothing", "grad_b = 0"),
        M("b subtracted", "sign", "grad_b = −grad_output: the gradient of a − b"),
        M("grad_output replaced by ones", "cotangent", "grad_a = Σ 1, the number of repetitions"),
    ),
    cases=skip_cases,
    right={
        "grad_a": "grad_a = Σ of grad_output over the axes along which a was repeated",
        "grad_b": "grad_b = Σ of grad_output over the axes along which b was repeated",
    },
    hint="Line the shapes up at the right. An axis that a lacks, or has with size 1, was repeated: sum over it. "
    "Then give the result exactly a's shape.",
    why="The derivative of a + b is 1 for both, so the gradient passes unchanged to both. This is why a "
    "shortcut carries gradients through a deep network. An element that broadcasting repeats collects the sum over "
    "its repetitions.",
    place="minires step resnet20 --at Add --when backward",
)

# -- softmax and cross-entropy


def entropy_cases(rng: np.random.Generator) -> Iterator[Case]:
    for N, C in ((1, 2), (2, 2), (1, 3), (3, 3), (2, 4), (5, 3), (4, 6)):
        logits = np.round(rng.standard_normal((N, C)), 1)
        labels = rng.permutation(np.arange(max(N, C)) % C)[:N]
        features = {"there is more than one sample": N > 1, "there are more than two classes": C > 2}
        yield Case(
            f"logits {times(N, C)}",
            (logits, labels),
            {"N": N, "C": C, "N·C": N * C},
            frozenset(name for name, holds in features.items() if holds),
        )
    large = np.array([[1000.0, 999.0, 0.0], [-1000.0, -1001.0, -999.5], [3.0, 1.0, 2.0]])
    known = frozenset({"there is more than one sample", "there are more than two classes", "logits are large"})
    yield Case("logits 3×3, up to 1000", (large, np.array([1, 2, 0])), {"N": 3, "C": 3, "N·C": 9}, known)


def entropy_variant(bugs: Bugs, logits: Array, labels: Array) -> tuple[Array, ...]:
    has = bugs.__contains__
    N, C = logits.shape
    with np.errstate(all="ignore"):
        if has("labels shifted up"):
            labels = (labels + 1) % C
        if has("labels shifted down"):
            labels = labels - 1
        if has("logits clipped"):
            logits = logits.clip(-50, 50)
        shift = logits.max(1, keepdims=True)
        axis: int | None = 1
        if has("softmax over the batch"):
            shift, axis = logits.max(0, keepdims=True), 0
        if has("softmax over everything"):
            shift, axis = logits.max(), None
        if has("maximum of the whole batch subtracted"):
            shift = logits.max()
        if has("maximum not subtracted"):
            shift = np.zeros(())
        e = np.exp(logits - shift)
        p = e / e.sum(axis, keepdims=True)
        if has("sums of rows along the columns"):
            p = e / e.sum(1)  # without keepdims this needs N = C or N = 1
        if has("maxima and sums of rows along the columns"):
            e = np.exp(logits - logits.max(1))
            p = e / e.sum(1)
        if has("maxima of rows along the columns"):
            e = np.exp(logits - logits.max(1))
            p = e / e.sum(1, keepdims=True)
        if has("exp forgotten"):
            p = logits / logits.sum(1, keepdims=True)
        if has("sigmoid"):
            p = 1 / (1 + np.exp(-logits))
        if has("log of the softmax"):
            p = logits - shift - np.log(e.sum(axis, keepdims=True))
        if has("maximum not subtracted, with log"):
            p = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
        if has("maximum of the whole batch subtracted, with log"):
            p = np.exp(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum(1, keepdims=True)))
        if has("exp not normalised"):
            p = e
        if has("logits instead of softmax"):
            p = logits
        hot = np.eye(C)[labels]
        if has("labels shifted down, the first to no class"):
            hot = np.eye(C, k=-1)[labels]
        if has("labels shifted up, the last to no class"):
            hot = np.eye(C, k=1)[labels]
        grad = p - hot
        if has("label term in every row"):
            grad = p - np.isin(np.arange(C), labels)
        if has("gradient of the logarithm alone"):
            grad = -hot / p.clip(1e-12)
        if has("gradient of the logarithm alone, not clipped"):
            grad = np.where(hot == 1, -1 / p, 0)
        if has("label term forgotten"):
            grad = p
        if has("softmax forgotten"):
            grad = -hot
        if has("label term added"):
            grad = p + hot
        if has("label term doubled"):
            grad = p - 2 * hot
        if has("only the label's logit"):
            grad = grad * hot
        if has("label's logit left out"):
            grad = p * (1 - hot)
        if has("derivative of a quadratic loss"):
            grad = (p - hot) * p * (1 - p)
        if has("loss instead of gradient"):
            grad = -hot * np.log(p)
        if has("gradient of the probability"):
            grad = (p - hot) * (p * hot).sum(1, keepdims=True)
        if has("divided by the number of classes"):
            return (grad / C,)
        if has("divided by all elements"):
            return (grad / (N * C),)
        if has("only softmax divided by N"):
            return (p / N - hot,)
        if has("only the label term divided by N"):
            return (p - hot / N,)
        if has("not averaged"):
            return (grad,)
        if has("divided by N twice"):
            return (grad / N / N,)
    return (grad / N,)


ENTROPY = Exercise(
    name="softmax_cross_entropy_backward",
    teaches="softmax and cross-entropy together: a simple gradient, a mean, and overflow",
    section="3.3",
    signature="logits, labels",
    outputs=("grad_logits",),
    text="""
        Gradient of the mean cross-entropy of softmax.

        logits   (N, C)
        labels   (N,)     integers from 0 to C − 1
        returns  grad_logits (N, C)

        p[n, c] = exp(logits[n, c]) / Σ_k exp(logits[n, k])
        loss = −1/N Σ_n log p[n, labels[n]]

        The logits may be as large as 1000.
        """,
    solution=softmax_cross_entropy_backward,
    variant=entropy_variant,
    misconceptions=(
        M("not averaged", "sum for mean", "grad[n,c] = p[n,c] − [c = label]"),
        M("divided by N twice", "mean for sum", "grad[n,c] = (p[n,c] − [c = label]) / N²"),
        M("divided by the number of classes", "factor", "grad[n,c] = (p[n,c] − [c = label]) / C"),
        M("divided by all elements", "mean for sum", "grad[n,c] = (p[n,c] − [c = label]) / (N·C)"),
        M("only softmax divided by N", "sum for mean", "grad[n,c] = p[n,c] / N − [c = label]"),
        M("only the label term divided by N", "sum for mean", "grad[n,c] = p[n,c] − [c = label] / N"),
        M("label term forgotten", "label term", "grad[n,c] = p[n,c] / N"),
        M("softmax forgotten", "label term", "grad[n,c] = −[c = label] / N"),
        M("label term added", "label term", "grad[n,c] = (p[n,c] + [c = label]) / N"),
        M("label term doubled", "label term", "grad[n,c] = (p[n,c] − 2·[c = label]) / N"),
        M("label term in every row", "label term", "grad[n,c] = (p[n,c] − [c is the label of any sample]) / N"),
        M("logits clipped", "overflow", "p = softmax(clip(logits, −50, 50)): large logits become equal"),
        M(
            "gradient of the logarithm alone",
            "derivative",
            "grad[n,label] = −1 / p[n,label] / N, the gradient with respect to p",
            ("gradient of the logarithm alone, not clipped",),
        ),
        M("only the label's logit", "only the label", "grad[n,c] = (p[n,c] − 1) / N for the label, else 0"),
        M("label's logit left out", "only the label", "grad[n,c] = p[n,c] / N for c ≠ label, else 0"),
        M(
            "labels shifted up",
            "off by one",
            "grad[n,c] = (p[n,c] − [c = label + 1]) / N",
            ("labels shifted up, the last to no class",),
        ),
        M(
            "labels shifted down",
            "off by one",
            "grad[n,c] = (p[n,c] − [c = label − 1]) / N",
            ("labels shifted down, the first to no class",),
        ),
        M("softmax over the batch", "softmax", "p[n,c] = exp(logits[n,c]) / Σ_n exp(logits[n,c])"),
        M("softmax over everything", "softmax", "p[n,c] = exp(logits[n,c]) / Σ_n,k exp(logits[n,k])"),
        M(
            "sums of rows along the columns",
            "keepdims",
            "p[n,c] = exp(logits[n,c]) / Σ_k exp(logits[c,k]): the sum of row c, because its axis was dropped",
            ("maxima and sums of rows along the columns", "maxima of rows along the columns"),
        ),
        M("exp forgotten", "softmax", "p[n,c] = logits[n,c] / Σ_k logits[n,k]"),
        M("exp not normalised", "softmax", "p[n,c] = exp(logits[n,c] − max), not divided by its sum"),
        M("logits instead of softmax", "softmax", "p[n,c] = logits[n,c]"),
        M("sigmoid", "softmax", "p[n,c] = 1 / (1 + exp(−logits[n,c]))"),
        M("log of the softmax", "softmax", "p[n,c] = log softmax(logits)[n,c]"),
        M(
            "maximum not subtracted",
            "overflow",
            "p[n,c] = exp(1000) / Σ exp(1000) = inf / inf = NaN",
            ("maximum not subtracted, with log",),
        ),
        M(
            "maximum of the whole batch subtracted",
            "overflow",
            "exp(logits − max of all rows) = 0 in a row: 0 / 0 = NaN",
            ("maximum of the whole batch subtracted, with log",),
        ),
        M("derivative of a quadratic loss", "derivative", "grad[n,c] = (p − [c = label]) · p · (1 − p) / N"),
        M("gradient of the probability", "derivative", "grad[n,c] = −∂p[n,label]/∂logits[n,c] / N, without the log"),
        M("loss instead of gradient", "derivative", "grad[n,label] = −log p[n,label] / N"),
    ),
    cases=entropy_cases,
    right={"grad_logits": "grad_logits[n,c] = (p[n,c] − [c = labels[n]]) / N"},
    hint="log p[n,label] = logits[n,label] − log Σ_k exp(logits[n,k]). Differentiate the two terms one at a time. "
    "Subtracting a row's maximum from its logits changes nothing in exact arithmetic.",
    why="The logarithm cancels the exponential of softmax, and what is left is probability minus one-hot "
    "label, divided by N for the mean. The gradient of each row sums to 0. It vanishes where the network is certain "
    "and right.",
    place="minires step resnet20 --at CrossEntropy --when backward --backend reference",
)

EXERCISES = (RELU, LINEAR, SKIP, ENTROPY)
