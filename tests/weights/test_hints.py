"""config.json beside a weight file: what of transformers' and timm's is taken, and what is not."""

from __future__ import annotations

import json

import pytest
from weights.named import file, renamed, state

from minires.weights import WeightsError, recognise

HUGGING_FACE = "Hugging Face transformers"


@pytest.fixture
def beside(tmp_path):
    """What a network's file is recognised as, with these configurations beside it."""

    def beside(name, convention, config=None, pictures=None, network=None, **options):
        for path, value in (("config.json", config), ("preprocessor_config.json", pictures)):
            if value is not None:
                (tmp_path / path).write_text(value if isinstance(value, str) else json.dumps(value))
        arrays = renamed(state(name, **options), convention)
        return recognise(file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"}), network=network)

    return beside


def of_transformers(**changes):
    """As transformers writes it for a resnet50 of width 4, but for what it repeats of PyTorch's types and stages."""
    config = {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "depths": [3, 4, 6, 3],
        "embedding_size": 4,
        "hidden_sizes": [16, 32, 64, 128],
        "num_channels": 2,
        "hidden_act": "relu",
        "downsample_in_bottleneck": False,
        "downsample_in_first_stage": False,
        "id2label": {str(n): f"class {n}" for n in range(7)},
    } | changes
    return {key: value for key, value in config.items() if value is not None}


CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "crop_pct": 0.875,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
    "do_normalize": True,
}


@pytest.mark.parametrize(("key", "stride_in"), [(False, "3x3"), (True, "1x1"), (None, "3x3")])
def test_the_configuration_of_transformers_specifies_the_stride(beside, key, stride_in):
    match = beside("resnet50", HUGGING_FACE, of_transformers(downsample_in_bottleneck=key))
    assert (match.complete, match.undecided, match.options["stride_in"]) == (True, (), stride_in)
    assert match.classes == tuple(f"class {n}" for n in range(7))
    assert match.preprocessing == {}


def test_building_blocks_have_no_stride_to_choose(beside):
    config = of_transformers(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[4, 8, 16, 32])
    match = beside("resnet18", HUGGING_FACE, config)
    assert (match.complete, match.notes) == (True, ())
    assert "stride_in" not in match.options


def test_numbered_labels_are_not_names(beside):
    config = of_transformers(id2label={str(n): f"LABEL_{n}" for n in range(7)})
    assert beside("resnet50", HUGGING_FACE, config).classes is None
    assert beside("resnet50", HUGGING_FACE, of_transformers(id2label={"0": "one of seven"})).classes is None


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"depths": [3, 4, 23, 3]}, "depths [3, 4, 23, 3], the file holds [3, 4, 6, 3]"),
        ({"hidden_sizes": [16, 32, 64, 129]}, "hidden_sizes"),
        ({"embedding_size": None}, "embedding_size 64, the file holds 4"),
        ({"layer_type": "basic"}, "layer_type 'basic'"),
    ],
)
def test_a_configuration_of_another_network_is_ignored(beside, change, note):
    match = beside("resnet50", HUGGING_FACE, of_transformers(**change))
    assert match.undecided == ("stride_in",)
    assert note in match.notes[0]
    assert match.classes is None


@pytest.mark.parametrize("change", [{"downsample_in_first_stage": True}, {"hidden_act": "gelu"}])
def test_a_network_that_minires_lacks_does_not_fit(beside, change):
    match = beside("resnet50", HUGGING_FACE, of_transformers(**change))
    assert not match.complete
    assert next(iter(change)) in match.different[0]
    match = beside("resnet50", HUGGING_FACE, of_transformers(**change), network="resnet50")
    assert not match.complete  # the stage computes something else, even if the caller names the network


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"model_type": "resnet"'])
def test_a_broken_configuration(beside, content):
    with pytest.raises(WeightsError, match=r"model\.safetensors: config\.json beside it is not valid JSON"):
        beside("resnet50", HUGGING_FACE, content)


