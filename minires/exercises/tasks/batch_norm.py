"""Batch norm in training: forward with running statistics, and backward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.exercises.solutions import batch_norm_backward, batch_norm_forward
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, times

M = Misconception
SHAPES = (
    (2, 1, 1, 1),
    (1, 1, 1, 2),
    (2, 1, 1, 2),
    (1, 2, 2, 2),
    (3, 2, 1, 1),
    (2, 3, 2, 2),
    (2, 2, 3, 4),
    (4, 3, 3, 2),
)


def inputs(
    rng: np.random.Generator,
) -> Iterator[tuple[Array, Array, Array, Array, float, str, dict[str, float], frozenset[str]]]:
    """x, grad_output, weight, bias, eps, geometry, sizes, features"""
    for number, (N, C, H, W) in enumerate(SHAPES):
        x = np.round(2 * rng.standard_normal((N, C, H, W)) + rng.integers(-2, 3, (1, C, 1, 1)), 1)
        x[0, :, 0, 0] += 1.5  # no channel is constant
        grad_output = np.round(rng.standard_normal(x.shape), 1) + 0.05
        weight, bias = rng.choice((-1.5, 0.5, 2.0, 3.0), C), rng.choice((-2.0, 1.0, 0.5), C)
        if number == 5:
            x, grad_output = np.asfortranarray(x), np.asfortranarray(grad_output)
        eps = (1e-5, 0.1, 0.5)[number % 3]
        sizes = {"N": N, "C": C, "M": N * H * W, "H·W": H * W, "M − 1": N * H * W - 1, "M²": float(N * H * W) ** 2}
        features = {
            "there is more than one image": N > 1,
            "images have more than one pixel": H * W > 1,
            "there is more than one channel": C > 1,
            "eps is large": eps > 0.01,
        }
        holding = frozenset(name for name, holds in features.items() if holds)
        yield x, grad_output, weight, bias, eps, f"x {times(N, C, H, W)}, eps {eps:g}", sizes, holding


def forward_cases(rng: np.random.Generator) -> Iterator[Case]:
    for x, _, weight, bias, eps, text, sizes, features in inputs(rng):
        C, momentum = x.shape[1], float(rng.choice((0.1, 0.3)))
        running_mean, running_var = np.round(rng.standard_normal(C), 1), rng.choice((0.5, 2.0, 3.0), C)
        arguments = (x, weight, bias, running_mean, running_var, momentum, eps)
        yield Case(f"{text}, momentum {momentum}", arguments, sizes, features)


def backward_cases(rng: np.random.Generator) -> Iterator[Case]:
    for x, grad_output, weight, _, eps, text, sizes, features in inputs(rng):
        yield Case(text, (grad_output, x, weight, eps), sizes, features)


# -- the misconceptions


def statistics_axes(bugs: Bugs) -> tuple[int, ...]:
    has = bugs.__contains__
    if has("statistics over the batch only"):
        return (0,)
    if has("statistics of each image"):
        return (2, 3)
    if has("statistics over the channels"):
        return (1, 2, 3)
    return (0, 1, 2, 3) if has("statistics of everything") else (0, 2, 3)


def forward_variant(
    bugs: Bugs,
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    momentum: float,
    eps: float,
) -> tuple[Array, ...]:
    has = bugs.__contains__
    count = x.size // x.shape[1]
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    axes = statistics_axes(bugs)
    used_mean, used_var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    if has("running statistics normalise"):
        used_mean, used_var = running_mean[:, None, None], running_var[:, None, None]
    if has("moved running statistics normalise"):
        used_mean = ((1 - momentum) * running_mean + momentum * mean)[:, None, None]
        used_var = ((1 - momentum) * running_var + momentum * var * count / (count - 1))[:, None, None]
    if has("normalised with the unbiased variance"):
        used_var = used_var * count / (count - 1)
    if has("variance without the mean"):
        used_var = (x**2).mean(axes, keepdims=True)
    if has("mean absolute deviation"):
        used_var = abs(x - used_mean).mean(axes, keepdims=True) ** 2
    root = np.sqrt(used_var + eps)
    if has("eps forgotten"):
        root = np.sqrt(used_var)
    if has("eps outside the root"):
        root = np.sqrt(used_var) + eps
    if has("eps squared"):
        root = np.sqrt(used_var + eps**2)
    if has("eps 1e-5 in place of the argument"):
        root = np.sqrt(used_var + 1e-5)
    if has("divided by the variance"):
        root = used_var + eps
    y = (x if has("mean not subtracted") else x - used_mean) / root
    w, b = weight[:, None, None], bias[:, None, None]
    if has("mean divided before it is subtracted"):
        y = x - used_mean / root
    if has("multiplied by the deviation"):
        y = y * root**2
    if has("weight and bias exchanged"):
        w, b = b, w
    if has("weight forgotten"):
        w = np.ones_like(w)
    if has("bias forgotten"):
        b = np.zeros_like(b)
    y = (y + b) * w if has("bias added before the weight") else y * w + b
    if has("momentum 0.1 in place of the argument"):
        momentum = 0.1
    move = 1 - momentum if has("momentum is the share of the old value") else momentum
    keep = 1.0 if has("old value not reduced") else 1 - move
    batch_var = var * count / (count - 1)
    if has("biased running variance"):
        batch_var = var
    if has("corrected twice"):
        batch_var = batch_var * count / (count - 1)
    if has("correction inverted"):
        batch_var = var * (count - 1) / count
    if has("corrected by N instead of M"):
        batch_var = var * len(x) / max(len(x) - 1, 1)
    if has("running deviation instead of variance"):
        batch_var = np.sqrt(batch_var)
    if has("running deviation, biased"):
        batch_var = np.sqrt(var)
    if has("eps in the running variance"):
        batch_var = batch_var + eps
    if has("mean and variance exchanged"):
        mean, batch_var = batch_var, mean
    new_mean, new_var = keep * running_mean + move * mean, keep * running_var + move * batch_var
    if has("running statistics not moved"):
        new_mean, new_var = running_mean, running_var
    if has("running variance not moved"):
        new_var = running_var
    if has("running mean not moved"):
        new_mean = running_mean
    if has("batch statistics returned"):
        new_mean, new_var = mean, batch_var
    if has("running deviation moved"):
        new_var = (keep * np.sqrt(running_var) + move * np.sqrt(batch_var)) ** 2
    return y, new_mean, new_var


def backward_variant(bugs: Bugs, grad_output: Array, x: Array, weight: Array, eps: float) -> tuple[Array, ...]:
    has = bugs.__contains__
    g = np.ones_like(grad_output) if has("grad_output replaced by ones") else grad_output
    axes = statistics_axes(bugs)
    N = len(x)
    count = float(x.size // np.prod([n for axis, n in enumerate(x.shape) if axis not in axes] or [1]))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    if has("unbiased variance"):
        var = var * count / (count - 1)
    if has("variance without the mean"):
        var = (x**2).mean(axes, keepdims=True)
    inv_std = 1 / np.sqrt(var + eps)
    if has("eps forgotten"):
        inv_std = 1 / np.sqrt(var)
    if has("eps outside the root"):
        inv_std = 1 / (np.sqrt(var) + eps)
    if has("divided by the variance"):
        inv_std = 1 / (var + eps)
    centred = x - mean
    hat = centred * inv_std
    terms = count
    if has("divided by M − 1"):
        terms = count - 1
    if has("divided by N instead of M"):
        terms = float(N)
    if has("divided by N·H instead of M"):
        terms = float(N * x.shape[2])
    if has("divided by all of x instead of M"):
        terms = float(x.size)
    if has("divided by H·W instead of M"):
        terms = float(x[0, 0].size)
    if has("sums not divided by M"):
        terms = 1.0
    dhat = g if has("weight forgotten") else g * weight[:, None, None]
    mean_term = dhat.sum(axes, keepdims=True) / terms
    spread = dhat * hat
    if has("x instead of x̂ in the variance term"):
        spread = dhat * x
    if has("centred x instead of x̂ in the variance term"):
        spread = dhat * centred
    var_term = hat * spread.sum(axes, keepdims=True) / terms
    if has("variance term with 1/std²"):
        var_term = var_term / inv_std**2
    if has("variance term with 1/std⁴"):
        var_term = var_term * inv_std
    if has("sum of the variance term without x̂"):
        var_term = hat * dhat.sum(axes, keepdims=True) / terms
    if has("x̂ outside of the variance term forgotten"):
        var_term = spread.sum(axes, keepdims=True) / terms
    if has("factor 2 of the square forgotten"):
        var_term = var_term / 2
    if has("factor ½ of the root forgotten"):
        var_term = var_term * 2
    if has("mean term not divided by M"):
        mean_term = mean_term * terms
    if has("variance term not divided by M"):
        var_term = var_term * terms
    if has("sign of the variance term"):
        var_term = -var_term
    if has("sign of the mean term"):
        mean_term = -mean_term
    if has("mean term forgotten") or has("both terms forgotten"):
        mean_term = 0 * mean_term
    if has("variance term forgotten") or has("both terms forgotten"):
        var_term = 0 * var_term
    grad_x = dhat - mean_term - var_term
    if not has("not divided by the deviation"):
        grad_x = grad_x * inv_std
    if has("weight used twice"):
        grad_x = grad_x * weight[:, None, None]
    channels: tuple[int, ...] = (0, 2, 3)
    if has("summed over the batch only"):
        channels = (0,)
    if has("summed over the pixels only"):
        channels = (2, 3)
    factor = hat
    if has("x instead of x̂ in grad_weight"):
        factor = x
    if has("centred x instead of x̂ in grad_weight"):
        factor = centred
    if has("weight in grad_weight"):
        factor = hat * weight[:, None, None]
    grad_weight = (g * factor).sum(channels)
    if has("sums before the product"):
        grad_weight = g.sum((0, 2, 3)) * hat.sum((0, 2, 3))
    grad_bias = (g * weight[:, None, None] if has("weight in grad_bias") else g).sum(channels)
    if has("only the last image in the sums"):
        grad_weight, grad_bias = (g * hat)[-1:].sum((0, 2, 3)), g[-1:].sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias


AXES = (
    M(
        "statistics over the batch only",
        "axes of the statistics",
        "mean and var over N alone, one per channel and pixel",
    ),
    M("statistics of each image", "axes of the statistics", "mean and var over H and W alone: instance norm"),
    M("statistics over the channels", "axes of the statistics", "mean and var over C, H and W: layer norm"),
    M("statistics of everything", "axes of the statistics", "one mean and one var for the whole array"),
)
ROOT = (
    M("eps forgotten", "eps", "x̂ = (x − mean) / √var"),
    M("eps outside the root", "eps", "x̂ = (x − mean) / (√var + eps)"),
    M("divided by the variance", "std and variance", "x̂ = (x − mean) / (var + eps)"),
    M("variance without the mean", "std and variance", "var = mean of x², not of (x − mean)²"),
)
GX = "grad_x = weight/std · "
SCOPE = "M = N·H·W is the number of elements of a channel. All statistics are per channel."
EXERCISES = (
    Exercise(
        name="batch_norm_forward",
        teaches="batch statistics normalise, running statistics are kept for evaluation",
        section="3.4",
        signature="x, weight, bias, running_mean, running_var, momentum, eps",
        outputs=("y", "running_mean", "running_var"),
        text=f"""
            Batch norm in training.

            x                          (N, C, H, W)
            weight, bias               (C,)    γ and β
            running_mean, running_var  (C,)    before this batch
            returns                    y (N, C, H, W), running_mean (C,), running_var (C,) after this batch

            mean = Σ x / M        var = Σ (x − mean)² / M
            y = weight · (x − mean) / √(var + eps) + bias

            running ← (1 − momentum) · running + momentum · batch
            As in PyTorch, running_var moves towards Σ (x − mean)² / (M − 1).
            {SCOPE}
            """,
        solution=batch_norm_forward,
        variant=forward_variant,
        misconceptions=(
            M(
                "normalised with the unbiased variance",
                "biased and unbiased",
                "x̂ = (x − mean) / √(var · M/(M − 1) + eps)",
            ),
            M("biased running variance", "biased and unbiased", "running_var moves towards Σ (x − mean)² / M"),
            M("corrected twice", "biased and unbiased", "running_var moves towards var · (M/(M − 1))²"),
            M("correction inverted", "biased and unbiased", "running_var moves towards var · (M − 1)/M"),
            M("corrected by N instead of M", "biased and unbiased", "running_var moves towards var · N/(N − 1)"),
            *ROOT,
            M("eps squared", "eps", "x̂ = (x − mean) / √(var + eps²)"),
            M("eps 1e-5 in place of the argument", "eps", "x̂ = (x − mean) / √(var + 0.00001), whatever eps is"),
            M(
                "momentum 0.1 in place of the argument",
                "momentum of statistics",
                "running ← 0.9 · running + 0.1 · batch, whatever momentum is",
            ),
            M("mean absolute deviation", "std and variance", "x̂ = (x − mean) / √((mean of |x − mean|)² + eps)"),
            M("multiplied by the deviation", "std and variance", "x̂ = (x − mean) · √(var + eps)"),
            M("running deviation instead of variance", "std and variance", "running_var moves towards √var (unbiased)"),
            M("running deviation, biased", "std and variance", "running_var moves towards √var"),
            M("running deviation moved", "std and variance", "√running_var moves towards √var, then is squared"),
            M("eps in the running variance", "eps", "running_var moves towards var + eps"),
            *AXES,
            M("running statistics normalise", "wrong statistics", "x̂ = (x − running_mean) / √(running_var + eps)"),
            M(
                "moved running statistics normalise",
                "wrong statistics",
                "x̂ uses the running statistics after this batch",
            ),
            M("batch statistics returned", "wrong statistics", "running_mean = mean, running_var = var"),
            M("mean not subtracted", "normalised", "y = weight · x / √(var + eps) + bias"),
            M("mean divided before it is subtracted", "normalised", "y = weight · (x − mean / √(var + eps)) + bias"),
            M("weight and bias exchanged", "affine", "y = bias · x̂ + weight"),
            M("weight forgotten", "affine", "y = x̂ + bias"),
            M("bias forgotten", "affine", "y = weight · x̂"),
            M("bias added before the weight", "affine", "y = weight · (x̂ + bias)"),
            M(
                "momentum is the share of the old value",
                "momentum of statistics",
                "running ← momentum · running + (1 − momentum) · batch",
            ),
            M("old value not reduced", "momentum of statistics", "running ← running + momentum · batch"),
            M(
                "running statistics not moved",
                "momentum of statistics",
                "running_mean and running_var are returned as they came",
            ),
            M("running mean not moved", "momentum of statistics", "running_mean is returned as it came"),
            M("running variance not moved", "momentum of statistics", "running_var is returned as it came"),
            M(
                "mean and variance exchanged",
                "momentum of statistics",
                "running_mean moves towards var, running_var towards mean",
            ),
        ),
        cases=forward_cases,
        right={
            "y": "y = weight · (x − mean) / √(var + eps) + bias, with var = Σ (x − mean)² / M",
            "running_mean": "running_mean ← (1 − momentum) · running_mean + momentum · mean",
            "running_var": "running_var ← (1 − momentum) · running_var + momentum · var · M/(M − 1)",
        },
        hint="Sum over axes 0, 2 and 3. There are two variances: np.var divides by M, and M / (M − 1) corrects it.",
        why="In training each channel is normalised by its own batch, so the biased variance of this "
        "batch is the right one: y then has exactly weight² · var/(var + eps) as variance. Evaluation needs the "
        "variance of all data, which the unbiased estimate approximates better.",
        place="minires step resnet20 --at layer1.0.bn1 --backend reference",
    ),
    Exercise(
        name="batch_norm_backward",
        teaches="gradients through a mean and through a variance",
        section="3.4",
        signature="grad_output, x, weight, eps",
        outputs=("grad_x", "grad_weight", "grad_bias"),
        text=f"""
            Gradients of batch norm in training.

            grad_output  (N, C, H, W)    gradient of the loss with respect to y
            x            (N, C, H, W)
            weight       (C,)    γ
            returns      grad_x (N, C, H, W), grad_weight (C,), grad_bias (C,)

            mean = Σ x / M        var = Σ (x − mean)² / M
            y = weight · (x − mean) / √(var + eps) + bias

            {SCOPE} mean and var depend on x.
            """,
        solution=batch_norm_backward,
        variant=backward_variant,
        misconceptions=(
            M("mean term forgotten", "through the mean", f"{GX}(g − x̂ · mean(g·x̂))"),
            M("variance term forgotten", "through the variance", f"{GX}(g − mean(g))"),
            M(
                "both terms forgotten",
                "through the mean",
                f"{GX}g: mean and variance as constants, right in evaluation only",
            ),
            M("sign of the mean term", "through the mean", f"{GX}(g + mean(g) − x̂ · mean(g·x̂))"),
            M("sign of the variance term", "through the variance", f"{GX}(g − mean(g) + x̂ · mean(g·x̂))"),
            M("factor 2 of the square forgotten", "through the variance", f"{GX}(g − mean(g) − x̂ · mean(g·x̂) / 2)"),
            M("factor ½ of the root forgotten", "through the variance", f"{GX}(g − mean(g) − 2 · x̂ · mean(g·x̂))"),
            M(
                "variance term with 1/std²",
                "through the variance",
                f"{GX}(g − mean(g) − (x − mean) · mean(g·(x − mean)))",
            ),
            M("variance term with 1/std⁴", "through the variance", f"{GX}(g − mean(g) − x̂/std · mean(g·x̂))"),
            M("sum of the variance term without x̂", "through the variance", f"{GX}(g − mean(g) − x̂ · mean(g))"),
            M("x̂ outside of the variance term forgotten", "through the variance", f"{GX}(g − mean(g) − mean(g·x̂))"),
            M("x instead of x̂ in the variance term", "normalised", f"{GX}(g − mean(g) − x̂ · mean(g·x))"),
            M(
                "centred x instead of x̂ in the variance term",
                "normalised",
                f"{GX}(g − mean(g) − x̂ · mean(g·(x − mean)))",
            ),
            M("mean term not divided by M", "through the mean", f"{GX}(g − Σ g − x̂ · mean(g·x̂))"),
            M("variance term not divided by M", "through the variance", f"{GX}(g − mean(g) − x̂ · Σ g·x̂)"),
            M("sums not divided by M", "sum for mean", f"{GX}(g − Σ g − x̂ · Σ g·x̂)"),
            M("divided by M − 1", "biased and unbiased", f"{GX}(g − Σ g / (M − 1) − x̂ · Σ g·x̂ / (M − 1))"),
            M("divided by N instead of M", "mean for sum", f"{GX}(g − Σ g / N − x̂ · Σ g·x̂ / N)"),
            M("divided by N·H instead of M", "mean for sum", f"{GX}(g − Σ g / (N·H) − x̂ · Σ g·x̂ / (N·H))"),
            M("divided by all of x instead of M", "mean for sum", f"{GX}(g − Σ g / (C·M) − x̂ · Σ g·x̂ / (C·M))"),
            M("divided by H·W instead of M", "mean for sum", f"{GX}(g − Σ g / (H·W) − x̂ · Σ g·x̂ / (H·W))"),
            M("unbiased variance", "biased and unbiased", "std = √(var · M/(M − 1) + eps)"),
            *ROOT,
            *AXES,
            M("weight forgotten", "affine", "grad_x = 1/std · (g − mean(g) − x̂ · mean(g·x̂))"),
            M("weight used twice", "affine", "grad_x = weight²/std · (g − mean(g) − x̂ · mean(g·x̂))"),
            M("not divided by the deviation", "std and variance", "grad_x = weight · (g − mean(g) − x̂ · mean(g·x̂))"),
            M("x instead of x̂ in grad_weight", "normalised", "grad_weight = Σ g · x"),
            M("centred x instead of x̂ in grad_weight", "normalised", "grad_weight = Σ g · (x − mean)"),
            M("weight in grad_weight", "affine", "grad_weight = Σ g · weight · x̂"),
            M("sums before the product", "sum before product", "grad_weight = (Σ g) · (Σ x̂) = 0"),
            M("weight in grad_bias", "affine", "grad_bias = Σ g · weight"),
            M("summed over the batch only", "reduction", "grad_bias[c,h,w] = Σ_n g[n,c,h,w]"),
            M("summed over the pixels only", "reduction", "grad_bias[n,c] = Σ_h,w g[n,c,h,w]"),
            M("only the last image in the sums", "overwritten", "grad_bias = Σ_h,w g[N−1]"),
            M("grad_output replaced by ones", "cotangent", "the gradient of Σ y, which is 0 for x"),
        ),
        cases=backward_cases,
        right={
            "grad_x": f"{GX}(g − mean(g) − x̂ · mean(g·x̂)), with g = grad_output",
            "grad_weight": "grad_weight = Σ_n,h,w grad_output · x̂",
            "grad_bias": "grad_bias = Σ_n,h,w grad_output",
        },
        hint="Write x̂ = (x − mean) / std. x reaches the loss on three paths: directly, through mean, and through var. "
        "Differentiate each path, then add. Check: Σ grad_x of a channel is 0.",
        why="Adding a constant to a channel does not change y, so the gradient has no component along the constant: "
        "subtracting mean(g) removes it. Scaling a channel hardly changes y either, and subtracting x̂ · mean(g·x̂) "
        "removes that component. What is left is scaled by weight / std.",
        place="minires step resnet20 --at layer1.0.bn1 --when backward --backend reference",
    ),
)
