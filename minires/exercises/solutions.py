"""The reference solutions, as `minires exercise NAME --solution` prints them.

Arrays are float64.  Sizes: N images, C channels, H×W pixels, O filters of KH×KW taps, OH×OW outputs.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np


def pair_of(value):
    """An integer or an (h, w) pair -> (h, w)"""
    return (value, value) if isinstance(value, int) else value


def relu_backward(grad_output, x):
    return grad_output * (x > 0)


def linear_backward(grad_output, x, w):
    grad_x = grad_output @ w  # (N, O) @ (O, I)
    grad_w = grad_output.T @ x  # (O, N) @ (N, I)
    grad_b = grad_output.sum(0)
    return grad_x, grad_w, grad_b


def skip_add_backward(grad_output, a_shape, b_shape):
    def reduced(shape):
        new = grad_output.ndim - len(shape)  # leading axes that broadcasting added
        grad = grad_output.sum(axis=tuple(range(new)))
        repeated = tuple(axis for axis, n in enumerate(shape) if n == 1)
        return grad.sum(axis=repeated, keepdims=True).reshape(shape)

    return reduced(a_shape), reduced(b_shape)


def softmax_cross_entropy_backward(logits, labels):
    N = len(logits)
    e = np.exp(logits - logits.max(1, keepdims=True))
    grad = e / e.sum(1, keepdims=True)  # softmax
    grad[np.arange(N), labels] -= 1
    return grad / N


def sgd_momentum(p, grad, velocity, lr, momentum, weight_decay):
    grad = grad + weight_decay * p
    velocity = momentum * velocity + grad
    return p - lr * velocity, velocity


def he_init(shape, fan, rng):
    units = shape[1] if fan == "in" else shape[0]
    products = units * int(np.prod(shape[2:]))  # 1 for a linear layer
    return rng.standard_normal(shape) * np.sqrt(2 / products)


def avg_pool2d_backward(grad_output, x_shape, kernel_size, stride, padding, count_include_pad):
    (KH, KW), (sh, sw), (ph, pw) = pair_of(kernel_size), pair_of(stride), pair_of(padding)
    N, C, H, W = x_shape
    grad_padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw))
    pixels = np.pad(np.ones((H, W)), ((ph, ph), (pw, pw)), constant_values=float(count_include_pad))
    for i in range(grad_output.shape[2]):
        for j in range(grad_output.shape[3]):
            rows, columns = slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW)
            size = pixels[rows, columns].sum()  # the number of pixels that the forward divides by
            grad_padded[:, :, rows, columns] += grad_output[:, :, i, j, None, None] / size
    return grad_padded[:, :, ph : ph + H, pw : pw + W]


def avg_pool2d_backward_ceil(grad_output, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
    # grad_output already has the rows and columns that ceil_mode adds.  A slice ends where the padded image ends,
    # so that what lies beyond neither counts nor receives a gradient.
    return avg_pool2d_backward(grad_output, x_shape, kernel_size, stride, padding, count_include_pad)


def max_pool2d_backward(grad_output, x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = pair_of(kernel_size), pair_of(stride), pair_of(padding)
    N, C, H, W = x.shape
    OH, OW = grad_output.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    grad_padded = np.zeros_like(padded)
    n, c = np.ogrid[:N, :C]
    for i in range(OH):
        for j in range(OW):
            window = padded[:, :, i * sh : i * sh + KH, j * sw : j * sw + KW]
            winner = window.reshape(N, C, KH * KW).argmax(2)  # the first of several equal ones
            grad_padded[n, c, i * sh + winner // KW, j * sw + winner % KW] += grad_output[:, :, i, j]
    return grad_padded[:, :, ph : ph + H, pw : pw + W]


def conv2d_forward(x, w, b, stride, padding):
    (sh, sw), (ph, pw) = pair_of(stride), pair_of(padding)
    N, _, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y = np.zeros((N, O, OH, OW))
    for i in range(OH):
        for j in range(OW):
            window = padded[:, :, i * sh : i * sh + KH, j * sw : j * sw + KW]  # (N, C, KH, KW)
            y[:, :, i, j] = np.einsum("ncpq,ocpq->no", window, w) + b
    return y


def im2col(x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = pair_of(kernel_size), pair_of(stride), pair_of(padding)
    N, C, H, W = x.shape
    OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    columns = np.zeros((N, OH, OW, C, KH, KW))
    for i in range(OH):
        for j in range(OW):
            columns[:, i, j] = padded[:, :, i * sh : i * sh + KH, j * sw : j * sw + KW]
    return columns.reshape(N * OH * OW, C * KH * KW)


def col2im(columns, x_shape, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = pair_of(kernel_size), pair_of(stride), pair_of(padding)
    N, C, H, W = x_shape
    OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
    columns = columns.reshape(N, OH, OW, C, KH, KW)
    padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw))
    for i in range(OH):
        for j in range(OW):
            padded[:, :, i * sh : i * sh + KH, j * sw : j * sw + KW] += columns[:, i, j]
    return padded[:, :, ph : ph + H, pw : pw + W]


def conv2d_backward(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = pair_of(stride), pair_of(padding)
    H, W = x.shape[2:]
    KH, KW = w.shape[2:]
    OH, OW = grad_output.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    grad_padded, grad_w = np.zeros_like(padded), np.zeros_like(w)
    for i in range(OH):
        for j in range(OW):
            here = (..., slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW))  # the window of output (i, j)
            grad_padded[here] += np.einsum("no,ocpq->ncpq", grad_output[:, :, i, j], w)
            grad_w += np.einsum("no,ncpq->ocpq", grad_output[:, :, i, j], padded[here])
    grad_b = grad_output.sum((0, 2, 3))
    return grad_padded[:, :, ph : ph + H, pw : pw + W], grad_w, grad_b


def conv2d_backward_grouped(grad_output, x, w, stride, padding, dilation=1, groups=1):
    (sh, sw), (ph, pw), (dh, dw) = pair_of(stride), pair_of(padding), pair_of(dilation)
    H, W = x.shape[2:]
    O, Cg, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    grad_padded, grad_w = np.zeros_like(padded), np.zeros_like(w)
    for g in range(groups):
        channels, filters = slice(g * Cg, (g + 1) * Cg), slice(g * O // groups, (g + 1) * O // groups)
        for i in range(OH):
            for j in range(OW):
                rows = slice(i * sh, i * sh + dh * (KH - 1) + 1, dh)
                columns = slice(j * sw, j * sw + dw * (KW - 1) + 1, dw)
                here, grad = (slice(None), channels, rows, columns), grad_output[:, filters, i, j]
                grad_padded[here] += np.einsum("no,ocpq->ncpq", grad, w[filters])
                grad_w[filters] += np.einsum("no,ncpq->ocpq", grad, padded[here])
    grad_b = grad_output.sum((0, 2, 3))
    return grad_padded[:, :, ph : ph + H, pw : pw + W], grad_w, grad_b


def batch_norm_forward(x, weight, bias, running_mean, running_var, momentum, eps):
    along = (slice(None), None, None)  # (C,) -> (C, 1, 1)
    M = x.size / x.shape[1]  # the numbers of a channel
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))  # var divides by M
    y = (x - mean[along]) / np.sqrt(var[along] + eps) * weight[along] + bias[along]
    running_mean = (1 - momentum) * running_mean + momentum * mean
    running_var = (1 - momentum) * running_var + momentum * var * M / (M - 1)
    return y, running_mean, running_var


def batch_norm_backward(grad_output, x, weight, eps):
    along = (slice(None), None, None)  # (C,) -> (C, 1, 1)
    M = x.size / x.shape[1]  # the numbers of a channel
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = (x - mean[along]) * inv_std[along]
    grad_bias = grad_output.sum((0, 2, 3))
    grad_weight = (grad_output * x_hat).sum((0, 2, 3))
    through_mean = grad_bias[along] / M
    through_var = x_hat * grad_weight[along] / M
    grad_x = (weight * inv_std)[along] * (grad_output - through_mean - through_var)
    return grad_x, grad_weight, grad_bias


def residual_block(x, conv1, bn1, conv2, bn2, option, projection):
    y = np.maximum(bn1(conv1(x)), 0)
    y = bn2(conv2(y))
    shortcut = x
    if projection is not None:  # option B
        shortcut = projection(x)
    elif y.shape != x.shape:  # option A
        C, H = x.shape[1:3]
        stride = -(-H // y.shape[2])  # rounded up: 5 rows become 3 with stride 2
        shortcut = np.zeros_like(y)
        shortcut[:, :C] = x[:, :, ::stride, ::stride]
    return np.maximum(y + shortcut, 0)
