"""Bugs to plant in layers, blocks, folding, the optimiser and the schedules."""

from __future__ import annotations

from collections.abc import Iterator

from minires import nn, optim
from minires.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut
from minires.nn import fusing, layers
from minires.verify.planted.mutation import Mutation, of


def _mutations() -> Iterator[Mutation]:
    yield from of("BatchNorm2d", nn.BatchNorm2d.forward, [
        ("self.running_mean, self.running_var", "self.running_mean.copy(), self.running_var.copy()"),  # stale
        ("self.running_mean, self.running_var", "self.running_mean, self.running_var.copy()"),
        ("self.running_mean, self.running_var", "self.running_var, self.running_mean"),
        ("self.training", "True"),
        ("self.training", "False"),
        ("self.momentum", "1 - self.momentum"),
        ("self.eps", "1e-5"),
        ("self.weight, self.bias", "None, self.bias"),
    ])  # fmt: skip
    yield from of("ZeroPadShortcut", ZeroPadShortcut.forward, [
        (":: self.stride, :: self.stride", ":: self.stride, self.stride - 1 :: self.stride"),
        (":: self.stride, :: self.stride", ":: self.stride"),
        ("self.stride > 1", "self.stride > 2"),
        ("F.pad(x, self.pad)", "F.pad(Tensor(x.data), self.pad)"),
        ("F.pad(x, self.pad)", "F.pad(x, (self.pad[0], self.pad[1][::-1], *self.pad[2:]))"),
        ("F.pad(x, self.pad)", "F.pad(x, self.pad, 1.0)"),
    ])  # fmt: skip
    yield from of("ZeroPadShortcut", ZeroPadShortcut.__init__, [
        ('new // 2 if zero_channels == "both" else 0', "0"),
        ('new // 2 if zero_channels == "both" else 0', "new // 2"),
    ])  # fmt: skip
    for name, block, last in (
        ("BasicBlock", BasicBlock, "bn2(self.conv2"),
        ("Bottleneck", Bottleneck, "bn3(self.conv3"),
    ):
        yield from of(name, block.forward, [
            ("if self.residual", "if False"),
            ("if self.residual", "if True"),
            ("(x if", "(Tensor(x.data) if"),  # a dropped shortcut gradient
            ("self.downsample(x)", "Tensor(self.downsample(x).data)"),
            ("y + (x", "y - (x"),
            ("return self.relu(y)", "return y"),
            (f"y = self.{last}(y))", f"y = self.relu(self.{last}(y)))"),
            ("self.relu(self.bn1(self.conv1(x)))", "self.bn1(self.conv1(x))"),
            ("self.relu(self.bn1(self.conv1(x)))", "self.relu(self.conv1(x))"),
        ])  # fmt: skip
    yield from of("fuse", fusing._folded, [
        ("var + norm.eps", "var"),
        ("(bias - mean)", "(bias + mean)"),
        ("(bias - mean)", "bias"),
        ("* scale + beta", "* scale"),
        ("* scale + beta", "+ beta"),
        ("gamma / xp.sqrt", "1 / xp.sqrt"),
        ("0.0 if conv.bias is None else conv.bias.data", "0.0"),
        ("weight * scale[:, None, None, None]", "weight"),
        ("xp.sqrt(var + norm.eps)", "(var + norm.eps)"),
        ("copy.deepcopy(conv)", "conv"),
    ])  # fmt: skip
    yield from of("fuse", fusing.fold, [
        ("> 1", "> 2"),
        ("setattr(module, names[1], Folded(conv, norm))", "pass"),
        ("< _depth", "> _depth"),
        ("is_exactly(conv, Conv2d) and", ""),
        ("and is_exactly(norm, BatchNorm2d)", ""),
        ("if left_alone:", "if False:"),
    ])  # fmt: skip
    yield from of("fuse", layers.is_exactly, [
        ("type(layer) in kinds", "isinstance(layer, kinds)"),
        ('and "forward" not in vars(layer)', ""),
    ])  # fmt: skip
    yield from of("fuse", layers.conv_norm_relu, [
        ("y + shortcut", "y"),
        ("is_exactly(relu, ReLU)", "True"),
        ("and is_exactly(conv, Conv2d)", ""),
        ("if norm.training and", "if"),
        ("and not norm.training", ""),
        ("is_exactly(norm, BatchNorm2d) and", ""),
        ("and norm.function is F.batch_norm", ""),
        ("shortcut=shortcut, **statistics, **affine", "**statistics, **affine"),
    ])  # fmt: skip
    yield from of(
        "fuse", fusing._has_fused_form, [('"forward_fused" in vars(defining)', 'hasattr(module, "forward_fused")')]
    )
    yield from of("fuse", fusing.unfold, [
        ("layer.train(module.training)", "layer"),
        ("if not _same(", "if False and not _same("),
    ])  # fmt: skip
    yield from of("SGD", optim.SGD.step, [
        ("p.data, self.weight_decay", "p.data, -self.weight_decay"),
        ("scratch += g", "pass"),
        ("v *= self.momentum", "v *= 1 - self.momentum"),
        ("v *= self.momentum", "pass"),
        ("= g.copy()", "= g.copy() * (1 - self.dampening)"),
        ("xp.multiply(g, 1 - self.dampening", "xp.multiply(g, self.dampening"),
        ("lr * self.momentum if self.nesterov else lr", "lr"),
        ("self.nesterov or v is None", "v is None"),
        ("p.data -= xp.multiply(v", "p.data += xp.multiply(v"),
        ("p.data -= xp.multiply(g", "p.data += xp.multiply(g"),
    ])  # fmt: skip
    yield from of("SGD", optim.SGD._moving, [("if p.grad is not None]", "]")])
    yield from of("SGD", optim.SGD.zero_grad, [("p.grad = None", "pass")])
    yield from of("Adam", optim.Adam.step, [
        ("grad + self.weight_decay * p.data", "grad - self.weight_decay * p.data"),
        ("grad + self.weight_decay * p.data if self.weight_decay else grad", "grad"),
        ("m *= beta1", "m *= beta2"),
        ("(1 - beta1) * g\n", "g\n"),
        ("v *= beta2", "pass"),
        ("(1 - beta2) * g * g", "(1 - beta2) * g"),
        ("(1 - beta1**t)", "(1 - beta1)"),
        ("(1 - beta2**t)", "1"),
        ("+ self.eps", ""),
        ("xp.sqrt(v / (1 - beta2**t)) + self.eps", "xp.sqrt(v / (1 - beta2**t) + self.eps)"),
        ("self._steps[i] += 1", "self._steps[i] = 1"),
        ("p.data -=", "p.data +="),
    ])  # fmt: skip
    yield from of("schedules", optim.Step.__call__, [
        ("iteration >= m", "iteration > m"),
        ("self.factor**drops", "self.factor * drops"),
        ("self.lr * ", ""),
    ])  # fmt: skip
    yield from of("schedules", optim.Step.at.__func__, [("round(m * iterations)", "round(iterations / m)")])  # type: ignore[attr-defined]
    yield from of("schedules", optim.Warmup.__call__, [
        ("iteration < self.ends", "iteration <= self.ends"),
        ("self.schedule(iteration)", "self.lr"),
    ])  # fmt: skip
    yield from of("schedules", optim.Warmup.observe, [
        ("iteration + 1", "iteration + 2"),
        ("/ self.window <", "/ self.window >"),
        ("[-self.window :]", "[: self.window]"),
        ("len(self._errors) == self.window and", ""),
    ])  # fmt: skip


LAYERS: tuple[Mutation, ...] = tuple(_mutations())