@pytest.mark.parametrize("config", [{"model_type": "vit"}, [1], {"network": "resnet20", "data": "digits"}])
@pytest.mark.parametrize("convention", [HUGGING_FACE, "torchvision"])
def test_other_files_named_config_json_are_ignored(beside, config, convention):
    assert beside("resnet50", convention, config).undecided == ("stride_in",)


def test_the_preprocessing_of_convnext(beside):
    match = beside("resnet50", HUGGING_FACE, of_transformers(), CONVNEXT)
    assert match.preprocessing == {
        "resize": 256,
        "crop": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
    }
    newer = CONVNEXT | {"size": {"shortest_edge": 288}, "crop_pct": 0.95, "resample": 2}
    newer |= {"image_processor_type": "ConvNextImageProcessor", "rescale_factor": 1 / 255}
    match = beside("resnet50", HUGGING_FACE, of_transformers(), newer)
    assert [match.preprocessing[key] for key in ("resize", "crop", "interpolation")] == [303, 288, "bilinear"]


@pytest.mark.parametrize(
    "change",
    [
        {"feature_extractor_type": "ViTImageProcessor"},
        {"size": {"shortest_edge": 384}},  # squeezed, not cut
        {"size": {"height": 224, "width": 224}},
        {"size": "large"},
        {"crop_pct": 0},
        {"crop_pct": 1e-300},
        {"rescale_factor": 1},
        {"do_normalize": False},
    ],
)
def test_unknown_preprocessing_is_ignored(beside, change):
    match = beside("resnet50", HUGGING_FACE, of_transformers(), CONVNEXT | change)
    assert match.complete
    assert match.preprocessing == {}
    assert "preprocessor_config.json is ignored" in match.notes[0]


# -- timm

TIMM = {
    "architecture": "resnet50",
    "num_classes": 7,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
    "label_names": ["a", "b", "c", "d", "e", "f", "g"],
}


def test_the_configuration_of_timm_specifies_the_stride(beside):
    match = beside("resnet50", "torchvision", TIMM)
    assert (match.complete, match.undecided, match.options["stride_in"]) == (True, (), "3x3")
    assert match.convention == "timm"
    assert match.preprocessing == {
        "resize": 235,
        "crop": 224,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    assert match.classes == tuple("abcdefg")


@pytest.mark.parametrize(
    ("name", "architecture"), [("vgg16", "vgg16"), ("vgg19", "vgg19_bn"), ("resnet18", "resnet18")]
)
def test_the_other_networks_of_timm(beside, name, architecture):
    convention = "timm" if name.startswith("vgg") else "torchvision"
    match = beside(name, convention, {"architecture": architecture})
    assert (match.complete, match.convention, match.notes) == (True, "timm", ())


def test_a_variant_of_timm_with_the_same_names_and_shapes(beside):
    """ResNet-AA and -blur pool before they subsample: the arrays do not show it."""
    match = beside("resnet50", "torchvision", {"architecture": "resnetblur50"})
    assert not match.complete
    assert match.different == ("config.json describes timm's 'resnetblur50', which minires does not have",)
    match = beside("resnet50", "torchvision", {"architecture": "resnetblur50"}, network="resnet50")
    assert not match.complete


def test_a_timm_configuration_of_another_network_is_ignored(beside):
    match = beside("resnet101", "torchvision", TIMM)
    assert (match.complete, match.undecided) == (True, ("stride_in",))
    assert "config.json is ignored: it describes a resnet50, the file holds a resnet101" in match.notes[0]


def test_timm_with_values_of_other_types(beside):
    for invalid in (
        "text",
        {"input_size": "224", "mean": [None], "std": 3, "crop_pct": "x"},
        {"input_size": [3, 2, 1]},
    ):
        match = beside("resnet50", "torchvision", TIMM | {"pretrained_cfg": invalid, "label_names": [1] * 7})
        assert match.complete
        assert match.preprocessing == {}
        assert match.classes is None
