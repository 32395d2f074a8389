"""Right solutions in several styles, written apart from the package's own."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view


def two(v):
    return tuple(v) if isinstance(v, (tuple, list)) else (v, v)


# -- conv2d_backward


def conv_loops(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    gx, gw, gb = np.zeros_like(x), np.zeros_like(w), np.zeros(O)
    for n in range(N):
        for o in range(O):
            for i in range(grad_output.shape[2]):
                for j in range(grad_output.shape[3]):
                    g = grad_output[n, o, i, j]
                    gb[o] += g
                    for c in range(C):
                        for p in range(KH):
                            for q in range(KW):
                                h, v = i * sh + p - ph, j * sw + q - pw
                                if 0 <= h < H and 0 <= v < W:
                                    gx[n, c, h, v] += g * w[o, c, p, q]
                                    gw[o, c, p, q] += g * x[n, c, h, v]
    return gx, gw, gb


def conv_im2col(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    k = np.repeat(np.arange(C), KH * KW).reshape(-1, 1)
    rows = np.tile(np.repeat(np.arange(KH), KW), C).reshape(-1, 1) + sh * np.repeat(np.arange(OH), OW)
    cols = np.tile(np.arange(KW), KH * C).reshape(-1, 1) + sw * np.tile(np.arange(OW), OH)
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), mode="constant")
    unrolled = xp[:, k, rows, cols].transpose(1, 2, 0).reshape(C * KH * KW, -1)
    dout = grad_output.transpose(1, 2, 3, 0).reshape(O, -1)
    dw = (dout @ unrolled.T).reshape(w.shape)
    dcols = (w.reshape(O, -1).T @ dout).reshape(C * KH * KW, -1, N).transpose(2, 0, 1)
    dxp = np.zeros_like(xp)
    np.add.at(dxp, (slice(None), k, rows, cols), dcols)
    return dxp[:, :, ph : ph + H, pw : pw + W], dw, np.sum(grad_output, axis=(0, 2, 3))


def conv_as_strided(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, C = x.shape[:2]
    _, _, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    xp = np.ascontiguousarray(np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))))
    a, b, c, d = xp.strides
    view = as_strided(xp, (N, C, OH, OW, KH, KW), (a, b, c * sh, d * sw, c, d), writeable=False)
    gw = np.einsum("nohw,nchwpq->ocpq", grad_output, view)
    gxp = np.zeros_like(xp)
    for p in range(KH):
        for q in range(KW):
            gxp[:, :, p : p + sh * OH : sh, q : q + sw * OW : sw][:, :, :OH, :OW] += np.einsum(
                "nohw,oc->nchw", grad_output, w[:, :, p, q]
            )
    return gxp[:, :, ph : gxp.shape[2] - ph, pw : gxp.shape[3] - pw], gw, np.einsum("nohw->o", grad_output)


def conv_full_correlation(grad_output, x, w, stride, padding):
    """The transposed convolution: zeros between the outputs, full padding, flipped filters."""
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, _, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    spread = np.zeros((N, O, H + 2 * ph - KH + 1, W + 2 * pw - KW + 1))
    spread[:, :, : (OH - 1) * sh + 1 : sh, : (OW - 1) * sw + 1 : sw] = grad_output
    full = np.pad(spread, ((0, 0), (0, 0), (KH - 1, KH - 1), (KW - 1, KW - 1)))
    windows = sliding_window_view(full, (KH, KW), axis=(2, 3))
    gxp = np.einsum("nohwpq,ocpq->nchw", windows, w[:, :, ::-1, ::-1])
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    gw = np.einsum("nohw,ncpqhw->ocpq", spread, sliding_window_view(xp, spread.shape[2:], axis=(2, 3)))
    return gxp[:, :, ph : ph + H, pw : pw + W], gw, grad_output.sum(-1).sum(-1).sum(0)


def conv_fft(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, _, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    size = (H + 2 * ph + KH, W + 2 * pw + KW)
    spread = np.zeros((N, O, *size))
    spread[:, :, : OH * sh : sh, : OW * sw : sw][:, :, :OH, :OW] = grad_output
    G, K = np.fft.fft2(spread), np.fft.fft2(w, size)
    gxp = np.fft.ifft2(np.einsum("nohw,ochw->nchw", G, K)).real
    X = np.fft.fft2(np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))), size)
    gw = np.fft.ifft2(np.einsum("nohw,nchw->ochw", G.conj(), X)).real[:, :, :KH, :KW]
    return gxp[:, :, ph : ph + H, pw : pw + W], gw, grad_output.sum((0, 2, 3))


def conv_tensordot(grad_output, x, w, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    H, W = x.shape[2:]
    KH, KW = w.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out, gw = np.zeros(xp.shape), np.zeros(w.shape)
    for i in range(grad_output.shape[2]):
        for j in range(grad_output.shape[3]):
            g = grad_output[:, :, i, j]
            a, b = slice(i * sh, i * sh + KH), slice(j * sw, j * sw + KW)
            out[:, :, a, b] += np.tensordot(g, w, axes=(1, 0))
            gw += np.tensordot(g, xp[:, :, a, b], axes=(0, 0))
    return [out[:, :, ph : H + ph, pw : W + pw], gw, grad_output.transpose(1, 0, 2, 3).reshape(w.shape[0], -1).sum(1)]


def forward_loops(x, w, b, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    y = np.zeros((N, O, (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1))
    for n, o, i, j in np.ndindex(*y.shape):
        total = b[o]
        for c, p, q in np.ndindex(C, KH, KW):
            h, v = i * sh + p - ph, j * sw + q - pw
            if 0 <= h < H and 0 <= v < W:
                total += x[n, c, h, v] * w[o, c, p, q]
        y[n, o, i, j] = total
    return y


def forward_windows(x, w, b, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    view = sliding_window_view(xp, w.shape[2:], axis=(2, 3))[:, :, ::sh, ::sw]
    return np.tensordot(view, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) + b.reshape(1, -1, 1, 1)


def forward_taps(x, w, b, stride, padding):
    (sh, sw), (ph, pw) = two(stride), two(padding)
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = 1 + (H + 2 * ph - KH) // sh, 1 + (W + 2 * pw - KW) // sw
    xp = np.zeros((N, C, H + 2 * ph, W + 2 * pw))
    xp[:, :, ph : ph + H, pw : pw + W] = x
    y = np.empty((N, O, OH, OW))
    y[:] = b[None, :, None, None]
    for p in range(KH):
        for q in range(KW):
            y += np.einsum(
                "nchw,oc->nohw", xp[:, :, p : p + sh * OH : sh, q : q + sw * OW : sw][:, :, :OH, :OW], w[..., p, q]
            )
    return y


def grouped_loops(grad_output, x, w, stride, padding, dilation=1, groups=1):
    (sh, sw), (ph, pw), (dh, dw) = two(stride), two(padding), two(dilation)
    H, W = x.shape[2:]
    O, Cg, KH, KW = w.shape
    gx, gw = np.zeros_like(x), np.zeros_like(w)
    for n, o, i, j in np.ndindex(*grad_output.shape):
        first = o // (O // groups) * Cg
        for c, p, q in np.ndindex(Cg, KH, KW):
            h, v = i * sh + p * dh - ph, j * sw + q * dw - pw
            if 0 <= h < H and 0 <= v < W:
                gx[n, first + c, h, v] += grad_output[n, o, i, j] * w[o, c, p, q]
                gw[o, c, p, q] += grad_output[n, o, i, j] * x[n, first + c, h, v]
    return gx, gw, grad_output.sum(axis=(0, 2, 3))


def grouped_dilated(grad_output, x, w, stride, padding, dilation=1, groups=1):
    """Each group alone, with zeros between the taps."""
    dh, dw = two(dilation)
    O, Cg, KH, KW = w.shape
    wide = np.zeros((O, Cg, dh * (KH - 1) + 1, dw * (KW - 1) + 1))
    wide[:, :, ::dh, ::dw] = w
    parts = []
    for g in range(groups):
        o, c = slice(g * O // groups, (g + 1) * O // groups), slice(g * Cg, (g + 1) * Cg)
        parts.append(conv_tensordot(grad_output[:, o], x[:, c], wide[o], stride, padding))
    gx, gw, gb = zip(*parts, strict=True)
    return np.concatenate(gx, 1), np.concatenate(gw)[:, :, ::dh, ::dw], np.concatenate(gb)


# -- pooling


def max_loops(grad_output, x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    H, W = x.shape[2:]
    gx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        best = None
        for p in range(KH):
            for q in range(KW):
                h, v = i * sh + p - ph, j * sw + q - pw
                if 0 <= h < H and 0 <= v < W and (best is None or x[n, c, h, v] > x[n, c, best[0], best[1]]):
                    best = (h, v)
        gx[n, c, best[0], best[1]] += grad_output[n, c, i, j]
    return gx


def max_windows(grad_output, x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    N, C, H, W = x.shape
    OH, OW = grad_output.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-1e300)
    view = sliding_window_view(xp, (KH, KW), axis=(2, 3))[:, :, ::sh, ::sw].reshape(N, C, OH, OW, -1)
    k = view.argmax(-1)
    n, c, i, j = np.indices(k.shape)
    out = np.zeros_like(xp)
    np.add.at(out, (n, c, i * sh + k // KW, j * sw + k % KW), grad_output)
    return out[:, :, ph : ph + H, pw : pw + W]


def max_where(grad_output, x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    N, C, H, W = x.shape
    xp = np.full((N, C, H + 2 * ph, W + 2 * pw), -np.inf)
    xp[:, :, ph : ph + H, pw : pw + W] = x
    dxp = np.zeros(xp.shape)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        patch = xp[n, c, i * sh : i * sh + KH, j * sw : j * sw + KW]
        a, b = np.unravel_index(np.argmax(patch), patch.shape)
        dxp[n, c, i * sh + a, j * sw + b] += grad_output[n, c, i, j]
    return dxp[:, :, ph : H + ph, pw : W + pw]


def avg_loops(grad_output, x_shape, kernel_size, stride, padding, count_include_pad):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    H, W = x_shape[2:]
    gx = np.zeros(x_shape)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        inside = [
            (h, v)
            for h in range(i * sh - ph, i * sh - ph + KH)
            for v in range(j * sw - pw, j * sw - pw + KW)
            if 0 <= h < H and 0 <= v < W
        ]
        for h, v in inside:
            gx[n, c, h, v] += grad_output[n, c, i, j] / (KH * KW if count_include_pad else len(inside))
    return gx


def avg_taps(grad_output, x_shape, kernel_size, stride, padding, count_include_pad):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    N, C, H, W = x_shape
    OH, OW = grad_output.shape[2:]
    size = np.zeros((OH, OW))
    for i in range(OH):
        for j in range(OW):
            rows = min(i * sh - ph + KH, H) - max(i * sh - ph, 0)
            cols = min(j * sw - pw + KW, W) - max(j * sw - pw, 0)
            size[i, j] = KH * KW if count_include_pad else rows * cols
    g, out = grad_output / size, np.zeros((N, C, H + 2 * ph, W + 2 * pw))
    for p in range(KH):
        for q in range(KW):
            out[:, :, p : p + sh * OH : sh, q : q + sw * OW : sw][:, :, :OH, :OW] += g
    return out[:, :, ph : ph + H, pw : pw + W]


def avg_ceil_loops(grad_output, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    H, W = x_shape[2:]
    gx = np.zeros(x_shape)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        top, left = i * sh - ph, j * sw - pw
        bottom, right = min(top + KH, H + ph), min(left + KW, W + pw)
        size = (bottom - top) * (right - left)
        top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, H), min(right, W)
        if not count_include_pad:
            size = (bottom - top) * (right - left)
        gx[n, c, top:bottom, left:right] += grad_output[n, c, i, j] / size
    return gx


# -- the others


def relu_where(grad_output, x):
    return np.where(x > 0, grad_output, 0.0)


def relu_index(grad_output, x):
    grad = grad_output.copy()
    grad[x <= 0] = 0
    return grad


def linear_loops(grad_output, x, w):
    gx, gw, gb = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w))
    for n, o in np.ndindex(*grad_output.shape):
        gb[o] += grad_output[n, o]
        for i in range(x.shape[1]):
            gx[n, i] += grad_output[n, o] * w[o, i]
            gw[o, i] += grad_output[n, o] * x[n, i]
    return gx, gw, gb


def linear_einsum(grad_output, x, w):
    return np.einsum("no,oi->ni", grad_output, w), np.einsum("no,ni->oi", grad_output, x), grad_output.T.sum(-1)


def skip_unbroadcast(grad_output, a_shape, b_shape):
    def back(shape):
        g = grad_output
        while g.ndim > len(shape):
            g = g.sum(0)
        for axis, n in enumerate(shape):
            if n == 1 and g.shape[axis] != 1:
                g = g.sum(axis, keepdims=True)
        return g

    return back(a_shape), back(b_shape)


def skip_add_at(grad_output, a_shape, b_shape):
    found = []
    for shape in (a_shape, b_shape):
        where = np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), grad_output.shape)
        found.append(np.bincount(where.ravel(), grad_output.ravel(), int(np.prod(shape))).reshape(shape))
    return tuple(found)


def entropy_log(logits, labels):
    m = logits.max(1, keepdims=True)
    logp = logits - m - np.log(np.exp(logits - m).sum(1, keepdims=True))
    return (np.exp(logp) - np.eye(logits.shape[1])[labels]) / logits.shape[0]


def entropy_jacobian(logits, labels):
    grad = np.zeros_like(logits)
    for n, y in enumerate(labels):
        e = np.exp(logits[n] - np.max(logits[n]))
        p = e / np.sum(e)
        for c in range(len(p)):
            grad[n, c] = (p[c] - (1 if c == y else 0)) / len(labels)
    return grad


def bn_forward_loops(x, weight, bias, running_mean, running_var, momentum, eps):
    N, C, H, W = x.shape
    M = N * H * W
    y, rm, rv = np.empty_like(x), np.empty(C), np.empty(C)
    for c in range(C):
        a = x[:, c]
        mu = a.sum() / M
        var = ((a - mu) ** 2).sum() / M
        y[:, c] = weight[c] * (a - mu) / np.sqrt(var + eps) + bias[c]
        rm[c] = running_mean[c] + momentum * (mu - running_mean[c])
        rv[c] = running_var[c] + momentum * (a.var(ddof=1) - running_var[c])
    return y, rm, rv


def bn_backward_paths(grad_output, x, weight, eps):
    """The three paths, as a computational graph gives them."""
    N, C, H, W = x.shape
    M = N * H * W
    ax, sh = (0, 2, 3), (1, C, 1, 1)
    mu = x.mean(ax).reshape(sh)
    var = x.var(ax).reshape(sh)
    std = np.sqrt(var + eps)
    dxhat = grad_output * weight.reshape(sh)
    dvar = np.sum(dxhat * (x - mu) * -0.5 * (var + eps) ** -1.5, ax).reshape(sh)
    dmu = np.sum(-dxhat / std, ax).reshape(sh) + dvar * np.mean(-2 * (x - mu), ax).reshape(sh)
    dx = dxhat / std + dvar * 2 * (x - mu) / M + dmu / M
    return dx, np.sum(grad_output * (x - mu) / std, ax), np.sum(grad_output, ax)


def bn_backward_jacobian(grad_output, x, weight, eps):
    C = x.shape[1]
    gx, gw, gb = np.zeros_like(x), np.zeros(C), np.zeros(C)
    for c in range(C):
        a, g = x[:, c].ravel(), grad_output[:, c].ravel()
        M = len(a)
        std = np.sqrt(a.var() + eps)
        hat = (a - a.mean()) / std
        J = (np.eye(M) - 1 / M - np.outer(hat, hat) / M) / std
        gx[:, c] = weight[c] * (J @ g).reshape(gx[:, c].shape)
        gw[c], gb[c] = hat @ g, g.sum()
    return gx, gw, gb


def sgd_plain(p, grad, velocity, lr, momentum, weight_decay):
    d = grad + weight_decay * p
    v = velocity * momentum + d
    return p + (-lr) * v, v


def he_normal(shape, fan, rng):
    receptive = 1
    for n in shape[2:]:
        receptive *= n
    n = receptive * (shape[1] if fan == "in" else shape[0])
    return rng.normal(0.0, (2.0 / n) ** 0.5, size=shape)


def he_flat(shape, fan, rng):
    n = np.prod(shape) / (shape[0] if fan == "in" else shape[1])
    return np.array([rng.normal() for _ in range(int(np.prod(shape)))]).reshape(shape) * np.sqrt(2 / n)


def block_pad(x, conv1, bn1, conv2, bn2, option, projection):
    out = bn2(conv2(np.clip(bn1(conv1(x)), 0, None)))
    if out.shape == x.shape:
        identity = x
    elif option == "B":
        identity = projection(x)
    else:
        s = -(-x.shape[2] // out.shape[2])
        identity = np.pad(x[:, :, ::s, ::s], ((0, 0), (0, out.shape[1] - x.shape[1]), (0, 0), (0, 0)))
    out = out + identity
    return out * (out > 0)


def im2col_loops(x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    N, _, H, W = x.shape
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = []
    for n in range(N):
        for i in range((H + 2 * ph - KH) // sh + 1):
            for j in range((W + 2 * pw - KW) // sw + 1):
                rows.append(xp[n, :, i * sh : i * sh + KH, j * sw : j * sw + KW].flatten())
    return np.stack(rows)


def im2col_view(x, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    xp = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    view = sliding_window_view(xp, (KH, KW), axis=(2, 3))[:, :, ::sh, ::sw]
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * KH * KW)


def col2im_loops(columns, x_shape, kernel_size, stride, padding):
    (KH, KW), (sh, sw), (ph, pw) = two(kernel_size), two(stride), two(padding)
    N, C, H, W = x_shape
    OH, OW = (H + 2 * ph - KH) // sh + 1, (W + 2 * pw - KW) // sw + 1
    x = np.zeros(x_shape)
    for n, i, j, c, p, q in np.ndindex(N, OH, OW, C, KH, KW):
        h, v = i * sh + p - ph, j * sw + q - pw
        if 0 <= h < H and 0 <= v < W:
            x[n, c, h, v] += columns[(n * OH + i) * OW + j, (c * KH + p) * KW + q]
    return x


RIGHT = {
    "conv2d_backward": (conv_loops, conv_im2col, conv_as_strided, conv_full_correlation, conv_fft, conv_tensordot),
    "conv2d_forward": (forward_loops, forward_windows, forward_taps),
    "conv2d_backward_grouped": (grouped_loops, grouped_dilated),
    "max_pool2d_backward": (max_loops, max_windows, max_where),
    "avg_pool2d_backward": (avg_loops, avg_taps),
    "avg_pool2d_backward_ceil": (avg_ceil_loops,),
    "relu_backward": (relu_where, relu_index),
    "linear_backward": (linear_loops, linear_einsum),
    "skip_add_backward": (skip_unbroadcast, skip_add_at),
    "softmax_cross_entropy_backward": (entropy_log, entropy_jacobian),
    "batch_norm_forward": (bn_forward_loops,),
    "batch_norm_backward": (bn_backward_paths, bn_backward_jacobian),
    "sgd_momentum": (sgd_plain,),
    "he_init": (he_normal, he_flat),
    "residual_block": (block_pad,),
    "im2col": (im2col_loops, im2col_view),
    "col2im": (col2im_loops,),
}
