"""im2col and col2im: convolution as a matrix product, and its adjoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.exercises.solutions import col2im, im2col, pair_of
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, draw, pair, times
from minires.exercises.tasks.conv2d import confused
from minires.exercises.tasks.pool import cropped, exchanged

M = Misconception
# N, C, H, W, kernel_size, stride, padding
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    *(
        (1, 1, 2, 2, 2, 1, 0),
        (1, 1, 3, 3, 2, 1, 0),
        (1, 1, 3, 3, 1, 2, 0),
        (1, 1, 2, 2, 2, 1, 1),
        (1, 1, 3, 3, 3, 2, 1),
    ),
    *(
        (1, 1, 4, 4, 2, 2, 0),
        (1, 1, 4, 4, 3, 2, 0),
        (2, 1, 2, 2, 1, 1, 0),
        (1, 2, 3, 3, 2, 1, 0),
        (2, 2, 3, 4, 2, 1, 0),
    ),
    *(
        (2, 3, 5, 4, 3, 2, 1),
        (2, 2, 7, 6, 2, 3, 0),
        (1, 2, 4, 5, (2, 3), 1, 0),
        (1, 1, 3, 4, 2, 1, (0, 1)),
        (1, 1, 5, 5, 2, (2, 1), 0),
    ),
    *((1, 1, 4, 4, 3, 1, (1, 0)), (2, 3, 6, 7, (3, 2), (2, 3), (2, 1))),
)


def cases(rng: np.random.Generator, back: bool = False) -> Iterator[Case]:
    for number, (N, C, H, W, kernel, stride, padding) in enumerate(GEOMETRIES):
        (KH, KW), (sh, sw), (ph, pw) = pair(kernel), pair(stride), pair(padding)
        OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
        features = {
            "there is padding": (ph, pw) != (0, 0),
            "the stride is larger than 1": (sh, sw) != (1, 1),
            "windows overlap": sh < KH or sw < KW,
            "there is more than one image": N > 1,
            "there is more than one channel": C > 1,
            "an argument is a pair": any(isinstance(a, tuple) for a in (kernel, stride, padding)),
        }
        array = draw(rng, (N * OH * OW, C * KH * KW) if back else (N, C, H, W))
        if number % 4 == 1:
            array = np.asfortranarray(array)
        arguments = (array, (N, C, H, W), kernel, stride, padding) if back else (array, kernel, stride, padding)
        text = f"x {times(N, C, H, W)}, kernel {kernel}, stride {stride}, padding {padding}"
        sizes = {"N": N, "KH·KW": KH * KW, "OH·OW": OH * OW}
        yield Case(text, arguments, sizes, frozenset(name for name, holds in features.items() if holds))


ORDERS = {  # name: the order of the axes N, OH, OW and of C, KH, KW
    "taps before channels": ((0, 1, 2), (1, 2, 0)),
    "columns of the filter before rows": ((0, 1, 2), (0, 2, 1)),
    "taps before channels, in column order": ((0, 1, 2), (2, 1, 0)),
    "pixels before images": ((1, 2, 0), (0, 1, 2)),
    "pixels in column order": ((0, 2, 1), (0, 1, 2)),
}


def order(bugs: Bugs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows: tuple[int, ...] = (0, 1, 2)
    columns: tuple[int, ...] = (0, 1, 2)
    for name, (of_rows, of_columns) in ORDERS.items():
        if name in bugs:
            rows = rows if of_rows == (0, 1, 2) else of_rows
            columns = columns if of_columns == (0, 1, 2) else of_columns
    return rows, columns


def im2col_variant(bugs: Bugs, x: Array, kernel_size: Any, stride: Any, padding: Any) -> tuple[Array, ...]:
    has = bugs.__contains__
    (KH, KW), (sh, sw), (ph, pw) = exchanged(has, kernel_size, stride, padding)
    N, C, H, W = x.shape
    edges = ((0, 0), (0, 0), (ph, ph), (pw, pw))
    if has("padded at the end only"):
        edges = ((0, 0), (0, 0), (0, 2 * ph), (0, 2 * pw))
    padded = np.pad(x, edges, "edge") if has("padded with the border") else np.pad(x, edges)
    OH, OW = max((H + 2 * ph - KH) // sh + 1, 0), max((W + 2 * pw - KW) // sw + 1, 0)
    if has("stride ignored in the window"):
        sh = sw = 1
    columns = np.zeros((N, OH, OW, C, KH, KW))
    for i in range(OH):
        for j in range(OW):
            columns[:, i, j] = padded[:, :, i * sh : i * sh + KH, j * sw : j * sw + KW]
    if has("window flipped"):
        columns = columns[..., ::-1, ::-1]
    if has("reshaped without exchanging axes"):
        columns = columns.transpose(0, 3, 1, 2, 4, 5)
        return (columns.reshape(N * OH * OW, C * KH * KW),)
    by_row, by_column = order(bugs)
    columns = columns.transpose(*by_row, *(3 + axis for axis in by_column))
    return (columns.reshape(N * OH * OW, C * KH * KW),)


def col2im_variant(
    bugs: Bugs, columns: Array, x_shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any
) -> tuple[Array, ...]:
    has = bugs.__contains__
    (KH, KW), (sh, sw), (ph, pw) = pair(kernel_size), pair(stride), pair(padding)
    N, C, H, W = x_shape
    OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
    by_row, by_column = order(bugs)
    sizes = [(N, OH, OW)[axis] for axis in by_row] + [(C, KH, KW)[axis] for axis in by_column]
    axes = [*np.argsort(by_row), *(3 + np.argsort(by_column))]
    windows = columns.reshape(sizes).transpose(axes)
    if has("reshaped without exchanging axes"):
        windows = columns.reshape(N, C, OH, OW, KH, KW).transpose(0, 2, 3, 1, 4, 5)
    if has("reshaped without exchanging axes, taps first"):
        windows = columns.reshape(N, C, KH, KW, OH, OW).transpose(0, 4, 5, 1, 2, 3)
    if has("window flipped"):
        windows = windows[..., ::-1, ::-1]
    (KH, KW), (sh, sw), (ph, pw) = exchanged(has, (KH, KW), stride, padding)
    windows = (
        windows.reshape(N, OH, OW, C, KH, KW)
        if windows.shape[4:] != (KH, KW) and windows[0, 0, 0, 0].size == KH * KW
        else windows
    )
    height, width = max(H + 2 * ph, (OH - 1) * sh + KH), max(W + 2 * pw, (OW - 1) * sw + KW)
    padded, count = np.zeros((N, C, height, width)), np.zeros((height, width))
    steps = [(i, j) for i in range(OH) for j in range(OW)]
    for i, j in steps:
        rows, cols = slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW)
        count[rows, cols] += 1
        if has("whole window overwritten"):
            padded[:, :, rows, cols] = windows[:, i, j]
        else:
            padded[:, :, rows, cols] += windows[:, i, j]
    if has("overlaps overwritten by the last tap"):
        padded[:] = 0
        for p in range(KH):
            for q in range(KW):
                padded[:, :, p : p + OH * sh : sh, q : q + OW * sw : sw][:, :, :OH, :OW] = windows[..., p, q].transpose(
                    0, 3, 1, 2
                )
    if has("overlaps averaged"):
        padded = padded / np.maximum(count, 1)
    if has("rows that no window reaches cut off"):
        return (padded[:, :, ph : min(ph + H, (OH - 1) * sh + KH), pw : min(pw + W, (OW - 1) * sw + KW)],)
    return (cropped(has, padded, H, W, ph, pw),)


COLUMN_ORDERS = (
    M("taps before channels", "order of columns", "column = (p·KW + q)·C + c instead of (c·KH + p)·KW + q"),
    M(
        "columns of the filter before rows",
        "order of columns",
        "column = (c·KW + q)·KH + p instead of (c·KH + p)·KW + q",
    ),
    M(
        "taps before channels, in column order",
        "order of columns",
        "column = (q·KH + p)·C + c instead of (c·KH + p)·KW + q",
    ),
    M("pixels before images", "order of columns", "row = (i·OW + j)·N + n instead of (n·OH + i)·OW + j"),
    M("pixels in column order", "order of columns", "row = (n·OW + j)·OH + i instead of (n·OH + i)·OW + j"),
)
GEOMETRIC = (
    *confused("kernel size", "windows are sized", "kernel_size"),
    *confused("stride", "windows move"),
    *confused("padding", "x is padded"),
    M("stride ignored", "stride", "windows begin at every row and column"),
    M("stride taken as the kernel size", "stride", "the window of output (i, j) begins at row i·KH"),
    M(
        "padding ignored",
        "padding",
        "the window of output (i, j) begins at row i·stride of x, not at i·stride − padding",
    ),
    M("window flipped", "flip", "column (c, p, q) holds tap (KH−1−p, KW−1−q)"),
)
# In col2im a window has as many numbers as the columns, and ignored padding is the wrong corner.
NOT_HERE = ("padding ignored", "kernel size of the height for both axes", "kernel size of the width for both axes")
LAYOUT = """row     (n·OH + i)·OW + j    for output pixel (i, j) of image n
        column  (c·KH + p)·KW + q    for tap (p, q) of channel c"""
SIZES = "kernel_size, stride and padding are each an int or an (h, w) pair."
EXERCISES = (
    Exercise(
        name="im2col",
        teaches="convolution as one matrix product",
        section="3.4",
        signature="x, kernel_size, stride, padding",
        outputs=("columns",),
        text=f"""
        The windows of a convolution as rows of a matrix.

        x        (N, C, H, W)
        returns  columns (N·OH·OW, C·KH·KW)    OH = (H + 2·padding − KH) // stride + 1, OW likewise

        {LAYOUT}
        value   x[n, c, i·stride + p − padding, j·stride + q − padding], and 0 outside of the image

        With it, conv2d(x, w) is columns @ w.reshape(O, -1).T.
        {SIZES}
        """,
        helpers=(pair_of,),
        solution=im2col,
        variant=im2col_variant,
        misconceptions=(
            *COLUMN_ORDERS,
            *GEOMETRIC,
            M("reshaped without exchanging axes", "reshaped", "columns = windows (N, C, OH, OW, KH, KW), reshaped"),
            M(
                "stride ignored in the window",
                "stride",
                "the window of output (i, j) begins at row i, in the right shape",
            ),
            M("padded at the end only", "padding", "value = x[n,c,i·stride+p,j·stride+q], without − padding"),
            M("padded with the border", "padding", "x[n,c,−1,w] = x[n,c,0,w] instead of 0"),
        ),
        cases=cases,
        right={"columns": "columns[(n·OH + i)·OW + j, (c·KH + p)·KW + q] = x[n,c,i·s+p−padding,j·s+q−padding]"},
        hint=(
            "Fill an array of shape (N, OH, OW, C, KH, KW), one window at a time. One reshape at the end gives the "
            "matrix."
        ),
        why="A convolution takes the product of every window with every filter. With a window a row and "
        "a filter a column this is one matrix product, the operation that processors compute fastest. The price is "
        "memory: each pixel is copied once per window that contains it.",
        place="minires step resnet20 --at layer2.0.conv1 --backend reference",
    ),
    Exercise(
        name="col2im",
        teaches="the adjoint of im2col: overlapping windows are added",
        section="3.4",
        signature="columns, x_shape, kernel_size, stride, padding",
        outputs=("x",),
        text=f"""
        Adds the rows of a matrix, each a window, into an image batch: the gradient of im2col.

        columns  (N·OH·OW, C·KH·KW)    OH = (H + 2·padding − KH) // stride + 1, OW likewise
        x_shape  (N, C, H, W)
        returns  x (N, C, H, W)

        {LAYOUT}

        x[n, c, h, w] = Σ of the values whose pixel is (h, w): i·stride + p − padding = h, j·stride + q − padding = w.
        Values in the padding are dropped. {SIZES}
        """,
        helpers=(pair_of,),
        solution=col2im,
        variant=col2im_variant,
        misconceptions=(
            M("whole window overwritten", "overwritten", "x[window] = … instead of +=: the last window wins"),
            M("overlaps overwritten by the last tap", "overwritten", "x[tap] = … instead of +=: the last tap wins"),
            M("overlaps averaged", "mean for sum", "x[h,w] = Σ of the values / their number"),
            M("padding not cropped", "padding", "x has H + 2·padding rows"),
            M("cropped at the wrong corner", "padding", "x[h,w] = padded[h,w] instead of padded[h+padding,w+padding]"),
            M("cropped at the end", "padding", "x[h,w] = padded[h+2·padding,w+2·padding]"),
            M(
                "reshaped without exchanging axes",
                "reshaped",
                "windows = columns, reshaped to axes that begin with N and C",
                ("reshaped without exchanging axes, taps first",),
            ),
            M(
                "rows that no window reaches cut off",
                "leftover",
                "x has (OH − 1)·stride + KH − padding rows instead of H",
            ),
            M("slice p:-p", "slice to -0", "x = padded[:, :, p:-p, p:-p], which is empty for p = 0"),
            *COLUMN_ORDERS,
            *(one for one in GEOMETRIC if one.name not in NOT_HERE),
        ),
        cases=lambda rng: cases(rng, back=True),
        right={"x": "x[n,c,h,w] = Σ of columns[(n·OH + i)·OW + j, (c·KH + p)·KW + q] with i·s + p − padding = h"},
        hint=(
            "Reshape columns to (N, OH, OW, C, KH, KW). Go through the windows as im2col does, with += into a padded "
            "array."
        ),
        why="im2col copies a pixel into every window that contains it. The gradient of a copy is a sum, "
        "so col2im adds all copies. For every x and c, Σ im2col(x)·c = Σ x·col2im(c): the two are adjoint.",
        place="minires step resnet20 --at layer2.0.conv1 --when backward --backend reference",
    ),
)
