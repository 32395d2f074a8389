"""Bugs to plant in the operations, in the tape, and in the reference backend's array code."""

from __future__ import annotations

from collections.abc import Iterator

from minires import _losses, autograd, ops, parallel
from minires import functional as F
from minires.backends import composed, reference
from minires.backends.reference import conv2d, pool, sums, windows
from minires.ops import add, cross_entropy
from minires.verify.planted.mutation import Mutation, of


def _mutations() -> Iterator[Mutation]:
    yield from of("conv2d", reference.conv2d_forward, [
        ("y += bias", "y -= bias"),
        ("transpose(1, 0, 2)", "reshape(-1, y.shape[0], y.shape[2])"),
    ])  # fmt: skip
    yield from of("conv2d", windows.output_size, [
        ("2 * ph", "ph"),
        ("dw * (KW - 1)", "dh * (KW - 1)"),
        ("// sw + 1", "// sh + 1"),
    ])  # fmt: skip
    yield from of("conv2d", reference.conv2d_backward_weight, [
        ("transpose(0, 3, 1, 2)", "transpose(0, 3, 1, 2)[..., ::-1]"),
        ("stride, padding, dilation, groups)  #", "stride, padding, (1, 1), groups)  #"),
    ])  # fmt: skip
    yield from of("conv2d", reference.conv2d_backward_input, [
        ("[..., ::-1, ::-1]", ""),
        ("flipped.swapaxes(1, 2)", "flipped"),
        ("dilation[0] * (KH - 1) - padding[0]", "dilation[0] * (KH - 1) + padding[0]"),
        ("+= columns", "= columns"),
        ("grad_x[:, ph : ph + H, pw : pw + W]", "grad_x[:, :H, :W]"),
    ])  # fmt: skip
    yield from of("conv2d", reference.conv2d_backward_bias, [
        ("(0, 2, 3)", "(2, 3)"),
        ("sum_axes(grad_output, (0, 2, 3))", "grad_output.mean((0, 2, 3))"),
    ])  # fmt: skip
    yield from of("conv2d", ops.Conv2d.backward, [("x, weight = self.saved", "weight, x = self.saved")])
    yield from of("conv2d", conv2d.im2col, [("KW, groups, C // groups)", "KW, C // groups, groups).swapaxes(5, 6)")])
    yield from of(
        "conv2d",
        windows.windows,
        [("by_column * dw", "by_column"), ("by_row * sh, by_column * sw", "by_row * sw, by_column * sh")],
    )

    yield from of("batch_norm", reference.batch_norm_forward, [
        ("centred = X - along(mean, X)", "centred = X"),
        ("xp.asarray(eps, var.dtype)", "0"),
        ("inv_std * weight", "inv_std"),
        ("Y += along(bias, X)", "Y -= along(bias, X)"),
        ("C) / M\n    inv_std", "C) / (M - 1)\n    inv_std"),
    ])  # fmt: skip
    yield from of("batch_norm", reference.batch_norm_backward, [
        ("grad_X -= along(grad_bias / M, G)", "pass"),
        ("along(-inv_std", "along(inv_std"),
        ("grad_X *= along(scale, G)", "grad_X *= -7 * along(scale, G)"),
        ("centred * along(-inv_std * grad_weight / M, G)", "0 * centred"),
        ("C) * inv_std", "C)"),
    ])  # fmt: skip
    yield from of("batch_norm", ops.BatchNorm.move_statistics, [
        ("M / (M - 1)", "1.0"),
        ("(self.running_var, var,", "(self.running_var, mean,"),
    ])  # fmt: skip
    yield from of("batch_norm", composed.move_statistic, [
        ("batch * correction - running", "batch - running"),
        ("+= momentum *", "+= (1 - momentum) *"),
        ("(batch * correction - running)", "(running - batch * correction)"),
    ])  # fmt: skip
    yield from of("batch_norm_eval", reference.batch_norm_eval_forward, [
        ("xp.asarray(eps, var.dtype)", "0"),
        ("X - along(mean.astype(x.dtype, copy=False), X)", "X + along(mean.astype(x.dtype, copy=False), X)"),
        ("inv_std * weight", "weight"),
        ("Y += along(bias, X)", "pass"),
    ])  # fmt: skip
    yield from of("batch_norm_eval", reference.batch_norm_eval_backward, [
        ("X - along(mean.astype(x.dtype, copy=False), X), C)", "X, C)"),
        ("G * along(scale, G)", "G"),
        ("column_sums(G, C)", "column_sums(X, C)"),
    ])  # fmt: skip
    yield from of("batch_norm_eval", ops.BatchNorm.forward, [
        ("unmoved(self, self.running_mean, self.running_var)", "self.running_mean, self.running_var"),
        ("if not self.training:", "if False:"),
    ])  # fmt: skip

    yield from of("batch_norm_relu", composed.batch_norm_relu_forward, [
        ("backend.relu_forward(y)", "y"),
        ("weight, bias, eps", "weight, None, eps"),
    ])  # fmt: skip
    yield from of("batch_norm_relu", composed.batch_norm_relu_backward, [
        ("backend.relu_backward(grad_output, y)", "grad_output"),
        ("relu_backward(grad_output, y)", "relu_backward(grad_output, -y)"),
        (", kept, weight\n", ", kept, None\n"),
    ])  # fmt: skip
    yield from of("batch_norm_add_relu", composed.batch_norm_add_relu_forward, [
        ("backend.relu_forward(backend.add_forward(y, shortcut))", "backend.add_forward(y, shortcut)"),
        ("relu_forward(backend.add_forward(y, shortcut))", "add_forward(backend.relu_forward(y), shortcut)"),
        ("backend.add_forward(y, shortcut)", "y"),
    ])  # fmt: skip
    yield from of("batch_norm_add_relu", ops.BatchNormAddReLU.backward, [
        ("kept, weight), grad)", "kept, weight), grad_output)"),
        ("batch_norm_backward(grad, kept", "batch_norm_backward(grad_output, kept"),
    ])  # fmt: skip
    yield from of("fused_conv2d", composed.fused_conv2d_forward, [
        ("if relu else y", "if False else y"),
        ("if shortcut is not None:", "if False:"),
        ("if norm is not None:", "if False:"),
        ("x, w, b, *geometry", "x, w, None, *geometry"),
    ])  # fmt: skip
    yield from of("fused_conv2d", ops.FusedConv2d.backward, [
        ("if self.relu else grad_output", "if False else grad_output"),
        ("grad_beta,\n        grad,\n", "grad_beta,\n        grad_output,\n"),
        ("grad_gamma,\n        grad_beta,\n", "grad_beta,\n        grad_gamma,\n"),
        ("conv2d_forward(x, weight, bias, *self", "conv2d_forward(x, weight, None, *self"),
        ("conv2d_backward_bias(grad_conv)", "conv2d_backward_bias(grad)"),
    ])  # fmt: skip

    yield from of("sync_batch_norm", parallel.SyncBatchNorm.forward, [
        ("self.communicator.allreduce(total)", "pass"),
        ("self.communicator.allreduce(squares)", "pass"),
        ("(v + (m - mean) ** 2)", "v"),  # the ranks' means differ
        ("(m - mean) ** 2", "(m - mean)"),
        ("var = squares / values", "var = squares / M"),
        (", total[C]\n", ", M * self.communicator.size\n"),  # as if all ranks had the same number of values
        ("(self.running_mean, mean,", "(self.running_mean, m,"),
        ("squares / (values - 1)", "squares / values"),
        ("squares / (values - 1)", "v"),
        ("M == 1 and values < 2", "M == 1"),
    ])  # fmt: skip
    yield from of("sync_batch_norm", parallel.SyncBatchNorm.backward, [
        ("self.communicator.allreduce(sums)", "pass"),
        ("scale * part / values", "scale * part / (x.size // C)"),
        ("sums[:C], sums[C:]", "sums[C:], sums[:C]"),
        ("(sums[:C], sums[C:])", "(sums[:C], 0 * sums[C:])"),
        ("(sums[:C], sums[C:])", "(0 * sums[:C], sums[C:])"),
        ("grad_x - through", "grad_x + through"),
        ("+ self.eps", ""),
        ("scale if weight is None else scale * weight", "scale"),
        ("through, grad_weight, grad_bias", "through, sums[:C].astype(x.dtype), sums[C:].astype(x.dtype)"),
    ])  # fmt: skip

    yield from of("relu", reference.relu_forward, [
        ("maximum", "minimum"),
        ("array_module(x).maximum(x, x.dtype.type(0))", "abs(x)"),
        ("array_module(x).maximum(x, x.dtype.type(0))", "x * (x > 1e-2)"),
        (".maximum(x, x.dtype.type(0))", ".where(x > 0, x, x.dtype.type(0))"),  # loses NaN
    ])  # fmt: skip
    yield from of("relu", reference.relu_backward, [
        ("y > 0", "y >= 0"),
        ("grad_output, y.dtype.type(0)", "grad_output, grad_output"),
        ("(y > 0,", "(y < 0,"),
    ])  # fmt: skip

    yield from of("max_pool2d", reference.max_pool2d_forward, [
        ("float(\"-inf\") if", "0.0 if"),
        ("~(seen <= y)", "(seen >= y)"),
        ("& (y == y)", ""),
        ("argmax, tap, where", "argmax, 0, where"),
    ])  # fmt: skip
    yield from of("max_pool2d", reference.max_pool2d_backward, [
        ("+= grad", "= grad"),
        ("argmax == tap", "argmax >= tap"),
        ("padding, _margins", "(0, 0), _margins"),
    ])  # fmt: skip
    yield from of("max_pool2d", ops.pool.pooled_size, [
        ("(s - 1 if ceil_mode else 0)", "0"),
        ("(o - 1) * s >= size + p", "False"),
    ])  # fmt: skip
    yield from of("avg_pool2d", reference.avg_pool2d_backward, [
        ("grad_x[:, rows, cols] += share", "grad_x[:, rows, cols] = share"),
        ("share = grad /", "share = -grad /"),
        ("padding, output, count_include_pad", "padding, output, True"),
    ])  # fmt: skip
    yield from of("avg_pool2d", reference.avg_pool2d_forward, [
        ("y += padded", "y = padded"),
        ("output, count_include_pad", "output, not count_include_pad"),
    ])  # fmt: skip
    yield from of("avg_pool2d", pool._window_sizes, [
        ("xp.minimum(begin + k, size + p)", "begin + k"),
        ("xp.minimum(end, size)", "end"),
    ])  # fmt: skip
    yield from of("adaptive_avg_pool2d", pool._bin_sums, [
        ("-(-(i + 1) * n // bins)", "(i + 1) * n // bins"),
        ("begin + step < end", "begin + step <= end"),
        ("i * n // bins, -", "i * (n // bins), -"),
    ])  # fmt: skip
    yield from of("adaptive_avg_pool2d", reference.adaptive_avg_pool2d_backward, [
        ("(H, W), (grad", "(W, H), (grad"),
        ("grad / ", "grad * "),
        ("1, H), 2, W)", "2, H), 1, W)"),
    ])  # fmt: skip

    yield from of(
        "linear",
        reference.linear_forward,
        [("y += bias", "y -= bias"), ("weight.T", "weight.T * 2"), ("y += bias", "pass")],
    )
    yield from of("linear", reference.linear_backward_input, [("grad_output @ weight", "-(grad_output @ weight)")])
    yield from of("linear", reference.linear_backward_weight, [
        (".T @ x", ".T @ -x"),
        ("x.reshape(-1, x.shape[-1])", "x.reshape(x.shape[-1], -1).T"),
    ])  # fmt: skip
    yield from of("linear", composed.linear_backward_bias, [("range(grad_output.ndim - 1)", "range(1)")])

    for name in ("add", "sub", "mul"):
        yield from of(name, add.sum_to, [
            ("sum_axes(grad, repeated, keepdims=True)", "grad.mean(repeated, keepdims=True)"),
            ("tuple(range(leading)) +", "tuple(range(0)) +"),
            ("size == 1 and", "False and"),
        ])  # fmt: skip
    yield from of("add", ops.Add.backward, [("sum_to(grad_output, other_shape)", "-sum_to(grad_output, other_shape)")])
    yield from of("add", reference.add_forward, [("x + other", "x + x")])
    yield from of("sub", ops.Sub.backward, [("-sum_to", "sum_to")])
    yield from of("sub", ops.Sub.forward, [("x - other", "other - x")])
    yield from of("mul", ops.Mul.backward, [("grad_output * other", "grad_output * x")])
    yield from of("mul", ops.Mul.backward, [("grad_output * x", "grad_output")])
    yield from of("neg", ops.Neg.forward, [("return -x", "return x"), ("-x", "-abs(x)"), ("-x", "0 * x")])
    yield from of("neg", ops.Neg.backward, [("-grad_output", "grad_output"), ("-grad_output", "-2 * grad_output")])

    yield from of("div", ops.Div.forward, [("x / other", "other / x"), ("x / other", "x * other")])
    yield from of("div", ops.Div.backward, [
        ("grad_output / other", "grad_output * other"),
        ("-grad_x", "grad_x"),
        ("-grad_x * x / other", "-grad_x * x"),
        ("* x / other", "* other / x"),
        ("sum_to(grad_x, x.shape)", "sum_to(grad_output, x.shape)"),
    ])  # fmt: skip
    yield from of("pow", ops.Pow.forward, [("x**other", "other**x"), ("x**other", "x * other")])
    yield from of("pow", ops.Pow.backward, [
        ("(other - 1)", "other"),
        ("grad_output * other *", "grad_output *"),
        ("xp.where(other == 0, one, x)", "x"),
        ("xp.where(other == 0, one, x)", "abs(xp.where(other == 0, one, x))"),
        ("xp.where((x == 0) & (other >= 0), one, x)", "x"),
        ("grad_output * y *", "grad_output *"),
        ("xp.log(", "xp.log2("),
        ("wants_x, wants_other =", "wants_other, wants_x ="),
    ])  # fmt: skip
    yield from of("matmul", ops.MatMul.forward, [("x @ other", "-(x @ other)"), ("x @ other", "x[..., ::-1] @ other")])
    yield from of("matmul", ops.MatMul.backward, [
        ("grad @ columns", "-grad @ columns"),
        ("columns.swapaxes(-1, -2)", "columns.reshape(*columns.shape[:-2], columns.shape[-1], columns.shape[-2])"),
        ("rows.swapaxes(-1, -2)", "rows.T"),
        ("grad_output[..., None]", "grad_output[None]"),
        ("grad[..., None, :]", "grad[None]"),
        ("sum_to(grad @ columns.swapaxes(-1, -2), rows.shape)", "(grad @ columns.swapaxes(-1, -2))"),
        ("sum_to(rows.swapaxes(-1, -2) @ grad, columns.shape)", "(rows.swapaxes(-1, -2) @ grad)"),
    ])  # fmt: skip
    yield from of("matmul", F.matmul, [("MatMul()(a, b)", "MatMul()(b, a)")])
    for name, operation, wrong in (
        ("exp", ops.Exp, "exp2"), ("log", ops.Log, "log2"), ("sqrt", ops.Sqrt, "cbrt"), ("tanh", ops.Tanh, "arctan"),
    ):  # fmt: skip
        yield from of(name, operation.forward, [
            (f".{name}(x)", f".{wrong}(x)"),
            (f".{name}(x)", f".{name}(1.001 * x)"),
        ])  # fmt: skip
        yield from of(name, operation.backward, [
            ("return grad_output", "return -grad_output"),
            ("return grad_output", "return abs(grad_output)"),
        ])  # fmt: skip
    yield from of("exp", ops.Exp.backward, [("* self.saved", "")])
    yield from of("log", ops.Log.backward, [("/ self.saved", "* self.saved")])
    yield from of("sqrt", ops.Sqrt.backward, [("(2 * self.saved)", "self.saved")])
    yield from of("tanh", ops.Tanh.backward, [
        ("self.saved * self.saved", "self.saved"),
        ("1 - self.saved", "1 + self.saved"),
    ])  # fmt: skip
    yield from of("sigmoid", ops.Sigmoid.forward, [
        ("-abs(x)", "-x"),
        ("-abs(x)", "abs(x)"),
        ("x >= 0", "x <= 0"),
        ("x >= 0, one, e", "x >= 0, e, one"),
        ("(one + e)", "(one + 2 * e)"),
    ])  # fmt: skip
    yield from of("sigmoid", ops.Sigmoid.backward, [("(1 - self.saved)", "(1 + self.saved)"), ("* self.saved *", "*")])
    yield from of("max", ops.Max.forward, [
        ("x.max", "x.min"),
        ("axis=self.axis", "axis=self.axis[:1]"),
        ("if self.keepdims", "if not self.keepdims"),
    ])  # fmt: skip
    yield from of("max", ops.Max.backward, [
        ("(x == y) | (x != x)", "x == y"),
        ("x == y", "x >= y - 1"),
        (" / largest.sum(axis=self.axis, keepdims=True, dtype=x.dtype)", ""),
        ("axis=self.axis", "axis=None"),
        ("where(largest, share, x.dtype.type(0))", "where(largest, -share, x.dtype.type(0))"),
        ("x.dtype.type(0)", "share"),
    ])  # fmt: skip
    yield from of("transpose", ops.Transpose.forward, [
        ("x.transpose(self.axes)", "x.transpose([self.axes.index(i) for i in range(len(self.axes))])"),
        ("x.transpose(self.axes)", "x.reshape([x.shape[i] for i in self.axes])"),
    ])  # fmt: skip
    yield from of("transpose", ops.Transpose.backward, [
        ("[self.axes.index(i) for i in range(len(self.axes))]", "self.axes"),
        ("[self.axes.index(i) for i in range(len(self.axes))]", "self.axes[::-1]"),
        ("return grad_output", "return -grad_output"),
    ])  # fmt: skip

    yield from of("sum", ops.Sum.total, [
        ("self.axis, self.keepdims", "self.axis, True"),
        ("self.axis, self.keepdims", "self.axis[:1], self.keepdims"),
    ])  # fmt: skip
    yield from of("sum", sums.sum_axes, [
        ("axis not in axes", "axis in axes"),
        ("sum_rows(x.transpose(*axes, *kept)", "sum_rows(x[::-1].transpose(*axes, *kept)"),
        ("1 if axis in axes else n", "n"),
    ])  # fmt: skip
    for name in ("sum", "mean"):
        yield from of(name, ops.Sum.backward, [
            ("if i in self.axis", "if i not in self.axis"),
            ("broadcast_to(grad_output.reshape(kept)", "broadcast_to(-grad_output.reshape(kept)"),
        ])  # fmt: skip
    yield from of("mean", ops.Mean.summands, [("self.axis)", "self.axis[:1])"), ("math.prod", "1 + math.prod")])
    yield from of("mean", ops.Mean.forward, [("total / total", "total * total")])
    yield from of("mean", ops.Mean.backward, [("super().backward(grad_output) /", "super().backward(grad_output) *")])

    yield from of("reshape", composed.reshape_forward, [
        ("x.reshape(shape)", "x.reshape(shape, order='F')"),
        ("x.reshape(shape)", "x.reshape(shape, order='A')"),
    ])  # fmt: skip
    yield from of("reshape", ops.Reshape.backward, [
        ("return optional", "return -optional"),
        ("(grad_output, self.saved)", "(grad_output.T, self.saved)"),
    ])  # fmt: skip
    yield from of("reshape", F.reshape, [("x.size // known", "x.size // known + 1")])
    yield from of("flatten", F.flatten, [
        ("x.shape[:start]", "x.shape[: start + 1]"),
        ("x.shape[start:]", "x.shape[start + 1 :]"),
        ("x.ndim)", "x.ndim + 1)"),
        ("(*x.shape[:start]", "(1, *x.shape[:start]"),
        ("(start,) =", "start = 1 or"),
    ])  # fmt: skip
    yield from of("pad", composed.pad_forward, [("before + n + after", "before + n"), ("value,", "0,")])
    yield from of("pad", composed.inside, [("slice(before, before + n)", "slice(0, n)")])
    yield from of("pad", ops.Pad.backward, [
        ("grad_output[self.saved]", "2 * grad_output[self.saved]"),
        ("grad_output[self.saved]", "grad_output[tuple(slice(s.stop - s.start) for s in self.saved)]"),
    ])  # fmt: skip
    yield from of("slice", ops.Slice.forward, [
        ("x[self.index]", "x[self.index][..., ::-1]"),
        ("x[self.index]", "x[::-1][self.index]"),
    ])  # fmt: skip
    yield from of("slice", composed.slice_backward, [
        (".zeros(", ".ones("),
        ("= grad_output\n", "= -grad_output\n"),
        ("grad_input[index] = grad_output", "grad_input.reshape(-1)[: grad_output.size] = grad_output.ravel()"),
    ])  # fmt: skip

    yield from of("softmax", reference.softmax_forward, [
        ("y.sum(axis, keepdims=True)", "y.sum(-1, keepdims=True)"),
        ("x - x.max(axis, keepdims=True)", "x"),
        ("x - x.max(axis, keepdims=True)", "x - x.max()"),  # a row far below the others would be 0/0
    ])  # fmt: skip
    yield from of("softmax", reference.softmax_backward, [
        ("grad_output - (grad_output * y).sum(axis, keepdims=True)", "grad_output"),
        ("(grad_output * y).sum(axis", "grad_output.sum(axis"),
        ("sum(axis, keepdims=True)", "sum(keepdims=True)"),
    ])  # fmt: skip
    yield from of("log_softmax", reference.log_softmax_forward, [
        ("x - x.max(axis, keepdims=True)", "x"),
        ("shifted - xp", "x - xp"),
        ("sum(axis, keepdims=True)", "sum(-1, keepdims=True)"),
    ])  # fmt: skip
    yield from of("log_softmax", reference.log_softmax_backward, [
        (" * grad_output.sum(axis, keepdims=True)", ""),
        ("array_module(y).exp(y)", "y"),
        ("grad_output - ", "grad_output + "),
    ])  # fmt: skip
    yield from of("cross_entropy", reference.cross_entropy_forward, [
        ("-(1 - label_smoothing) * picked", "-picked"),
        ("log_p.mean(1)", "log_p.sum(1)"),
    ])  # fmt: skip
    yield from of("cross_entropy", reference.cross_entropy_backward, [
        ("label_smoothing / log_p.shape[1]", "label_smoothing"),
        ("-= 1 - label_smoothing", "-= 1"),
        ("grad *= grad_loss[:, None]", "grad *= grad_loss.sum()"),
    ])  # fmt: skip
    for name in ("cross_entropy", "nll_loss"):
        yield from of(name, cross_entropy.grad_of_each, [("grad_losses / M if", "grad_losses if")])
        yield from of(name, cross_entropy.class_rows, [("moveaxis(x, 1, -1)", "moveaxis(x, 0, -1)")])
        yield from of(name, cross_entropy.reduced, [("losses.sum()", "losses.sum() / 2")])
        yield from of(name, composed.mean_forward, [("x.mean()", "x.sum() / (x.size + 1)")])
    yield from of("nll_loss", ops.NLLLoss.backward, [("-grad_of_each", "grad_of_each"), ("xp.zeros", "xp.ones")])
    yield from of("nll_loss", ops.NLLLoss.forward, [("-rows[", "-1e-3 - rows[")])
    yield from of("dropout", ops.Dropout.forward, [
        ("1 / keep if keep else 0", "1"),
        ("random.uniform(x.shape) < keep", "random.uniform(x.shape) < self.p"),
        ("random.uniform(", "__import__('numpy').random.default_rng(0).random("),
        ("if keep else 0", ""),
    ])  # fmt: skip
    yield from of("dropout", ops.Dropout.backward, [("* self.saved", ""), ("* self.saved", "* (self.saved != 0)")])

    yield from of("cross_entropy", _losses._of_weighted_labels, [
        ("counts = counts / total", "counts = counts / counts.size"),
        ("xp.where(ignored, xp.zeros((), scores.dtype), counts)", "counts"),
        ("scores.data.argmax(axis=1)", "0 * labels"),
        ("label_smoothing / C", "label_smoothing"),
        ("(1 - label_smoothing) *", "1 *"),
        ("target * weight * share", "target * share"),
        ("1.0 if ignored is None else ~ignored", "1.0"),
        ("kept / total", "kept"),
    ])  # fmt: skip
    yield from of("cross_entropy", _losses._of_probabilities, [
        ("constant(1 - label_smoothing)", "constant(1)"),
        ("constant(label_smoothing / C)", "constant(label_smoothing)"),
        ("constant(C / scores.size)", "constant(1 / scores.size)"),
        ("Tensor(weight.reshape", "Tensor(0 * weight.reshape"),
    ])  # fmt: skip
    yield from of("cross_entropy", _losses._expected, [
        ("ops.Neg()(", "("), ("LogSoftmax(1)", "LogSoftmax(0)"), ("(1,) if reduction", "(0,) if reduction"),
    ])  # fmt: skip
    yield from of("nll_loss", _losses._of_weighted_labels, [
        ("counts = counts / total", "counts = counts / counts.size"),
        ("else weight[labels]", "else weight[labels] * 0 + 1"),
    ])  # fmt: skip
    yield from of("conv2d", F._padded, [
        ("totals[0] % 2), (0, totals[1] % 2)", "totals[1] % 2), (0, totals[0] % 2)"),
        ("(0, totals[0] % 2)", "(totals[0] % 2, 0)"),
        ("totals[1] // 2)", "totals[0] // 2)"),
        ("d * (k - 1)", "d * k - 1"),
    ])  # fmt: skip
    yield from of("conv2d", F._one_image, [("y.shape[1:]", "y.shape[2:]")])
    yield from of("avg_pool2d", ops.pool.window_sizes, [
        ("size + 2 * p - i * s", "size + p - i * s"),
        ("min(k, size + 2 * p - i * s)", "k"),
    ])  # fmt: skip
    yield from of("avg_pool2d", F.avg_pool2d, [
        ("counts / divisor", "1 / divisor"),
        ('count_include_pad or divisor_override is not None', "count_include_pad"),
    ])  # fmt: skip
    yield from of("flatten", F.flatten, [
        ("*tail[end + 1 - start :]", "*tail[end - start :]"),
        ("tail[: end + 1 - start]", "tail"),
    ])  # fmt: skip

    yield from of("shortcut", autograd.backward, [
        ("as_array(parent.backend.add_forward(grads[parent], grad_input))", "grad_input"),
        ("grads[parent] = as_array(parent.backend.add_forward(grads[parent], grad_input))", "pass"),
        ("(-parent.serial, parent)", "(parent.serial, parent)"),
    ])  # fmt: skip
    yield from of("shortcut", autograd._accumulate, [
        ("leaf.grad = as_array(leaf.grad + grad)", "leaf.grad = grad"),
        ("leaf.grad = as_array(leaf.grad + grad)", "pass"),
    ])  # fmt: skip


OPERATIONS: tuple[Mutation, ...] = tuple(_mutations())
