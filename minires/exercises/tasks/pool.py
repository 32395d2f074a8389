"""Backward of max pooling and of average pooling, also with ceil_mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minires.exercises.solutions import avg_pool2d_backward, avg_pool2d_backward_ceil, max_pool2d_backward, pair_of
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, draw, pair, times
from minires.exercises.tasks.conv2d import confused, mixed

M = Misconception

# N, C, H, W, kernel_size, stride, padding
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    *(
        (1, 1, 2, 2, 2, 2, 0),
        (1, 1, 3, 3, 2, 1, 0),
        (1, 1, 2, 2, 2, 2, 1),
        (1, 1, 3, 3, 3, 1, 1),
        (1, 1, 3, 3, 3, 2, 1),
    ),
    *(
        (1, 1, 3, 3, 1, 2, 0),
        (1, 1, 4, 4, 2, 2, 0),
        (1, 1, 4, 4, 2, 1, 0),
        (1, 1, 3, 4, 2, 2, 0),
        (2, 1, 2, 2, 2, 1, 0),
    ),
    *(
        (1, 2, 2, 2, 2, 1, 0),
        (1, 1, 5, 5, 3, 2, 0),
        (2, 3, 5, 4, 3, 2, 1),
        (2, 2, 7, 6, 2, 3, 0),
        (1, 2, 6, 7, 3, 1, 1),
    ),
    *(
        (2, 2, 4, 5, 2, 2, 1),
        (1, 1, 4, 4, (2, 3), 1, 0),
        (1, 1, 3, 4, 2, 1, (0, 1)),
        (1, 1, 5, 5, 2, (2, 1), 0),
        (1, 1, 4, 5, 3, 2, (1, 0)),
    ),
    *((2, 2, 7, 6, (3, 2), (2, 3), (1, 0)), (1, 2, 6, 6, (2, 3), (1, 2), (0, 1)), (1, 1, 6, 6, 4, 3, 2)),
)
CEILED: tuple[tuple[Any, ...], ...] = (
    *(
        (1, 1, 3, 3, 2, 2, 0),
        (1, 1, 4, 4, 3, 2, 0),
        (1, 1, 4, 5, 3, 2, 1),
        (1, 1, 4, 4, 2, 2, 0),
        (1, 2, 6, 5, 3, 3, 1),
    ),
    *((2, 2, 7, 6, 3, 2, 0), (2, 1, 6, 7, (3, 2), (2, 3), (1, 0)), (1, 1, 5, 5, 2, 3, 1), (1, 1, 6, 6, 4, 3, 1)),
)


def output_size(H: int, W: int, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> tuple[int, int]:
    """(OH, OW): with ceil_mode also windows that begin inside the image or its padding, but reach beyond."""
    sizes = []
    for n, k, s, p in zip((H, W), pair(kernel), pair(stride), pair(padding), strict=True):
        o = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        sizes.append(o - 1 if ceil_mode and (o - 1) * s >= n + p else o)
    return sizes[0], sizes[1]


def geometry(N: int, C: int, H: int, W: int, kernel: Any, stride: Any, padding: Any) -> tuple[str, frozenset[str]]:
    (kh, kw), (sh, sw), (ph, pw) = pair(kernel), pair(stride), pair(padding)
    features = {
        "there is padding": (ph, pw) != (0, 0),
        "windows overlap": sh < kh or sw < kw,
        "the stride is larger than 1": (sh, sw) != (1, 1),
        "stride and kernel size differ": (sh, sw) != (kh, kw),
        "there is more than one image": N > 1,
        "there is more than one channel": C > 1,
        "an argument is a pair": any(isinstance(a, tuple) for a in (kernel, stride, padding)),
    }
    text = f"x {times(N, C, H, W)}, kernel {kernel}, stride {stride}"
    return text + (f", padding {padding}" if (ph, pw) != (0, 0) else ""), frozenset(k for k, v in features.items() if v)


def max_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (N, C, H, W, kernel, stride, padding) in enumerate(GEOMETRIES):
        text, features = geometry(N, C, H, W, kernel, stride, padding)
        OH, OW = output_size(H, W, kernel, stride, padding, False)
        x = rng.permutation(np.arange(N * C * H * W) - N * C * H * W // 2).reshape(N, C, H, W).astype(float)
        kind = number % 3
        if kind == 1:  # windows in which the padding would win
            x -= x.max() + 1
            features |= {"all numbers of x are negative"}
        if kind == 2:
            x = rng.integers(0, 2, x.shape).astype(float)
            features |= {"windows have ties"}
        sizes = {"N": N, "C": C, "OH·OW": OH * OW, "N·OH·OW": N * OH * OW, "KH·KW": pair(kernel)[0] * pair(kernel)[1]}
        note = {0: "", 1: ", all negative", 2: ", with ties"}[kind]
        yield Case(text + note, (draw(rng, (N, C, OH, OW)), x, kernel, stride, padding), sizes, features)


def cropped(has: Any, padded: Array, H: int, W: int, ph: int, pw: int) -> Array:
    if has("padding not cropped"):
        return padded[:, :, : H + 2 * ph, : W + 2 * pw]
    if has("cropped at the wrong corner"):
        return padded[:, :, :H, :W]
    if has("cropped at the end"):
        return padded[:, :, 2 * ph : 2 * ph + H, 2 * pw : 2 * pw + W]
    if has("slice p:-p"):
        return padded[:, :, ph : H + 2 * ph, pw : W + 2 * pw][:, :, : -ph or 0, : -pw or 0]
    return padded[:, :, ph : ph + H, pw : pw + W]


def exchanged(has: Any, kernel_size: Any, stride: Any, padding: Any) -> tuple[Any, Any, Any]:
    kernel, step, pad = (
        mixed(has, name, value)
        for name, value in (("kernel size", kernel_size), ("stride", stride), ("padding", padding))
    )
    if has("stride ignored"):
        step = (1, 1)
    if has("stride taken as the kernel size"):
        step = kernel
    if has("padding ignored"):
        pad = (0, 0)
    return kernel, step, pad


def max_variant(
    bugs: Bugs, grad_output: Array, x: Array, kernel_size: Any, stride: Any, padding: Any
) -> tuple[Array, ...]:
    has = bugs.__contains__
    (KH, KW), (sh, sw), (ph, pw) = exchanged(has, kernel_size, stride, padding)
    if has("grad_output replaced by ones"):
        grad_output = np.ones_like(grad_output)
    N, C, H, W = x.shape
    OH, OW = grad_output.shape[2:]
    lowest = 0.0 if has("padded with zeros") else -np.inf
    bottom, right = max((OH - 1) * sh + KH - H, 2 * ph), max((OW - 1) * sw + KW - W, 2 * pw)  # room for exchanged pairs
    padded = np.pad(x, ((0, 0), (0, 0), (ph, bottom), (pw, right)), constant_values=lowest)
    grad_padded = np.zeros_like(padded)
    for i in range(OH):
        for j in range(OW):
            here = (slice(None), slice(None), slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW))
            window, grad = padded[here].reshape(N, C, KH * KW), grad_output[:, :, i, j, None]
            compared = window
            if has("minimum instead of maximum"):
                compared = -np.where(np.isinf(window), np.inf, window)
            if has("largest absolute value"):
                compared = np.where(np.isinf(window), -np.inf, abs(window))
            best = compared == compared.max(2, keepdims=True)
            first = np.arange(KH * KW) == best.argmax(2)[..., None]
            last = np.arange(KH * KW) == (KH * KW - 1 - best[..., ::-1].argmax(2))[..., None]
            by_column = best.reshape(N, C, KH, KW).swapaxes(2, 3).reshape(N, C, -1).argmax(2)
            share = first.astype(float)
            if has("all ties get the gradient"):
                share = best.astype(float)
            if has("the last tie gets the gradient"):
                share = last.astype(float)
            if has("the first tie in column order"):
                share = (np.arange(KH * KW) == (by_column % KH * KW + by_column // KH)[..., None]).astype(float)
            if has("ties share the gradient"):
                share = best / best.sum(2, keepdims=True)
            if has("gradient spread over the window"):
                share = np.full(window.shape, 1 / (KH * KW))
            if has("gradient given to the whole window"):
                share = np.ones(window.shape)
            if has("winner's index split by the height"):
                k = best.argmax(2)
                n, c = np.indices((N, C))
                np.add.at(grad_padded, (n, c, i * sh + k // KH, j * sw + k % KH), grad[..., 0])  # may be outside
                continue
            if has("winner's row and column exchanged") and KH == KW:
                k = best.argmax(2)
                share = (np.arange(KH * KW) == (k % KW * KW + k // KW)[..., None]).astype(float)
            if has("one winner for all channels"):
                share = np.broadcast_to(share[:, :1], share.shape)
            if has("one winner for all images"):
                share = np.broadcast_to(share[:1], share.shape)
            if has("gradient multiplied by the maximum"):
                grad = grad * window.max(2, keepdims=True)
            part = (share * grad).reshape(N, C, KH, KW)
            if has("overlaps overwritten"):
                grad_padded[here] = np.where(share.reshape(part.shape) != 0, part, grad_padded[here])
            elif has("whole window overwritten"):
                grad_padded[here] = part
            else:
                grad_padded[here] += part
    return (cropped(has, grad_padded, H, W, ph, pw),)


WINDOWS = (
    M("stride ignored", "stride", "the window of output (i, j) begins at row i, not at i·stride"),
    M("stride taken as the kernel size", "stride", "the window of output (i, j) begins at row i·KH, not at i·stride"),
    M(
        "padding ignored",
        "padding",
        "the window of output (i, j) begins at row i·stride of x, not at i·stride − padding",
    ),
    M("padding not cropped", "padding", "grad_x has H + 2·padding rows: it is the gradient of the padded x"),
    M(
        "cropped at the wrong corner",
        "padding",
        "grad_x[h,w] = grad_padded[h,w] instead of grad_padded[h+padding,w+padding]",
    ),
    M("cropped at the end", "padding", "grad_x[h,w] = grad_padded[h+2·padding,w+2·padding]"),
    M("slice p:-p", "slice to -0", "grad_x = grad_padded[:, :, p:-p, p:-p], which is empty for p = 0"),
    *confused("kernel size", "windows are sized", "kernel_size"),
    *confused("stride", "windows move"),
    *confused("padding", "x is padded"),
    M("grad_output replaced by ones", "cotangent", "the gradient of Σ y instead of that of Σ grad_output · y"),
    M("whole window overwritten", "overwritten", "grad_padded[window] = … instead of +=: the last window wins"),
)
SIZES = "kernel_size, stride and padding are each an int or an (h, w) pair."
MAX = Exercise(
    name="max_pool2d_backward",
    teaches="a gradient that goes to the winner alone; overlaps, ties and padding",
    section="4.1, Table 1",
    signature="grad_output, x, kernel_size, stride, padding",
    outputs=("grad_x",),
    text=f"""
        Gradient of max pooling.

        grad_output  (N, C, OH, OW)    gradient of the loss with respect to y
        x            (N, C, H, W)
        returns      grad_x (N, C, H, W)

        y[n, c, i, j] = maximum of x[n, c, i·stride − padding + p, j·stride − padding + q] over p < KH, q < KW

        Padding never wins. Of several equal maxima the first wins, in row order. {SIZES}
        """,
    helpers=(pair_of,),
    solution=max_pool2d_backward,
    variant=max_variant,
    misconceptions=(
        M("all ties get the gradient", "ties", "grad_x[h,w] = Σ grad_output · [x[h,w] = maximum of the window]"),
        M("the last tie gets the gradient", "ties", "the gradient goes to the last maximum in row order"),
        M("the first tie in column order", "ties", "the gradient goes to the first maximum in column order"),
        M("ties share the gradient", "ties", "grad_x[h,w] = Σ grad_output / (number of maxima)"),
        M(
            "overlaps overwritten",
            "overwritten",
            "grad_x[winner] = grad_output[i,j] instead of +=: the last window wins",
        ),
        M("padded with zeros", "padding competes", "y = max(x, 0) in windows at the border"),
        M("gradient spread over the window", "pooled differently", "grad_x = Σ grad_output / (KH·KW): average pooling"),
        M(
            "gradient given to the whole window",
            "pooled differently",
            "grad_x = Σ grad_output for every pixel of a window",
        ),
        M("minimum instead of maximum", "pooled differently", "the gradient goes to the minimum of the window"),
        M("largest absolute value", "pooled differently", "the gradient goes to the largest |x| of the window"),
        M("winner's index split by the height", "height and width", "row = index // KH, column = index % KH"),
        M("winner's row and column exchanged", "height and width", "row = index % KW, column = index // KW"),
        M(
            "one winner for all channels",
            "pooled differently",
            "the winner of channel 0 receives every channel's gradient",
        ),
        M("one winner for all images", "pooled differently", "the winner of image 0 receives every image's gradient"),
        M("gradient multiplied by the maximum", "derivative", "grad_x[winner] = Σ grad_output · maximum"),
        *WINDOWS,
    ),
    cases=max_cases,
    right={
        "grad_x": "grad_x[n,c,h,w] = Σ grad_output[n,c,i,j] over the windows (i, j) whose first maximum is at (h, w)"
    },
    hint="Pad x with −∞. For each window find the position of its maximum and add grad_output[n,c,i,j] there, with +=.",
    why="A small change of an element that is not the maximum leaves the output as it is, so only the "
    "winner receives the gradient. An element that wins in several overlapping windows collects the sum. The first of "
    "equal elements wins, so that the gradient of a window arrives exactly once.",
    place="minires step resnet18 --at maxpool --when backward --backend reference",
)

# -- average pooling


def average_cases(
    rng: np.random.Generator, geometries: tuple[tuple[Any, ...], ...] = GEOMETRIES, ceil: bool = False
) -> Iterator[Case]:
    for number, (N, C, H, W, kernel, stride, padding) in enumerate(geometries):
        for count in (True, False) if padding != 0 or ceil else (number % 2 == 0,):
            for ceil_mode in (True, False) if ceil and number % 3 == 0 else (ceil,):
                text, features = geometry(N, C, H, W, kernel, stride, padding)
                OH, OW = output_size(H, W, kernel, stride, padding, ceil_mode)
                if output_size(H, W, kernel, stride, padding, False) != (OH, OW):
                    features |= {"a window leaves the padded image"}
                if padding != 0:
                    features |= {f"count_include_pad is {count} and there is padding"}
                KH, KW = pair(kernel)
                sizes = {"N": N, "C": C, "OH·OW": OH * OW, "N·OH·OW": N * OH * OW, "KH·KW": KH * KW, "KH": KH, "KW": KW}
                last = (ceil_mode, count) if ceil else (count,)
                flags = [f"ceil_mode {ceil_mode}"] if ceil else []
                yield Case(
                    ", ".join([text, *flags, f"count_include_pad {count}"]),
                    (draw(rng, (N, C, OH, OW)), (N, C, H, W), kernel, stride, padding, *last),
                    sizes | {"H·W": H * W},
                    features,
                )


def average_variant(
    bugs: Bugs,
    grad_output: Array,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    *flags: bool,
) -> tuple[Array, ...]:
    whole = any(name.endswith(WHOLE) for name in bugs)
    has = frozenset(name.removesuffix(WHOLE) for name in bugs).__contains__
    count = flags[-1]
    (KH, KW), (sh, sw), (ph, pw) = exchanged(has, kernel_size, stride, padding)
    if has("grad_output replaced by ones"):
        grad_output = np.ones_like(grad_output)
    N, C, H, W = x_shape
    OH, OW = grad_output.shape[2:]
    if has("last windows left out"):
        OH, OW = output_size(H, W, kernel_size, stride, padding, False)
    if has("last row of windows left out"):
        OH -= 1
    if has("padding always counts"):
        count = True
    if has("padding never counts"):
        count = False
    if has("count_include_pad inverted"):
        count = not count
    bottom, right = max((OH - 1) * sh + KH - H, 2 * ph), max((OW - 1) * sw + KW - W, 2 * pw)
    grad_padded = np.zeros((N, C, ph + H + bottom, pw + W + right))
    inside = np.zeros((ph + H + bottom, pw + W + right))
    inside[: H + 2 * ph, : W + 2 * pw] = float(count)
    inside[ph : ph + H, pw : pw + W] = 1
    for i in range(OH):
        for j in range(OW):
            rows, columns = slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW)
            size = inside[rows, columns].sum() or 1.0
            if (whole or has("divided by the whole window")) and count:
                size = KH * KW
            for name, end in ENDS.items():
                if has(name) and count:
                    size = (min(i * sh - ph + KH, H + end * ph) - i * sh + ph) * (
                        min(j * sw - pw + KW, W + end * pw) - j * sw + pw
                    )
            if has("not divided"):
                size = 1.0
            if has("divided by the square of the height"):
                size = KH * KH
            if has("divided by the height") and (count or not whole):
                size = KH
            if has("divided by the number of outputs"):
                size = OH * OW
            if has("divided by the number of pixels"):
                size = H * W
            if has("divided twice"):
                size = size * size
            share = np.broadcast_to(grad_output[:, :, i, j, None, None] / size, (N, C, KH, KW))
            if has("only the first pixel of a window"):
                share = share.copy()
                share[:, :, 1:] = share[:, :, :, 1:] = 0
            if has("whole window overwritten"):
                grad_padded[:, :, rows, columns] = share
            else:
                grad_padded[:, :, rows, columns] += share
    return (cropped(has, grad_padded, H, W, ph, pw),)


WHOLE = ", whole windows counted"
ENDS = {"clipped at H + 2·padding of x": 2, "padding at the end not counted": 0}  # name: padding counted at the end
AVERAGE = (
    M("not divided", "divisor", "grad_x[h,w] = Σ grad_output[i,j]: sum pooling"),
    M(
        "padding always counts",
        "divisor",
        "grad_x[h,w] = Σ grad_output[i,j] / (KH·KW), also if count_include_pad is False",
    ),
    M(
        "padding never counts",
        "divisor",
        "grad_x[h,w] = Σ grad_output[i,j] / (pixels of x in the window), also if count_include_pad is True",
    ),
    M("count_include_pad inverted", "divisor", "the divisors of True and False are exchanged"),
    M("divided by the square of the height", "divisor", "grad_x[h,w] = Σ grad_output[i,j] / KH²"),
    M("divided by the height", "divisor", "grad_x[h,w] = Σ grad_output[i,j] / KH"),
    M("divided by the number of outputs", "divisor", "grad_x[h,w] = Σ grad_output[i,j] / (OH·OW)"),
    M("divided by the number of pixels", "divisor", "grad_x[h,w] = Σ grad_output[i,j] / (H·W)"),
    M("divided twice", "divisor", "grad_x[h,w] = Σ grad_output[i,j] / (window size)²"),
    M(
        "only the first pixel of a window",
        "pooled differently",
        "the gradient of a window goes to its first pixel alone",
    ),
    M("padding at the end not counted", "divisor", "size(i,j) counts the padding above and left of x alone"),
    M("last row of windows left out", "range too short", "i runs to OH − 2: the last row of windows gives nothing"),
    *WINDOWS,
)
COUNTED = ("divided by the height", "stride", "padding ignored", "kernel size", "padding exchanged", "padding of the")
AVERAGE = tuple(
    replace(one, also=(one.name + WHOLE,)) if one.name.startswith(COUNTED) else one for one in AVERAGE
)  # the size of a window can be counted or be KH·KW, which differs in misplaced windows
AVERAGE_RIGHT = {"grad_x": "grad_x[n,c,h,w] = Σ grad_output[n,c,i,j] / size(i,j) over the windows that contain (h, w)"}
AVERAGE_WHY = (
    "Each pixel of a window has the weight 1 / size, so it receives this share of grad_output. Pixels in several "
    "windows collect the sum. Padding receives a share too, which is cut off: it belongs to no pixel of x."
)
AVERAGE_TEXT = """
        Gradient of average pooling{title}.

        grad_output  (N, C, OH, OW)    gradient of the loss with respect to y
        x_shape      (N, C, H, W)
        returns      grad_x (N, C, H, W)

        y[n, c, i, j] = Σ_p,q x[n, c, i·stride − padding + p, j·stride − padding + q] / size(i, j)

        size(i, j) is the number of pixels in the window: with padding if count_include_pad, else of x alone.
        {more}{sizes}
        """
EXERCISES = (
    MAX,
    Exercise(
        name="avg_pool2d_backward",
        teaches="a gradient that is shared; whether the padding counts",
        section="3.4",
        signature="grad_output, x_shape, kernel_size, stride, padding, count_include_pad",
        outputs=("grad_x",),
        text=AVERAGE_TEXT.format(title="", more="", sizes=SIZES),
        helpers=(pair_of,),
        solution=avg_pool2d_backward,
        variant=average_variant,
        misconceptions=AVERAGE,
        cases=average_cases,
        right=AVERAGE_RIGHT,
        hint=(
            "Make an array of ones of x's size, pad it with ones or with zeros, and sum its windows: these are the "
            "divisors."
        ),
        why=AVERAGE_WHY,
        place="minires step resnet20 --at AdaptiveAvgPool2d --when backward --backend reference",
    ),
    Exercise(
        name="avg_pool2d_backward_ceil",
        teaches="ceil_mode: windows that leave the padded image",
        section="3.4",
        signature="grad_output, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad",
        outputs=("grad_x",),
        text=AVERAGE_TEXT.format(
            title=" with ceil_mode",
            more="If ceil_mode, the last windows may reach beyond the padded image.\n"
            "        What lies beyond never counts.\n        ",
            sizes=SIZES,
        ),
        helpers=(pair_of, avg_pool2d_backward),
        solution=avg_pool2d_backward_ceil,
        variant=average_variant,
        misconceptions=(
            M(
                "divided by the whole window",
                "divisor",
                "size(i,j) = KH·KW, also where the window leaves the padded image",
            ),
            M(
                "clipped at H + 2·padding of x",
                "divisor",
                "size(i,j) counts rows of x up to H + 2·padding; the padded image ends at row H + padding of x",
            ),
            M("last windows left out", "leftover", "the windows that ceil_mode adds receive no share"),
            *AVERAGE,
        ),
        cases=lambda rng: average_cases(rng, CEILED, ceil=True),
        right=AVERAGE_RIGHT,
        hint=(
            "The shape of grad_output contains the added windows already. Clip each window to the padded image before "
            "counting."
        ),
        why=AVERAGE_WHY + " Beyond the padded image there is nothing to share with, so the divisor shrinks.",
        place="minires step resnet20 --at AdaptiveAvgPool2d --when backward --backend reference",
    ),
)
