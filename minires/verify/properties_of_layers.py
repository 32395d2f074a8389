"""Properties of layers, blocks, folding, the optimisers and the schedules, beyond those of their operations.

Each function checks one property and raises AssertionError.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import minires.functional as F
from minires import nn, optim
from minires.arrays import Array
from minires.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut, make_shortcut
from minires.tensor import Tensor
from minires.verify.properties import Property, close, expect, gradient


def _lived(module: Any, rng: np.random.Generator) -> Any:
    """The module in float64, with random statistics and weights: as after training, none of them is 0 or 1."""
    module = module.astype("float64")
    for name, array in module.state_dict().items():
        positive = name.endswith("running_var")
        array[...] = rng.uniform(0.3, 3, array.shape) if positive else rng.standard_normal(array.shape)
    return module


def batch_norm_moves_its_statistics(rng: np.random.Generator) -> None:
    layer = _lived(nn.BatchNorm2d(3, eps=0.1, momentum=0.3), rng).train()
    x = rng.standard_normal((2, 3, 4, 5)) * 2 + 1
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    expected = 0.7 * mean + 0.3 * x.mean((0, 2, 3)), 0.7 * var + 0.3 * x.var((0, 2, 3), ddof=1)
    y = layer(Tensor(x)).data
    for name, value in zip(("running_mean", "running_var"), expected, strict=True):
        found = layer.state_dict()[name]
        expect(close(found, value), f"after a training step {name} must be {value}, is {found}")
    _expect_normalised(layer, x, x.mean((0, 2, 3)), x.var((0, 2, 3)), y, "in training its batch's")


def batch_norm_uses_its_statistics(rng: np.random.Generator) -> None:
    layer = _lived(nn.BatchNorm2d(3, eps=0.1), rng).eval()
    x = rng.standard_normal((2, 3, 4, 5))
    kept = layer.running_mean.copy(), layer.running_var.copy()
    _expect_normalised(layer, x, *kept, layer(Tensor(x)).data, "in evaluation the running")
    expect(close(layer.running_mean, kept[0]) and close(layer.running_var, kept[1]), "evaluation moved the statistics")


def _expect_normalised(layer: nn.BatchNorm2d, x: Array, mean: Array, var: Array, y: Array, whose: str) -> None:
    columns = (v[:, None, None] for v in (mean, var, layer.weight.data, layer.bias.data))
    mean, var, weight, bias = columns
    expected = (x - mean) / np.sqrt(var + 0.1) * weight + bias
    expect(close(y, expected), f"BatchNorm2d must use {whose} statistics, its eps, its weight and its bias")


def zero_channels_stand_where_they_should(rng: np.random.Generator) -> None:
    """Option A: x[n, c, i·s, j·s] in channel c (for "both": c + half of the new channels), zeros elsewhere."""
    for where, before in (("end", 0), ("both", 2)):
        for stride in (1, 2, 3):
            x = Tensor(rng.standard_normal((2, 3, 5, 7)), requires_grad=True)
            y = ZeroPadShortcut(3, 8, stride, where)(x)
            expected, grad = np.zeros((2, 8, -(-5 // stride), -(-7 // stride))), np.zeros(x.shape)
            cotangent = rng.standard_normal(expected.shape)
            for n, c, i, j in np.ndindex(2, 3, *expected.shape[2:]):
                expected[n, before + c, i, j] = x.data[n, c, i * stride, j * stride]
                grad[n, c, i * stride, j * stride] = cotangent[n, before + c, i, j]
            expect(close(y.data, expected), f"ZeroPadShortcut(3, 8, {stride}, {where!r}) moved or changed x")
            expect(
                close(gradient(y, x, cotangent), grad),
                "ZeroPadShortcut must send the gradient to the pixels that it selects and to no other",
            )


def _check_block(block: Any, stages: tuple[tuple[str, str], ...], rng: np.random.Generator) -> None:
    """Compares a block's output and gradient with the formula y = relu(F(x) + shortcut(x)), written out."""
    block = _lived(block, rng).eval()
    x = rng.standard_normal((2, 4, 5, 6))
    results = []
    for written_out in (True, False):
        leaf = Tensor(x.copy(), requires_grad=True)
        if written_out:
            y = leaf
            for conv, norm in stages:
                y = getattr(block, norm)(getattr(block, conv)(y))
                y = F.relu(y) if conv != stages[-1][0] else y
            y = F.relu(y + (leaf if block.downsample is None else block.downsample(leaf)) if block.residual else y)
        else:
            y = block(leaf)
        cotangent = np.random.default_rng(1).standard_normal(y.shape)
        results.append((y.data, gradient(y, leaf, cotangent)))
    for name, expected, found in zip(("output", "gradient"), *results, strict=True):
        expect(close(found, expected), f"{name} of {type(block).__name__} must be that of relu(F(x) + shortcut(x))")


