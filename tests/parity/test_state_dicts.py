"""State dicts that PyTorch and safetensors wrote, in every network that minires has, and back into PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires import models, weights

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from parity import comparing  # noqa: E402

from minires.verify import torch_networks  # noqa: E402

SAVE = {
    "zip": lambda state, path: torch.save(state, path),
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save_file,
    "checkpoint": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
}
TYPES = ("float32", "bfloat16", "float64", "float16")
BOTTLENECKS = ("resnet50", "resnet101", "resnet152")


@pytest.fixture(autouse=True)
def backend():
    """Files know of no backend: once is enough."""


def options(name, **more):
    narrow = {"width": 4, "num_classes": 5, "in_channels": 2} | ({"hidden": 6} if name.startswith("vgg") else {})
    return narrow | ({"stride_in": "3x3"} if name in BOTTLENECKS else {}) | more


def written(name, path, rng, form, dtype, **more):
    """The peer whose state dict was saved."""
    peer = torch_networks.create(name, **options(name, **more))
    comparing.draw({path: v.numpy() for path, v in peer.state_dict().items() if v.ndim}, rng)
    peer.to(getattr(torch, dtype))
    SAVE[form](peer.state_dict(), path)
    return peer


def same_logits(model, peer, rng):
    x = rng.standard_normal((2, 2, 33, 40))
    peer.eval()
    with torch.no_grad():
        z = peer(torch.from_numpy(x))
    comparing.close(model(mr.tensor(x)).data, z, "logits")


# Every network in some form and type; one network in all of them.
CASES = [(name, list(SAVE)[i % 4], TYPES[i // 4 % 4]) for i, name in enumerate(models.names())]
CASES += [("resnet20", form, dtype) for form in SAVE for dtype in TYPES if ("resnet20", form, dtype) not in CASES]


@pytest.mark.parametrize(("name", "form", "dtype"), CASES)
def test_a_state_dict_of_pytorch(name, form, dtype, rng, tmp_path):
    peer = written(name, tmp_path / "x.pth", rng, form, dtype)
    words = {"stride_in": "3x3"} if name in BOTTLENECKS else {}
    model, match = weights.load(tmp_path / "x.pth", network=name, dtype="float64", **words)
    assert match.complete
    same_logits(model, peer.double(), rng)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["vgg16", "vgg19", "plain20", "resnet20"])
def test_with_and_without_batch_norm(name, batch_norm, rng, tmp_path):
    peer = written(name, tmp_path / "x.pth", rng, "zip", "float32", batch_norm=batch_norm)
    model, _ = weights.load(tmp_path / "x.pth", network=name, dtype="float64")
    same_logits(model, peer.double(), rng)


@pytest.mark.parametrize(("shortcut", "zero_channels"), [("A", "end"), ("A", "both"), ("B", "end"), ("C", "end")])
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50"])
def test_the_shortcuts(name, shortcut, zero_channels, rng, tmp_path):
    peer = written(name, tmp_path / "x.pth", rng, "zip", "float32", shortcut=shortcut, zero_channels=zero_channels)
    words = {"stride_in": "3x3"} if name == "resnet50" else {}
    words |= {"zero_channels": zero_channels} if shortcut == "A" else {}
    model, _ = weights.load(tmp_path / "x.pth", dtype="float64", **words)
    same_logits(model, peer.double(), rng)


@pytest.mark.parametrize("name", models.names())
def test_what_is_converted_goes_back_into_pytorch_bit_by_bit(name, rng, tmp_path):
    peer = written(name, tmp_path / "x.pth", rng, "zip", "float32")
    words = {"stride_in": "3x3"} if name in BOTTLENECKS else {}
    weights.convert(tmp_path / "x.pth", tmp_path / "y.safetensors", network=name, **words)
    other = torch_networks.create(name, **options(name))
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "y.safetensors"), strict=True)
    ours, theirs = other.state_dict(), peer.state_dict()
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        assert torch.equal(ours[path], value), path


def test_bfloat16_is_converted_to_float32_which_holds_it(rng, tmp_path):
    peer = written("resnet20", tmp_path / "x.pth", rng, "zip", "bfloat16")
    weights.convert(tmp_path / "x.pth", tmp_path / "y.safetensors")
    for path, value in safetensors.torch.load_file(tmp_path / "y.safetensors").items():
        assert value.dtype == torch.float32
        assert torch.equal(value, peer.state_dict()[path].float())


def test_a_compiled_network_on_several_devices(rng, tmp_path):
    """The prefixes that torch.compile and DataParallel put in front."""
    peer = torch.nn.DataParallel(torch_networks.create("resnet20", **options("resnet20")))
    torch.save({f"_orig_mod.{path}": value for path, value in peer.state_dict().items()}, tmp_path / "x.pth")
    model, match = weights.load(tmp_path / "x.pth", dtype="float64")
    assert match.prefix == "_orig_mod.module."
    same_logits(model, peer.module.double(), rng)


def test_numbers_and_shapes_that_pytorch_saved_as_views(rng, tmp_path):
    """Channels-last weights and parts of one storage come back as the arrays they are."""
    peer = torch_networks.create("resnet20", **options("resnet20")).to(memory_format=torch.channels_last)
    torch.save(peer.state_dict(), tmp_path / "x.pth")
    model, _ = weights.load(tmp_path / "x.pth")
    for path, value in model.state_dict().items():
        np.testing.assert_array_equal(value, peer.state_dict()[path].numpy())
