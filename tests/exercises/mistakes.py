"""Mistakes of students in the right solutions of `right.py`: each a change of one or two lines of their text.

They were written apart from the catalogue.  Each has words, of which one must occur in the name that the check gives.
"""

# ruff: noqa: E501

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from exercises import right

# solution, old text, new text (several pairs, if needed), words of the name
MISTAKES: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    # conv2d_backward: seven loops
    ("conv2d_backward", "conv_loops", ("g * w[o, c, p, q]", "g * w[o, c, KH - 1 - p, KW - 1 - q]"), ("wrong orientation",)),
    ("conv2d_backward", "conv_loops", ("gx[n, c, h, v] += g", "gx[n, c, h, v] = g"), ("overwritten", "last filter")),
    ("conv2d_backward", "conv_loops", ("gw[o, c, p, q] += g", "gw[o, c, p, q] = g"), ("last", "overwritten")),
    ("conv2d_backward", "conv_loops", ("gb[o] += g", "gb[o] = g"), ("last pixel",)),
    ("conv2d_backward", "conv_loops", ("gb[o] += g", "gb[o] += g / N"), ("divided by N",)),
    ("conv2d_backward", "conv_loops", ("gb[o] += g", "gb[o] += 1"), ("ones",)),
    ("conv2d_backward", "conv_loops", ("g = grad_output[n, o, i, j]", "g = 1.0"), ("ones",)),
    ("conv2d_backward", "conv_loops", ("g = grad_output[n, o, i, j]", "g = grad_output[n, o, i, j] / N"), ("divided by N",)),
    (
        "conv2d_backward",
        "conv_loops",
        ("h, v = i * sh + p - ph, j * sw + q - pw", "h, v = i + p - ph, j + q - pw"),
        ("stride ignored",),
    ),
    (
        "conv2d_backward",
        "conv_loops",
        ("h, v = i * sh + p - ph, j * sw + q - pw", "h, v = i * sw + p - ph, j * sh + q - pw"),
        ("stride exchanged",),
    ),
    (
        "conv2d_backward",
        "conv_loops",
        ("h, v = i * sh + p - ph, j * sw + q - pw", "h, v = i * sh + p, j * sw + q"),
        ("padding", "wrong corner", "x not padded"),
    ),
    (
        "conv2d_backward",
        "conv_loops",
        ("h, v = i * sh + p - ph, j * sw + q - pw", "h, v = i * sh + p - pw, j * sw + q - ph"),
        ("padding exchanged",),
    ),
    # conv2d_backward: im2col
    ("conv2d_backward", "conv_im2col", ("[:, :, ph : ph + H, pw : pw + W]", ""), ("padding not cropped",)),
    ("conv2d_backward", "conv_im2col", ("[:, :, ph : ph + H, pw : pw + W]", "[:, :, :H, :W]"), ("wrong corner",)),
    ("conv2d_backward", "conv_im2col", ("[:, :, ph : ph + H, pw : pw + W]", "[:, :, ph:-ph, pw:-pw]"), ("slice p:-p",)),
    (
        "conv2d_backward",
        "conv_im2col",
        (
            "np.add.at(dxp, (slice(None), k, rows, cols), dcols)",
            "dxp[:, k, rows, cols] += dcols",
        ),
        ("overwritten",),
    ),
    ("conv2d_backward", "conv_im2col", ("(0, 2, 3))", "(0, 2))"), ("not summed",)),
    ("conv2d_backward", "conv_im2col", ("axis=(0, 2, 3))", "axis=0)"), ("not summed",)),
    ("conv2d_backward", "conv_im2col", ("np.sum(grad_output,", "np.mean(grad_output,"), ("divided by N·OH·OW",)),
    ("conv2d_backward", "conv_im2col", ("(dout @ unrolled.T)", "(dout @ unrolled.T / N)"), ("divided by N",)),
    ("conv2d_backward", "conv_im2col", ("(dout @ unrolled.T)", "-(dout @ unrolled.T)"), ("opposite sign",)),
    (
        "conv2d_backward",
        "conv_im2col",
        ("grad_output.transpose(1, 2, 3, 0)", "grad_output[::-1].transpose(1, 2, 3, 0)"),
        (),  # the images in reverse order: no misconception of the catalogue
    ),
    # conv2d_backward: views and einsum
    ("conv2d_backward", "conv_as_strided", ("c * sh, d * sw, c, d", "c, d, c, d"), ("stride ignored in grad_w",)),
    ("conv2d_backward", "conv_as_strided", ("] += np", "] = np"), ("overwritten",)),
    ("conv2d_backward", "conv_as_strided", ("w[:, :, p, q]", "w[:, :, KH - 1 - p, KW - 1 - q]"), ("wrong orientation",)),
    ("conv2d_backward", "conv_as_strided", ("w[:, :, p, q]", "w[:, :, p, KW - 1 - q]"), ("left to right",)),
    ("conv2d_backward", "conv_as_strided", ('"nohw->o"', '"nohw->no"'), ("not summed over the batch",)),
    ("conv2d_backward", "conv_as_strided", ('"nohw->o"', '"nohw->n"'), ("over the filters",)),
    ("conv2d_backward", "conv_as_strided", ('"nohw,nchwpq->ocpq"', '"nohw,nchwpq->copq"'), ("axes exchanged",)),
    ("conv2d_backward", "conv_as_strided", ('"nohw,nchwpq->ocpq"', '"nohw,nchwpq->ocqp"'), ("axes exchanged",)),
    ("conv2d_backward", "conv_as_strided", ('"nohw,nchwpq->ocpq"', '"nohw,mchwpq->ocpq"'), ("samples summed",)),
    # conv2d_backward: full correlation
    ("conv2d_backward", "conv_full_correlation", ("w[:, :, ::-1, ::-1]", "w"), ("wrong orientation",)),
    ("conv2d_backward", "conv_full_correlation", ("w[:, :, ::-1, ::-1]", "w[:, :, ::-1]"), ("left to right", "upside down")),
    ("conv2d_backward", "conv_full_correlation", ("[:, :, ph : ph + H, pw : pw + W]", ""), ("padding not cropped",)),
    (
        "conv2d_backward",
        "conv_full_correlation",
        ("spread[:, :, : (OH - 1) * sh + 1 : sh, : (OW - 1) * sw + 1 : sw]", "spread[:, :, :OH, :OW]"),
        ("stride ignored",),
    ),
    (
        "conv2d_backward",
        "conv_full_correlation",
        (
            "spread = np.zeros((N, O, H + 2 * ph - KH + 1, W + 2 * pw - KW + 1))",
            "spread = np.zeros((N, O, (OH - 1) * sh + 1, (OW - 1) * sw + 1))",
        ),
        ("rest",),
    ),
    ("conv2d_backward", "conv_full_correlation", (".sum(-1).sum(-1).sum(0)", ".sum()"), ("everything",)),
    ("conv2d_backward", "conv_full_correlation", (".sum(-1).sum(-1).sum(0)", "[-1].sum((-1, -2))"), ("last sample",)),
    # conv2d_backward: tensordot over windows
    ("conv2d_backward", "conv_tensordot", ("gw += np", "gw = np"), ("last",)),
    ("conv2d_backward", "conv_tensordot", ("out[:, :, a, b] += np", "out[:, :, a, b] = np"), ("last window",)),
    ("conv2d_backward", "conv_tensordot", ("return [out[:, :, ph : H + ph, pw : W + pw], gw,", "return [gw, out,"), ("returned as",)),
    ("conv2d_backward", "conv_tensordot", ("gw += np.tensordot(g, xp", "gw += np.tensordot(g, xp[:, :, ::-1]"), ()),
    # conv2d_forward
    ("conv2d_forward", "forward_loops", ("w[o, c, p, q]", "w[o, c, KH - 1 - p, KW - 1 - q]"), ("flipped",)),
    ("conv2d_forward", "forward_loops", ("total = b[o]", "total = 0.0"), ("bias forgotten",)),
    ("conv2d_forward", "forward_loops", ("w[o, c, p, q]", "w[o, c, p, q] + b[o]"), ("bias",)),
    ("conv2d_forward", "forward_loops", ("i * sh + p - ph, j * sw + q - pw", "i + p - ph, j + q - pw"), ("stride ignored",)),
    ("conv2d_forward", "forward_loops", ("i * sh + p - ph, j * sw + q - pw", "i * sh + p, j * sw + q"), ("padd",)),
    ("conv2d_forward", "forward_windows", ("[:, :, ::sh, ::sw]", ""), ("stride 1",)),
    ("conv2d_forward", "forward_windows", ("[:, :, ::sh, ::sw]", "[:, :, ::sw, ::sh]"), ("stride exchanged",)),
    ("conv2d_forward", "forward_windows", ("w.shape[2:], axis", "w.shape[:1:-1], axis"), ()),
    ("conv2d_forward", "forward_windows", ("w, axes", "w[..., ::-1], axes"), ("flipped in columns",)),
    ("conv2d_forward", "forward_windows", (".transpose(0, 3, 1, 2) + b.reshape(1, -1, 1, 1)", " + b"), ("channels as the last axis",)),
    ("conv2d_forward", "forward_taps", ("            y += np", "            y = np"), ("last tap", "bias")),
    ("conv2d_forward", "forward_taps", ("+ 2 * ph - KH) // sh, 1 + (W + 2 * pw - KW) // sw", "- KH) // sh, 1 + (W - KW) // sw"), ("padding",)),
    ("conv2d_backward", "conv_full_correlation", ("w[:, :, ::-1, ::-1]", "np.flip(w)"), ("all axes",)),
    ("conv2d_backward", "conv_full_correlation", ("w[:, :, ::-1, ::-1]", "np.rot90(w, 2)"), ("instead of taps",)),
    ("conv2d_backward", "conv_full_correlation", ("w[:, :, ::-1, ::-1]", "np.rot90(w, 1, (2, 3))"), ()),
    ("conv2d_backward", "conv_full_correlation", ("np.zeros((N, O, H + 2 * ph - KH + 1, W + 2 * pw - KW + 1))", "np.zeros((N, O, OH * sh, OW * sw))"), ("zeros behind",)),
    # pooling
    ("max_pool2d_backward", "max_loops", ("x[n, c, h, v] > x", "x[n, c, h, v] >= x"), ("last tie",)),
    ("max_pool2d_backward", "max_loops", ("gx[n, c, best[0], best[1]] +=", "gx[n, c, best[0], best[1]] ="), ("overwritten",)),
    ("max_pool2d_backward", "max_loops", ("> x[n, c, best[0]", "< x[n, c, best[0]"), ("minimum",)),
    ("max_pool2d_backward", "max_windows", (", constant_values=-1e300", ""), ("padded with zeros",)),
    ("max_pool2d_backward", "max_windows", ("k // KW, j * sw + k % KW", "k // KH, j * sw + k % KH"), ("height",)),
    ("max_pool2d_backward", "max_windows", ("np.add.at(out, (n, c, i * sh + k // KW, j * sw + k % KW), grad_output)", "out[n, c, i * sh + k // KW, j * sw + k % KW] += grad_output"), ("overwritten",)),
    ("max_pool2d_backward", "max_windows", ("[:, :, ph : ph + H, pw : pw + W]", "[:, :, :H, :W]"), ("wrong corner",)),
    ("max_pool2d_backward", "max_where", ("dxp[n, c, i * sh + a, j * sw + b] += grad_output[n, c, i, j]", "dxp[n, c, i * sh : i * sh + KH, j * sw : j * sw + KW] += (patch == patch.max()) * grad_output[n, c, i, j]"), ("all ties",)),
    ("max_pool2d_backward", "max_where", ("grad_output[n, c, i, j]", "grad_output[n, c, i, j] * patch.max()"), ("multiplied by the maximum",)),
    ("avg_pool2d_backward", "avg_loops", ("KH * KW if count_include_pad else len(inside)", "KH * KW"), ("always counts",)),
    ("avg_pool2d_backward", "avg_loops", ("KH * KW if count_include_pad else len(inside)", "len(inside)"), ("never counts",)),
    ("avg_pool2d_backward", "avg_loops", (" / (KH * KW if count_include_pad else len(inside))", ""), ("not divided",)),
    ("avg_pool2d_backward", "avg_loops", ("gx[n, c, h, v] += ", "gx[n, c, h, v] = "), ("overwritten",)),
    ("avg_pool2d_backward", "avg_taps", ("g, out = grad_output / size,", "g, out = grad_output / KH**2,"), ("square",)),
    ("avg_pool2d_backward", "avg_taps", ("[:, :, ph : ph + H, pw : pw + W]", ""), ("padding not cropped",)),
    ("avg_pool2d_backward_ceil", "avg_ceil_loops", ("min(top + KH, H + ph), min(left + KW, W + pw)", "top + KH, left + KW"), ("whole window",)),
    # the simple ones
    ("relu_backward", "relu_where", ("x > 0", "x >= 0"), ("at 0",)),
    ("relu_backward", "relu_where", ("grad_output, 0.0", "1.0, 0.0"), ("ones",)),
    ("relu_backward", "relu_where", ("x > 0", "grad_output > 0"), ("grad_output",)),
    ("relu_backward", "relu_index", ("grad[x <= 0] = 0", "grad[x > 0] = 0"), ("inverted",)),
    ("relu_backward", "relu_index", ("grad[x <= 0] = 0", "pass"), ("returned",)),
    ("linear_backward", "linear_loops", ("gb[o] += ", "gb[o] = "), ("last sample",)),
    ("linear_backward", "linear_loops", ("gw[o, i] += ", "gw[o, i] = "), ("last sample",)),
    ("linear_backward", "linear_loops", ("w[o, i]\n", "w[i, o]\n"), ("w transposed",)),
    ("linear_backward", "linear_einsum", ('"no,ni->oi"', '"no,ni->io"'), ("axes exchanged",)),
    ("linear_backward", "linear_einsum", ("grad_output.T.sum(-1)", "grad_output.mean(0)"), ("divided by N",)),
    ("linear_backward", "linear_einsum", ("grad_output.T.sum(-1)", "grad_output.sum(0, keepdims=True)"), ("shape",)),
    ("linear_backward", "linear_einsum", ("grad_output.T.sum(-1)", "grad_output"), ("not summed", "returned")),
    ("skip_add_backward", "skip_unbroadcast", ("g = g.sum(0)", "g = g.mean(0)"), ()),
    ("skip_add_backward", "skip_unbroadcast", ("g.sum(axis, keepdims=True)", "g.sum(axis)"), ()),
    ("skip_add_backward", "skip_unbroadcast", ("return back(a_shape), back(b_shape)", "return grad_output, grad_output"), ("not summed",)),
    ("skip_add_backward", "skip_unbroadcast", ("return back(a_shape), back(b_shape)", "return back(b_shape), back(a_shape)"), ("returned as",)),
    ("softmax_cross_entropy_backward", "entropy_log", (" / logits.shape[0]", ""), ("not averaged", "multiplied by N")),
    ("softmax_cross_entropy_backward", "entropy_log", (" / logits.shape[0]", " / logits.size"), ("all elements",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("np.exp(logp) -", "logp -"), ("log",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("np.exp(logp) - np.eye(logits.shape[1])[labels]", "np.exp(logp)"), ("label term",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("logits.max(1, keepdims=True)", "0"), ("not subtracted",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("logits.max(1, keepdims=True)", "logits.max()"), ("whole batch",)),
    ("softmax_cross_entropy_backward", "entropy_jacobian", ("/ len(labels)", "/ len(p)"), ("classes",)),
    ("softmax_cross_entropy_backward", "entropy_jacobian", ("p[c] - (1 if c == y else 0)", "(1 if c == y else 0) - p[c]"), ("sign",)),
    ("softmax_cross_entropy_backward", "entropy_jacobian", ("c == y", "c == y - 1"), ("shifted", "label")),
    ("softmax_cross_entropy_backward", "entropy_log", (".sum(1, keepdims=True)", ".sum(1)"), ("along the columns",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("(1, keepdims=True)", "(1)"), ("along the columns",)),
    ("softmax_cross_entropy_backward", "entropy_log", ("(1, keepdims=True)", "(0, keepdims=True)"), ("over the batch",)),
    ("batch_norm_forward", "bn_forward_loops", ("weight[c] * (a - mu) / np.sqrt(var + eps)", "weight[c] * (a - mu / np.sqrt(var + eps))"), ("mean divided",)),
    ("batch_norm_forward", "bn_forward_loops", ("+ momentum * (mu", "+ (1 - momentum) * (mu"), ("share of the old",)),
    ("batch_norm_forward", "bn_forward_loops", ("a.var(ddof=1)", "a.var()"), ("biased running",)),
    ("batch_norm_forward", "bn_forward_loops", (".sum() / M\n        y", ".sum() / (M - 1)\n        y"), ("unbiased",)),
    ("batch_norm_forward", "bn_forward_loops", ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"), ("outside",)),
    ("batch_norm_forward", "bn_forward_loops", ("np.sqrt(var + eps)", "(var + eps)"), ("divided by the variance",)),
    ("batch_norm_forward", "bn_forward_loops", ("(mu - running_mean[c])", "mu"), ("old value not reduced",)),
    ("batch_norm_forward", "bn_forward_loops", ("weight[c] * (a - mu)", "(a - mu)"), ("weight forgotten",)),
    ("batch_norm_backward", "bn_backward_paths", (" + dmu / M", ""), ("mean",)),
    ("batch_norm_backward", "bn_backward_paths", (" + dvar * 2 * (x - mu) / M", ""), ("variance term",)),
    ("batch_norm_backward", "bn_backward_paths", ("-0.5 * (var + eps) ** -1.5", "-(var + eps) ** -1.5"), ("½",)),
    ("batch_norm_backward", "bn_backward_paths", ("dvar * 2 *", "dvar *"), ("factor 2",)),
    ("batch_norm_backward", "bn_backward_paths", ("dmu / M", "dmu"), ()),
    ("batch_norm_backward", "bn_backward_paths", ("grad_output * (x - mu) / std, ax)", "grad_output * (x - mu), ax)"), ("centred",)),
    ("batch_norm_backward", "bn_backward_paths", ("grad_output * (x - mu) / std, ax)", "grad_output * x, ax)"), ("x instead",)),
    ("batch_norm_backward", "bn_backward_paths", ("M = N * H * W", "M = N"), ("N instead",)),
    ("batch_norm_backward", "bn_backward_paths", ("* weight.reshape(sh)", ""), ("weight forgotten",)),
    ("batch_norm_backward", "bn_backward_paths", ("x.var(ax)", "x.var(ax, ddof=1)"), ()),
    ("batch_norm_backward", "bn_backward_jacobian", ("np.eye(M) - 1 / M - np.outer(hat, hat) / M", "np.eye(M) - np.outer(hat, hat) / M"), ("mean term",)),
    ("batch_norm_backward", "bn_backward_jacobian", ("weight[c] * (J", "(J"), ("weight forgotten",)),
    ("batch_norm_backward", "bn_backward_jacobian", ("np.sqrt(a.var() + eps)", "np.sqrt(a.var())"), ("eps",)),
    ("sgd_momentum", "sgd_plain", ("(-lr) * v", "lr * v"), ("ascent",)),
    ("sgd_momentum", "sgd_plain", ("d = grad + weight_decay * p", "d = grad"), ("weight decay forgotten",)),
    ("sgd_momentum", "sgd_plain", ("+ d\n", "+ (1 - momentum) * d\n"), ("dampening",)),
    ("sgd_momentum", "sgd_plain", ("+ d\n", "+ lr * d\n"), ()),
    ("sgd_momentum", "sgd_plain", ("+ (-lr) * v, v", "- lr * (d + momentum * v), v"), ("Nesterov",)),
    ("he_init", "he_normal", ("(2.0 / n) ** 0.5", "2.0 / n"), ("variance used",)),
    ("he_init", "he_normal", ("(2.0 / n) ** 0.5", "(1.0 / n) ** 0.5"), ("gain forgotten",)),
    ("he_init", "he_normal", ('fan == "in"', 'fan == "out"'), ("exchanged",)),
    ("he_init", "he_normal", ("receptive *= n", "pass"), ("kernel size",)),
    ("he_init", "he_normal", ("rng.normal(0.0, (2.0 / n) ** 0.5, size=shape)", "rng.uniform(-(6 / n) ** 0.5, (6 / n) ** 0.5, size=shape)"), ("uniform",)),
    ("residual_block", "block_pad", ("    return out * (out > 0)", "    return out"), ("last ReLU",)),
    ("residual_block", "block_pad", ("out = out + identity\n    return out * (out > 0)", "return out * (out > 0) + identity"), ("before the addition",)),
    ("residual_block", "block_pad", ("np.clip(bn1(conv1(x)), 0, None)", "bn1(conv1(x))"), ("first ReLU",)),
    ("residual_block", "block_pad", ("(0, out.shape[1] - x.shape[1])", "(out.shape[1] - x.shape[1], 0)"), ("zero channels first",)),
    ("residual_block", "block_pad", ("::s, ::s]", ": out.shape[2], : out.shape[3]]"), ("corner",)),
    ("residual_block", "block_pad", ("out = bn2(conv2(", "out = bn1(conv2("), ("batch norm",)),
    ("im2col", "im2col_loops", (".flatten()", ".transpose(1, 2, 0).flatten()"), ("taps before channels",)),
    ("im2col", "im2col_view", ("transpose(0, 2, 3, 1, 4, 5)", "transpose(2, 3, 0, 1, 4, 5)"), ("pixels before images",)),
    ("im2col", "im2col_view", ("transpose(0, 2, 3, 1, 4, 5)", "transpose(0, 3, 2, 1, 4, 5)"), ("column order",)),
    ("im2col", "im2col_view", ("[:, :, ::sh, ::sw]", ""), ("stride ignored",)),
    ("col2im", "col2im_loops", ("x[n, c, h, v] += ", "x[n, c, h, v] = "), ("overwritten",)),
    ("col2im", "col2im_loops", ("(c * KH + p) * KW + q", "(p * KW + q) * C + c"), ("taps before channels",)),
    ("col2im", "col2im_loops", ("i * sh + p - ph, j * sw + q - pw", "i * sh + p, j * sw + q"), ("wrong corner", "padding")),
)  # fmt: skip


def mistaken(solution: str, changes: tuple[str, ...]) -> Callable[..., Any]:
    """The solution with its text changed."""
    text = inspect.getsource(getattr(right, solution))
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text, (solution, old)
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, f"<{solution}>", "exec"), vars(right), names)
    return names[solution]