def basic_block_is_equation_1(rng: np.random.Generator) -> None:
    stages = BasicBlock.normed
    _check_block(BasicBlock(4, 4), stages, rng)
    _check_block(BasicBlock(4, 8, 2, make_shortcut("B", 4, 8, 2, "end", True)), stages, rng)
    _check_block(BasicBlock(4, 8, 2, make_shortcut("A", 4, 8, 2, "end", True)), stages, rng)
    _check_block(BasicBlock(4, 4, residual=False), stages, rng)


def bottleneck_is_equation_1(rng: np.random.Generator) -> None:
    stages = Bottleneck.normed
    _check_block(Bottleneck(4, 1), stages, rng)
    _check_block(Bottleneck(4, 2, 2, make_shortcut("B", 4, 8, 2, "end", True)), stages, rng)
    _check_block(Bottleneck(4, 1, residual=False), stages, rng)


def folding_changes_no_output(rng: np.random.Generator) -> None:
    for bias in (False, True):
        layers = nn.Conv2d(4, 6, (3, 2), groups=2, bias=bias), nn.BatchNorm2d(6, eps=0.5), nn.ReLU()
        model = _lived(nn.Sequential(*layers), rng).eval()
        x = Tensor(rng.standard_normal((2, 4, 7, 5)))
        expected = model(x).data
        found = model.fuse()(x).data
        expect(close(found, expected), "folding batch norm into the preceding convolution changed the output")
        expect(not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "a batch norm was not folded")


def folding_leaves_shared_layers_alone(rng: np.random.Generator) -> None:
    conv, norm, tied = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
    tied.weight = conv.weight
    model = _lived(nn.Sequential(conv, norm, nn.Conv2d(2, 2, 1), norm, conv, tied), rng).eval()
    x = Tensor(rng.standard_normal((2, 2, 3, 4)))
    expected = model(x).data
    expect(close(model.fuse()(x).data, expected), "folding changed a layer that is used twice")


