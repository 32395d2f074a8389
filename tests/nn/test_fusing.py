"""Batch norm folded into convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from lived import lived

import minires as mr


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet20", {"width": 4}, 12),
        ("resnet20", {"width": 4, "shortcut": "C"}, 9),
        ("plain20", {"width": 4}, 12),
        ("resnet18", {"width": 4, "num_classes": 7}, 40),
        ("resnet50", {"width": 4, "num_classes": 7, "stride_in": "3x3"}, 40),
        ("vgg16", {"width": 2, "num_classes": 7, "hidden": 9, "batch_norm": True}, 32),
    ],
)
def test_outputs_are_the_same_and_no_batch_norm_is_left(rng, name, options, size):
    model = lived(mr.models.create(name, **options), rng).eval()
    x = mr.tensor(rng.standard_normal((3, 3, size, size + 1)).astype(np.float32))
    expected = model(x).data
    assert model.fuse() is model
    found = model(x).data
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert not any(isinstance(module, mr.nn.BatchNorm2d) for module in model.modules())
    assert not any("running" in key for key in model.state_dict())
    assert np.array_equal(model.fuse()(x).data, found)  # nothing is left to fold


def test_bias_groups_eps_and_float64(rng):
    layers = mr.nn.Conv2d(4, 6, (3, 2), stride=(2, 1), groups=2), mr.nn.BatchNorm2d(6, eps=0.5), mr.nn.ReLU()
    model = lived(mr.nn.Sequential(*layers), rng).eval().astype("float64")
    x = mr.tensor(rng.standard_normal((2, 4, 7, 5)))
    expected = model(x).data
    found = model.fuse()(x).data
    assert np.linalg.norm(found - expected) <= 1e-14 * np.linalg.norm(expected)
    assert [type(module).__name__ for module in model._children.values()] == ["Conv2d", "Folded", "ReLU"]
    assert model[0].bias.dtype == np.float64


def test_it_goes_into_evaluation_mode(rng):
    model = mr.models.create("resnet20", width=2)
    model.train().fuse()
    assert not any(module.training for module in model.modules())


class Undeclared(mr.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv(self.bn(x))  # the other way round


def test_what_is_not_declared_is_left_alone_with_one_warning(rng):
    pair = mr.nn.Sequential(mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3))
    model = lived(mr.nn.Sequential(Undeclared(), Undeclared(), pair), rng).eval()
    x = mr.tensor(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    expected = model[1](model[0](x)).data
    with pytest.warns(UserWarning, match="left pairs") as caught:
        model.fuse()
    assert np.array_equal(model[1](model[0](x)).data, expected)
    (warning,) = caught
    explanation = str(warning.message)
    assert "\n  0.bn: Undeclared declares no normed\n  1.bn: Undeclared declares no normed\n" in explanation
    assert "Sequential" in explanation
    assert "normed = ((" in explanation
    assert "2." not in explanation
    assert warning.filename == __file__


def test_a_class_that_declares_no_pair_is_left_alone_without_a_warning(rng):
    class Declared(Undeclared):
        normed = ()

    model = lived(Declared(), rng).eval()
    x = mr.tensor(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    assert np.array_equal(model(x).data, model.fuse()(x).data)  # a warning would be an error here


def shared_layers():
    conv, norm, tied = mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3), mr.nn.Conv2d(3, 3, 1)
    tied.weight = conv.weight
    pair = mr.nn.Sequential(mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3))
    return mr.nn.Sequential(conv, norm, mr.nn.Conv2d(3, 3, 1), norm, pair, conv, tied, pair)


def test_a_layer_that_is_used_elsewhere_too_is_unchanged_there(rng):
    model = lived(shared_layers(), rng).eval()
    elsewhere = model[0], model[1], model[6]
    before = [{name: array.copy() for name, array in layer.state_dict().items()} for layer in elsewhere]
    x = mr.tensor(rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    expected = model(x).data
    found = model.fuse()(x).data
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert not any(isinstance(module, mr.nn.BatchNorm2d) for module in model.modules())
    for layer, state in zip(elsewhere, before, strict=True):
        assert all(np.array_equal(array, state[name]) for name, array in layer.state_dict().items())


class Twice(mr.nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2.0


class Negative(mr.nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * -1.0


class Halved(mr.nn.Sequential):
    def forward(self, x):
        return self[1](self[0](x) * 0.5)


class Both(mr.nn.Module):
    normed = (("conv", "first"), ("conv", "second"))

    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3), mr.nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.first(y) + self.second(y)


def patched():
    conv = mr.nn.Conv2d(3, 3, 1)
    conv.forward = lambda x: x
    return conv


@pytest.mark.parametrize(
    ("make", "explanation"),
    [
        (lambda: mr.nn.Sequential(Twice(3, 3, 1), mr.nn.BatchNorm2d(3)), "own.0 and own.1: a forward of its own in Tw"),
        (lambda: mr.nn.Sequential(mr.nn.Conv2d(3, 3, 1), Negative(3)), "a forward of its own in Conv2d or Negative"),
        (lambda: mr.nn.Sequential(patched(), mr.nn.BatchNorm2d(3)), "a forward of its own"),
        (lambda: Halved(mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3)), "Halved overrides forward without"),
        (Both, "own.conv and own.first: one of them is in several pairs"),
    ],
)
def test_a_pair_that_may_compute_something_else_is_left_alone_with_a_warning(rng, make, explanation):
    model = mr.nn.Sequential(mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3))
    model.own = make()
    model = lived(model, rng).eval()
    x = mr.tensor(rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    expected = model.own(x).data
    with pytest.warns(UserWarning, match=explanation) as caught:
        model.fuse()
    assert caught[0].filename == __file__
    assert np.array_equal(model.own(x).data, expected)
    assert isinstance(model[1], mr.nn.Identity)  # the others are folded


def test_a_subclass_that_declares_its_pairs_is_folded(rng):
    class Own(Halved):
        normed = (("1", "2"),)

        def forward(self, x):
            return self[2](self[1](self[0](x) * 0.5))

    model = lived(Own(mr.nn.ReLU(), mr.nn.Conv2d(3, 3, 1), mr.nn.BatchNorm2d(3)), rng).eval()
    x = mr.tensor(rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    expected = model(x).data
    found = model.fuse()(x).data
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert isinstance(model[2], mr.nn.Identity)


def test_a_child_that_is_replaced_keeps_its_place():
    model = mr.nn.Sequential(mr.nn.Conv2d(3, 3, 1), mr.nn.ReLU())
    setattr(model, "0", mr.nn.Identity())
    assert [type(module).__name__ for module in model._children.values()] == ["Identity", "ReLU"]


# -- undone


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet20", {"width": 4, "shortcut": "C"}, 9),
        ("vgg16", {"width": 2, "num_classes": 7, "hidden": 9, "batch_norm": True}, 32),
    ],
)
def test_fuse_false_restores_every_bit_and_trains_on(rng, name, options, size):
    model = lived(mr.models.create(name, **options), rng).eval()
    x = mr.tensor(rng.standard_normal((3, 3, size, size + 1)).astype(np.float32))
    before, expected = {k: v.copy() for k, v in model.state_dict().items()}, model(x).data
    parameters = list(model.parameters())
    assert model.fuse().fuse(False) is model
    assert list(model.state_dict()) == list(before)
    assert all(np.array_equal(array, before[key]) for key, array in model.state_dict().items())
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    np.testing.assert_array_equal(model(x).data, expected)
    assert not any(module.fused for module in model.modules())


def test_fuse_false_refuses_where_the_folded_weights_have_changed(rng):
    model = lived(mr.models.create("resnet20", width=2), rng).eval().fuse()
    kept = {k: v.copy() for k, v in model.state_dict().items()}
    model.layer2[0].conv2.bias.data[1] += 1
    with pytest.raises(ValueError, match=r"^layer2\.0\.conv2 has changed since batch norm was folded into it"):
        model.fuse(False)
    assert list(model.state_dict()) == list(kept)  # nothing was unfolded
    model.load_state_dict(kept)
    model.fuse(False)
    with pytest.raises(ValueError, match="has changed"):
        model.fuse().astype("float64").fuse(False)


def test_fuse_false_has_no_other_option(rng):
    with pytest.raises(ValueError, match="training"):
        mr.models.create("resnet20", width=2).fuse(False, training=True)
    with pytest.raises(TypeError, match="on must be true or false"):
        mr.models.create("resnet20", width=2).fuse("yes")
