"""Every network beside its PyTorch definition with the same weights: logits and the gradient of every parameter."""

from __future__ import annotations

import pytest

import minires as mr

torch = pytest.importorskip("torch")

from parity import comparing  # noqa: E402

from minires.verify import torch_networks  # noqa: E402


def agree(name, rng, size, **options):
    mr.manual_seed(int(rng.integers(2**32)))
    model = mr.models.create(name, **options).astype("float64")
    comparing.draw(model.state_dict(), rng)
    peer = torch_networks.create(name, **{k: v for k, v in options.items() if k != "dropout"}).double()
    missing, unexpected = peer.load_state_dict(
        {k: torch.from_numpy(v.copy()) for k, v in model.state_dict().items()}, strict=False
    )
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    x = rng.standard_normal((3, options.get("in_channels", 3), *size))
    comparing.agree(model, peer, x, rng, name)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_full_width(name, rng):
    agree(name, rng, (64, 64), num_classes=1000)
