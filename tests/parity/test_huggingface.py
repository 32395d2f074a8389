"""ResNets of Hugging Face transformers, as it saves them, beside the networks that minires makes of the files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minires as mr
from minires import weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from parity import comparing  # noqa: E402

from minires.weights.recognition import torchvisions_name  # noqa: E402

CONVENTION = "Hugging Face transformers"
DEPTHS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
STRIDES = {"1x1": True, "3x3": False}
CASES = [
    (name, stride_in) for name in DEPTHS for stride_in in (STRIDES if DEPTHS[name][0] == "bottleneck" else (None,))
]


@pytest.fixture(autouse=True)
def backend():
    """Files know of no backend: once is enough."""


def make(name, stride_in, rng, width=4, labels=5, kind="ResNetForImageClassification"):
    """The network in float64, every number drawn."""
    layer_type, depths = DEPTHS[name]
    config = transformers.ResNetConfig(
        num_channels=2,
        embedding_size=width,
        hidden_sizes=[width * (4 if layer_type == "bottleneck" else 1) << stage for stage in range(4)],
        depths=depths,
        layer_type=layer_type,
        downsample_in_bottleneck=STRIDES.get(stride_in, False),
        id2label={n: f"class {n}" for n in range(labels)},
        label2id={f"class {n}": n for n in range(labels)},
    )
    torch.manual_seed(int(rng.integers(2**32)))
    network = getattr(transformers, kind)(config).double()
    prefix = "" if kind == "ResNetForImageClassification" else "resnet."
    state = {path: value.numpy() for path, value in network.state_dict().items() if value.ndim}
    comparing.draw({torchvisions_name(prefix + path, CONVENTION): value for path, value in state.items()}, rng)
    return network


@pytest.mark.parametrize(("name", "stride_in"), CASES)
def test_a_network_saved_by_transformers(name, stride_in, rng, tmp_path):
    peer = make(name, stride_in, rng)
    peer.save_pretrained(tmp_path)  # its config.json holds the stride's place
    model, match = weights.load(tmp_path / "model.safetensors", dtype="float64")
    assert (match.network, match.complete, match.undecided) == (name, True, ())
    assert match.options.get("stride_in") == stride_in
    assert match.classes == tuple(f"class {n}" for n in range(5))
    comparing.agree(model, peer, rng.standard_normal((2, 2, 40, 33)), rng, name, match.names)


def test_without_its_configuration_the_stride_must_be_said(rng, tmp_path):
    peer = make("resnet50", "1x1", rng)
    torch.save(peer.state_dict(), tmp_path / "x.bin")
    with pytest.raises(weights.WeightsMismatch, match="--stride-in"):
        weights.load(tmp_path / "x.bin")
    model, match = weights.load(tmp_path / "x.bin", stride_in="1x1", dtype="float64")
    x = rng.standard_normal((2, 2, 37, 40))
    comparing.agree(model, peer, x, rng, "resnet50", match.names)
    wrong, _ = weights.load(tmp_path / "x.bin", stride_in="3x3", dtype="float64")
    with pytest.raises(AssertionError, match="logits"):  # the comparison sees it
        comparing.agree(wrong, peer, x, rng, "resnet50", match.names)


def test_the_network_without_its_classifier(rng, tmp_path):
    peer = make("resnet18", None, rng, kind="ResNetModel")
    peer.save_pretrained(tmp_path)
    with pytest.raises(weights.WeightsMismatch, match=r"2 missing names: fc\.weight, fc\.bias$"):
        weights.load(tmp_path / "model.safetensors")
    model, match = weights.load(tmp_path / "model.safetensors", strict=False, dtype="float64")
    assert match.missing == ("fc.weight", "fc.bias")
    model.fc.weight.data[...] = 0
    np.fill_diagonal(model.fc.weight.data, 1)  # the classifier now hands on what it is given
    x = rng.standard_normal((2, 2, 33, 40))
    peer.eval()
    with torch.no_grad():
        pooled = peer(torch.from_numpy(x)).pooler_output.flatten(1)
    comparing.close(model(mr.tensor(x)).data[:, : pooled.shape[1]], pooled, "pooled")


def test_pictures_as_transformers_prepares_them(rng, tmp_path):
    make("resnet18", None, rng).save_pretrained(tmp_path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.9).save_pretrained(tmp_path)
    match = weights.recognise(weights.read(tmp_path / "model.safetensors"))
    said = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert match.preprocessing == {
        "resize": 248,
        "crop": 224,
        "mean": tuple(said["image_mean"]),
        "std": tuple(said["image_std"]),
        "interpolation": {2: "bilinear", 3: "bicubic"}[said["resample"]],
    }


@pytest.mark.slow
def test_full_width(rng, tmp_path):
    peer = make("resnet50", "3x3", rng, width=64)
    peer.float().save_pretrained(tmp_path)
    model, match = weights.load(tmp_path / "model.safetensors", dtype="float64")
    assert match.options["width"] == 64
    comparing.agree(model, peer.double(), rng.standard_normal((2, 2, 64, 64)), rng, "resnet50", match.names)