def folding_leaves_other_forwards_alone(rng: np.random.Generator) -> None:
    class Twice(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2.0

    class Negative(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * -1.0

    class Halved(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x) * 0.5)

    class Both(nn.Module):
        normed = (("conv", "first"), ("conv", "second"))

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.first(y) + self.second(y)

    patched = nn.Conv2d(2, 2, 1)
    object.__setattr__(patched, "forward", lambda x: x)
    x = Tensor(rng.standard_normal((2, 2, 3, 4)))
    for own in (
        nn.Sequential(Twice(2, 2, 1), nn.BatchNorm2d(2)),
        nn.Sequential(nn.Conv2d(2, 2, 1), Negative(2)),
        nn.Sequential(patched, nn.BatchNorm2d(2)),
        Halved(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
        Both(),
    ):
        model = _lived(nn.Sequential(own), rng).eval()
        expected = model(x).data
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fuse()
        expect(np.array_equal(model(x).data, expected), f"folding changed {type(own).__name__}'s output")
        expect("left pairs" in "".join(str(w.message) for w in caught), "folding left a pair alone without a warning")


def sgd_steps_by_its_formula(rng: np.random.Generator) -> None:
    for momentum, decay, nesterov, dampening in (
        (0.0, 0.0, False, 0.0), (0.0, 0.01, False, 0.0), (0.9, 0.01, False, 0.0), (0.9, 0.02, True, 0.0),
        (0.8, 0.0, False, 0.3),
    ):  # fmt: skip
        start = rng.standard_normal(7)
        p = Tensor(start.copy(), requires_grad=True)
        still = Tensor(start.copy(), requires_grad=True)  # has no gradient
        step = optim.SGD([p, still], 0.1, momentum, decay, nesterov, dampening)
        expected, velocity = start.copy(), np.zeros(7)
        for number in range(4):
            p.grad = rng.standard_normal(7)
            g = p.grad + decay * expected
            velocity = momentum * velocity + (g if number == 0 else (1 - dampening) * g)
            expected = expected - step.lr * (g + momentum * velocity if nesterov else velocity if momentum else g)
            step.step()
            settings = f"SGD with {momentum=}, weight decay {decay}, {nesterov=}, {dampening=}, step {number}"
            expect(close(p.data, expected), f"{settings}: p must be {expected}, is {p.data}")
            if number == 1:
                step.lr = 0.03
        expect(close(still.data, start), "SGD moved a parameter that has no gradient")
        step.zero_grad()
        expect(p.grad is None, "zero_grad left a gradient")


def adam_steps_by_its_formula(rng: np.random.Generator) -> None:
    for (beta1, beta2), eps, decay in (((0.9, 0.999), 1e-8, 0.0), ((0.5, 0.8), 0.1, 0.02)):
        start = rng.standard_normal(7)
        p, still = (Tensor(start.copy(), requires_grad=True) for _ in range(2))
        adam = optim.Adam([still, p], 0.1, (beta1, beta2), eps, decay)
        expected, m, v = start.copy(), np.zeros(7), np.zeros(7)
        for t in range(1, 5):
            p.grad = rng.standard_normal(7)
            g = p.grad + decay * expected
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            expected = expected - adam.lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
            adam.step()
            settings = f"Adam with betas {beta1} and {beta2}, {eps=}, weight decay {decay}, step {t}"
            expect(close(p.data, expected), f"{settings}: p must be {expected}, is {p.data}")
            if t == 2:
                adam.lr = 0.03
        expect(close(still.data, start), "Adam moved a parameter that has no gradient")
        state = adam.state_dict()
        expect(set(state) == {"step.1", "exp_avg.1", "exp_avg_sq.1"}, f"Adam's state holds {', '.join(state)}")
        expect(close(state["exp_avg.1"], m) and close(state["exp_avg_sq.1"], v), "Adam's state must hold its averages")


def rates_drop_at_their_milestones(rng: np.random.Generator) -> None:
    step = optim.Step.at(0.1, [0.5, 75], 100, factor=0.2)
    for iteration, rate in ((0, 0.1), (49, 0.1), (50, 0.02), (74, 0.02), (75, 0.004), (1000, 0.004)):
        found = step(iteration)
        expect(abs(found - rate) <= 1e-12, f"at iteration {iteration} Step must give {rate}, gives {found}")


def warm_up_ends(rng: np.random.Generator) -> None:
    fixed = optim.Warmup(optim.Constant(0.1), 0.01, iterations=3)
    expect([fixed(i) for i in range(5)] == [0.01] * 3 + [0.1] * 2, "a warm-up of 3 iterations must last three")
    by_error = optim.Warmup(optim.Constant(0.1), 0.01, until_error=80)
    for iteration in range(100):
        when = f"at iteration {iteration} of errors that fall below 80 % on average at iteration 69"
        expect(by_error(iteration) == (0.01 if iteration < 70 else 0.1), f"Warmup gave a wrong rate {when}")
        # at iteration 69 the window of 50 holds 26 errors of 70 and 24 of 90: below 80 for the first time
        by_error.observe(iteration, 90.0 if iteration < 44 else 70.0)


def the_fused_form_computes_the_same_bits(rng: np.random.Generator) -> None:
    class Own:
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2.0  # type: ignore[misc]

    class Conv(Own, nn.Conv2d): ...

    class Norm(Own, nn.BatchNorm2d): ...

    class Activation(Own, nn.ReLU): ...

    class Block(Own, BasicBlock): ...

    def halved(*arguments: Any) -> Tensor:
        return F.batch_norm(*arguments) * 0.5

    changes: list[tuple[str, Any]] = [
        ("", None), ("conv1", Conv(2, 2, 3, padding=1)), ("bn2", Norm(2)), ("relu", Activation()),
        ("bn1.function", halved), ("forward", lambda x: x * 3.0),
    ]  # fmt: skip
    for kind in (BasicBlock, Block):
        for place, change in changes:
            block = kind(2, 2, downsample=nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
            owner = block.bn1 if place.startswith("bn1") else block
            if change is not None:
                target = setattr if isinstance(change, nn.Module) else object.__setattr__
                target(owner, place.rpartition(".")[2], change)
            model = _lived(nn.Sequential(block), rng)
            x, cotangent = rng.standard_normal((2, 3, 2, 4, 5))
            for mode in (True, False):
                results = []
                for fused in (False, True):
                    statistics = {name: array.copy() for name, array in model.named_buffers()}
                    images = Tensor(x, requires_grad=True)
                    model.train(mode).fuse(fused, training=fused)
                    y = model(images)
                    y.backward(cotangent)
                    results.append((y.data, images.grad))
                    for name, array in model.named_buffers():
                        array[...] = statistics[name]
                same = all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
                override = f"an overridden {place}" if place else "nothing overridden"
                expect(same, f"the fused form of {kind.__name__} with {override} must be bit-identical")


def fusing_can_be_undone(rng: np.random.Generator) -> None:
    model = _lived(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), rng).eval()
    model.fuse().train().fuse(False)
    expect(all(module.training for module in model.modules()), "fuse(False) restored layers in another mode")
    model.fuse()[0].weight.data[0] += 1
    try:
        model.fuse(False)
    except ValueError:
        return
    expect(False, "fuse(False) discarded weights that changed after folding, without an error")


PROPERTIES_OF_LAYERS: dict[str, tuple[Property, ...]] = {
    "BatchNorm2d": (batch_norm_moves_its_statistics, batch_norm_uses_its_statistics),
    "ZeroPadShortcut": (zero_channels_stand_where_they_should,),
    "BasicBlock": (basic_block_is_equation_1,),
    "Bottleneck": (bottleneck_is_equation_1,),
    "fuse": (
        folding_changes_no_output,
        folding_leaves_shared_layers_alone,
        folding_leaves_other_forwards_alone,
        the_fused_form_computes_the_same_bits,
        fusing_can_be_undone,
    ),
    "SGD": (sgd_steps_by_its_formula,),
    "Adam": (adam_steps_by_its_formula,),
    "schedules": (rates_drop_at_their_milestones, warm_up_ends),
}
