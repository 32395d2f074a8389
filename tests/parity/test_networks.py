"""Every network beside its PyTorch definition with the same weights: logits and the gradient of every parameter."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr

torch = pytest.importorskip("torch")

from minires.verify import torch_networks  # noqa: E402

# Through 152 layers in float64 the rounding of both sides stays some orders below this; a wrong term does not.
RELATIVE = 1e-8


def agree(name, rng, size, **options):
    model = mr.models.create(name, **options).astype("float64")
    for path, array in model.state_dict().items():  # nothing at its neutral value
        if path.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif path.endswith(("running_mean", "bias")):
            # Shifted to the positive side most units are linear: a plain network's batch norms then don't amplify
            # rounding by 1.2 a layer (to 1e-7 after 110 of them), and a strict tolerance can be held.
            array[...] = rng.normal(0.5, 0.5, array.shape)
    peer = torch_networks.create(name, **{k: v for k, v in options.items() if k != "dropout"}).double()
    missing, unexpected = peer.load_state_dict(
        {k: torch.from_numpy(v.copy()) for k, v in model.state_dict().items()}, strict=False
    )
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)

    channels = options.get("in_channels", 3)
    x = rng.standard_normal((3, channels, *size))
    for training in (False, True):
        model.train(training)
        peer.train(training)
        model.zero_grad()
        peer.zero_grad()
        y = model(mr.tensor(x))
        z = peer(torch.from_numpy(x.copy()))
        close(y.data, z, f"{name} logits, training={training}")
        cotangent = rng.standard_normal(y.shape)
        y.backward(cotangent)
        z.backward(torch.from_numpy(cotangent))
        theirs = dict(peer.named_parameters())
        ours = dict(model.named_parameters())
        assert ours.keys() == theirs.keys()
        # A gradient that is zero but for rounding (a bias in front of a batch norm) has no scale of its own.
        floor = 1e-6 * max(float(np.abs(p.grad).max()) for p in ours.values())
        for path, parameter in ours.items():
            close(parameter.grad, theirs[path].grad, f"{name} {path}, training={training}", floor)
    for path, buffer in model.named_buffers():  # moved by the training pass
        close(buffer, dict(peer.named_buffers())[path], f"{name} {path}")


def close(ours, theirs, what, floor=0.0):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    worst = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor)
    assert worst <= RELATIVE, f"{what}: relative difference {worst:.1e}"


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"])
def test_cifar_residual(name, shortcut, rng):
    agree(name, rng, (9, 12), shortcut=shortcut, width=5)


@pytest.mark.parametrize("name", ["plain20", "plain32", "plain44", "plain56", "plain110"])
def test_cifar_plain(name, rng):
    agree(name, rng, (12, 9), width=5, in_channels=1, num_classes=4)


def test_zero_channels_on_both_sides(rng):
    agree("resnet20", rng, (8, 8), zero_channels="both", width=3)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_basic_residual(name, shortcut, rng):
    agree(name, rng, (45, 33), shortcut=shortcut, width=6, num_classes=7)


@pytest.mark.parametrize("name", ["plain18", "plain34"])
def test_basic_plain(name, rng):
    agree(name, rng, (33, 45), width=6, num_classes=7)


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_bottleneck(name, shortcut, stride_in, rng):
    agree(name, rng, (40, 33), shortcut=shortcut, stride_in=stride_in, width=4, num_classes=7)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg(name, batch_norm, rng):
    agree(name, rng, (37, 64), width=4, hidden=11, num_classes=7, batch_norm=batch_norm, dropout=0.0)


def test_without_batch_norm(rng):
    agree("resnet20", rng, (8, 8), batch_norm=False, width=4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_full_width(name, rng):
    agree(name, rng, (64, 64), num_classes=1000)
