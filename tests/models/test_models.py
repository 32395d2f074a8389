"""Building networks: names, options, errors, geometry."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires.models import BasicBlock, Bottleneck, ZeroPadShortcut

SMALL = {"width": 4, "num_classes": 5}


def small(name, **options):
    extra = {"hidden": 8} if name.startswith("vgg") else {}
    return mr.models.create(name, **SMALL | extra | options)


def test_names():
    assert set(mr.models.names()) == {
        *(f"resnet{d}" for d in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)),
        *(f"plain{d}" for d in (18, 34, 20, 32, 44, 56, 110)),
        "vgg16",
        "vgg19",
    }


@pytest.mark.parametrize("name", mr.models.names())
def test_every_network_runs_on_images_that_are_not_square(name, rng):
    H, W = (33, 41) if name.startswith("vgg") else (17, 12)
    model = small(name, in_channels=2).eval()
    assert model(mr.tensor(rng.standard_normal((2, 2, H, W)).astype(np.float32))).shape == (2, 5)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet50"])
def test_where_projections_stand(name, shortcut):
    model = small(name, shortcut=shortcut)
    projected = {path.rpartition(".downsample")[0] for path, _ in model.named_parameters() if "downsample" in path}
    blocks = [path for path, m in model.named_modules() if isinstance(m, (BasicBlock, Bottleneck))]
    first_of_stage = {f"layer{s}.0" for s in range(1, 5)} & set(blocks)
    if shortcut == "A":
        assert projected == set()
    elif shortcut == "C":
        assert projected == set(blocks)
    else:
        # a bottleneck widens fourfold already in the first stage
        assert projected == first_of_stage - (set() if name == "resnet50" else {"layer1.0"})


def test_stride_in():
    paper, later = small("resnet50"), small("resnet50", stride_in="3x3")
    assert (paper.layer2[0].conv1.stride, paper.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert (later.layer2[0].conv1.stride, later.layer2[0].conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize(("zero_channels", "kept"), [("end", slice(0, 3)), ("both", slice(2, 5))])
def test_option_a_subsamples_and_pads_with_zeros(zero_channels, kept, rng):
    x = rng.standard_normal((2, 3, 5, 4))
    y = ZeroPadShortcut(3, 8, 2, zero_channels)(mr.tensor(x)).data
    expected = np.zeros((2, 8, 3, 2))
    expected[:, kept] = x[:, :, ::2, ::2]
    assert np.array_equal(y, expected)


def test_a_plain_network_is_the_residual_one_without_the_shortcut(rng):
    residual, plain = small("resnet20"), small("plain20")
    plain.load_state_dict(residual.state_dict())  # the same names and shapes
    x = mr.tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32))
    assert not np.allclose(residual.eval()(x).data, plain.eval()(x).data)


def test_torchvisions_names():
    names = set(small("resnet50").state_dict())
    assert {
        "conv1.weight", "bn1.running_mean", "bn1.running_var", "layer1.0.conv1.weight", "layer1.0.bn3.bias",
        "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var", "fc.weight", "fc.bias",
    } <= names  # fmt: skip
    assert not any("relu" in name or "stages" in name for name in names)
    vgg = set(small("vgg16").state_dict())
    assert {"features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.6.bias"} <= vgg


def test_the_same_seed_gives_the_same_weights():
    states = []
    for seed in (3, 3, 4):
        mr.manual_seed(seed)
        states.append(small("resnet20").state_dict()["layer3.1.conv2.weight"])
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_he_initialisation_has_variance_two_over_fan_out():
    mr.manual_seed(0)
    weight = mr.nn.Conv2d(64, 128, 3).weight.data
    # 73,728 draws: the standard deviation of a sample deviation is σ/√(2n), 0.26 % of σ; four of them
    assert abs(weight.std() / np.sqrt(2 / (128 * 9)) - 1) <= 0.0105
    assert abs(weight.mean()) <= 4 * np.sqrt(2 / (128 * 9) / weight.size)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnt50", {}, ValueError, "unknown network 'resnt50'.*Did you mean 'resnet50'"),
        (50, {}, ValueError, "unknown network 50"),
        ("resnet50", {"shortcut": "D"}, ValueError, "shortcut must be one of 'A', 'B', 'C'; got 'D'"),
        ("resnet50", {"stride_in": "2x2"}, ValueError, "stride_in must be one of '1x1', '3x3'; got '2x2'"),
        ("resnet50", {"strid_in": "1x1"}, TypeError, "no option 'strid_in'.*Did you mean 'stride_in'"),
        ("resnet18", {"stride_in": "1x1"}, TypeError, "resnet18 has no option 'stride_in'"),
        ("plain34", {"shortcut": "A"}, TypeError, "plain34 has no option 'shortcut'"),
        ("resnet20", {"zero_channels": "front"}, ValueError, "zero_channels must be one of"),
        ("resnet20", {"width": 0}, ValueError, "width must be at least 1, got 0"),
        ("resnet20", {"num_classes": 2.5}, TypeError, "num_classes must be an integer, got 2.5"),
        ("resnet20", {"in_channels": -1}, ValueError, "in_channels must be at least 1, got -1"),
        ("vgg19", {"dropout": 1.5}, ValueError, "dropout must be"),
    ],
)
def test_wrong_options(name, options, error, message):
    with pytest.raises(error, match=message):
        mr.models.create(name, **options)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 8, 8), (2, 3, 8, 8, 1)])
def test_wrong_images(shape):
    with pytest.raises(ValueError, match=r"x must be \(N, 3, H, W\), got shape"):
        small("resnet20")(mr.tensor(np.zeros(shape, np.float32)))


def test_images_too_small_for_vgg():
    with pytest.raises(ValueError, match="at least 32×32"):
        small("vgg16")(mr.tensor(np.zeros((1, 3, 31, 64), np.float32)))


def test_without_batch_norm():
    model = small("resnet20", batch_norm=False)
    assert not any("bn" in name for name in model.state_dict())
    assert model(mr.tensor(np.ones((1, 3, 8, 8), np.float32))).shape == (1, 5)


def test_options_lists_what_create_takes():
    assert mr.models.options("resnet50")["shortcut"] == "B"
    assert mr.models.options("resnet56")["shortcut"] == "A"
    assert "stride_in" not in mr.models.options("plain18")
