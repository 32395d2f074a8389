"""Whose names, which network, what fits: every network in every convention, and what only looks like one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from weights.named import counters, file, renamed, small, state, their_name

from minires import models, weights
from minires.weights import WeightsMismatch, recognise
from minires.weights.recognition import torchvisions_name, translate

PUBLISHED = Path(__file__).parent / "data" / "resnet20-12fca82f.th"
RESNETS = [name for name in models.names() if not name.startswith("vgg")]
IMAGENET = [name for name in RESNETS if models.input_shape(name)[1] == 224 and name.startswith("resnet")]
CIFAR = [name for name in models.names() if models.input_shape(name)[1] == 32]
VGGS = [name for name in models.names() if name.startswith("vgg")]
HUGGING_FACE = "Hugging Face transformers"

# Every network in every convention that has names for all its parts.
NAMED = [
    *((name, "torchvision") for name in models.names()),
    *((name, "CIFAR, head named linear") for name in CIFAR),
    *((name, "timm") for name in VGGS),
    *((name, HUGGING_FACE) for name in IMAGENET),
]


@pytest.mark.parametrize(("name", "convention"), NAMED)
def test_every_network_in_every_convention(name, convention, rng):
    same_arrays(name, convention, "", rng)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.backbone."])
@pytest.mark.parametrize(
    ("name", "convention"), [("resnet20", "CIFAR, head named linear"), ("resnet50", HUGGING_FACE), ("vgg16", "timm")]
)
def test_prefixes(name, convention, prefix, rng):
    same_arrays(name, convention, prefix, rng)


def same_arrays(name, convention, prefix, rng):
    ours = state(name, rng)
    held = file(counters(renamed(ours, convention, prefix)))
    match = recognise(held, network=name)
    assert (match.network, match.convention, match.prefix) == (name, convention, prefix)
    assert match.complete
    assert match.names.keys() == ours.keys()
    found = match.state_dict(held)
    for path, array in ours.items():
        np.testing.assert_array_equal(found[path], array, strict=True)
    assert match.options.items() >= {k: v for k, v in small(name).items() if k in models.options(name)}.items()


@pytest.mark.parametrize(("name", "convention"), NAMED)
def test_the_network_is_found_without_its_name(name, convention):
    match = recognise(file(renamed(state(name), convention)))
    assert match.network == name.replace("plain", "resnet")
    assert match.complete
    depth = match.network.removeprefix("resnet")
    assert ("stride_in" in match.undecided) == (depth in ("50", "101", "152"))


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "resnet110"])
def test_the_shortcuts(name, shortcut):
    match = recognise(file(state(name, shortcut=shortcut)))
    assert match.complete
    assert match.options["shortcut"] == shortcut


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet34", "vgg16", "vgg19"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_batch_norm(name, batch_norm):
    match = recognise(file(state(name, batch_norm=batch_norm)), network=name)
    assert match.complete
    assert match.options["batch_norm"] is batch_norm


def test_a_file_of_the_cifar_repository_with_projections():
    """kuangliu's and akamaster's option B: shortcut.0 and shortcut.1."""
    match = recognise(file(renamed(state("resnet20", shortcut="B"), "CIFAR, head named linear")))
    assert match.names["layer2.0.downsample.0.weight"] == "layer2.0.shortcut.0.weight"
    assert (match.complete, match.undecided, match.options["shortcut"]) == (True, (), "B")


def test_the_published_resnet20():
    held = weights.read(PUBLISHED)
    match = recognise(held)
    assert (match.network, match.convention, match.prefix) == ("resnet20", "CIFAR, head named linear", "module.")
    wanted = {"in_channels": 3, "width": 16, "num_classes": 10, "shortcut": "A", "zero_channels": "both"}
    assert match.options == wanted | {"batch_norm": True}
    assert (match.complete, match.undecided) == (True, ())
    assert "akamaster" in match.notes[0]


# -- networks and options that names and shapes don't reveal


def test_plain_or_residual():
    held = file(state("plain20"))
    match = recognise(held)
    assert (match.network, match.undecided) == ("resnet20", ("network", "zero_channels"))
    assert match.options["zero_channels"] == "end"
    assert "plain20 has the same names and shapes" in match.notes[0]
    match = recognise(held, network="plain20")
    assert (match.network, match.undecided, match.notes) == ("plain20", (), ())
    assert "shortcut" not in match.options
    match = recognise(held, network="resnet20", zero_channels="both")
    assert (match.options["zero_channels"], match.undecided) == ("both", ())


def test_plain18_is_resnet18_without_projections():
    assert recognise(file(state("plain18"))).undecided == ("network", "zero_channels")
    assert recognise(file(state("resnet18"))).undecided == ()  # its projections distinguish it
    assert recognise(file(state("resnet50", shortcut="A"))).undecided == ("stride_in", "zero_channels")


def test_the_stride_of_bottlenecks():
    held = file(state("resnet50"))
    assert recognise(held).undecided == ("stride_in",)
    assert "stride_in" not in recognise(held).options
    assert "--stride-in" in recognise(held).notes[0]
    match = recognise(held, stride_in="3x3")
    assert (match.undecided, match.options["stride_in"]) == ((), "3x3")
    # PyTorch and every program that writes safetensors use "pt", so it reveals nothing
    assert recognise(file(state("resnet50"), metadata={"format": "pt"})).undecided == ("stride_in",)


def test_arguments_that_do_not_apply():
    for name, words in [
        ("resnet18", {"stride_in": "1x1"}),
        ("vgg16", {"stride_in": "3x3"}),
        ("resnet18", {"zero_channels": "both"}),
        ("plain18", {"zero_channels": "both", "network": "plain18"}),
    ]:
        with pytest.raises(WeightsMismatch, match=f"does not apply to the {name} in x.pth"):
            recognise(file(state(name)), **words)
    with pytest.raises(ValueError, match=r"stride_in must be one of '1x1', '3x3'; got '2x2'"):
        recognise(file(state("resnet50")), stride_in="2x2")
    with pytest.raises(ValueError, match=r"unknown network 'resnet51'.*Did you mean"):
        recognise(file(state("resnet50")), network="resnet51")


# -- what only looks like one of these networks


def changed(name, change, **options):
    arrays = state(name, **options)
    change(arrays)
    return file(arrays)


def drop(*patterns):
    def change(arrays):
        gone = [name for name in arrays if any(re.match(pattern, name) for pattern in patterns)]
        assert gone
        for name in gone:
            del arrays[name]

    return change


def put(**shapes):
    return lambda arrays: arrays.update(
        {name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}
    )


def grouped(arrays):
    for name, array in arrays.items():
        if name.endswith("conv2.weight"):
            arrays[name] = array[:, : array.shape[1] // 2]


def wide(arrays):
    """Twice the filters within each bottleneck."""
    for name, array in arrays.items():
        if re.match(r"layer\d\.\d\.(conv[12]|bn[12])", name):
            arrays[name] = np.repeat(array, 2, 0)
            if "conv2" in name:
                arrays[name] = np.repeat(arrays[name], 2, 1)
        elif name.endswith("conv3.weight"):
            arrays[name] = np.repeat(array, 2, 1)


def deep_stem(arrays):
    put(conv1__0__weight=(2, 2, 3, 3), conv1__3__weight=(2, 2, 3, 3), conv1__6__weight=(4, 2, 3, 3))(arrays)
    del arrays["conv1.weight"]


def pooled_projections(arrays):
    for name in [name for name in arrays if ".downsample." in name]:
        arrays[re.sub(r"downsample\.(\d)", lambda m: f"downsample.{int(m[1]) + 1}", name) + "~"] = arrays.pop(name)
    for name in [name for name in arrays if name.endswith("~")]:
        arrays[name[:-1]] = arrays.pop(name)


NEAR = {
    "a block less": (
        "resnet34",
        drop(r"layer3\.5\."),
        ["3, 4, 5, 3 building blocks, resnet34 has 3, 4, 6, 3", "10 missing names: layer3.5.conv1.weight"],
    ),
    "one shape": (
        "resnet18",
        put(layer2__1__conv2__weight=(8, 8, 5, 5)),
        ["1 difference: 'layer2.1.conv2.weight' is (8, 8, 5, 5), resnet18 has (8, 8, 3, 3)"],
    ),
    "no head": ("resnet18", drop("fc"), ["resnet18: 2 missing names: fc.weight, fc.bias"]),
    "one more": ("resnet20", put(layer1__0__scale=(3,)), ["resnet20: 1 name left over: layer1.0.scale"]),
    "a CIFAR stem": (
        "resnet18",
        put(conv1__weight=(4, 2, 3, 3)),
        ["'conv1.weight' is (4, 2, 3, 3), resnet18 has (4, 2, 7, 7)"],
    ),
    "ResNeXt": ("resnet50", grouped, ["16 differences: 'layer1.0.conv2.weight' is (4, 2, 3, 3)", "a ResNeXt)"]),
    "wide": ("resnet50", wide, ["'layer1.0.conv1.weight' is (8, 4, 1, 1)", "wide ResNet"]),
    "SENet": (
        "resnet50",
        put(layer1__0__se__fc1__weight=(1, 16, 1, 1), layer1__0__se__fc1__bias=(1,)),
        ["2 names left over: layer1.0.se.fc1.weight, layer1.0.se.fc1.bias", "SENet"],
    ),
    "ResNet-D": ("resnet50", pooled_projections, ["4 differences: 'layer1.0.downsample.1.weight'", "a ResNet-D"]),
    "folded": ("resnet18", put(layer1__0__conv1__bias=(4,)), ["1 name left over: layer1.0.conv1.bias", "folded"]),
    "VGG-13": (
        "vgg16",
        drop(r"features\.(28|26)\."),
        ["2, 2, 3, 3, 1 convolutions, vgg16 has 2, 2, 3, 3, 3", "4 missing names: features.26.weight"],
    ),
    "another width": ("vgg19", put(features__0__weight=(5, 2, 3, 3)), ["'features.0.bias' is (4,), vgg19 has (5,)"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR)
def test_a_near_miss_is_described_in_one_line(case):
    name, change, words = NEAR[case]
    held = changed(name, change)
    match = recognise(held)
    assert (match.network, match.complete) == (name, False)
    line = match.differences()
    for word in words:
        assert word in f"{match.network}: {line}"
    assert "\n" not in line
    assert len(line) < 700


def test_many_differences_are_counted_not_listed():
    match = recognise(file(state("resnet50")), network="resnet18")
    line = match.differences()
    assert "3, 4, 6, 3 bottlenecks, resnet18 has 2, 2, 2, 2 building blocks" in line
    assert re.search(r"\d+ names left over: layer1.0.conv3.weight, .*, .*, …", line)


def test_the_nearest_network_of_an_unusual_depth():
    """ResNet-26 of timm: two bottlenecks in each stage."""
    match = recognise(changed("resnet50", drop(r"layer1\.2", r"layer2\.[23]", r"layer3\.[2-5]", r"layer4\.2")))
    assert match.network == "resnet50"
    assert match.different == ("2, 2, 2, 2 bottlenecks, resnet50 has 3, 4, 6, 3 bottlenecks",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["blocks.0.attn.qkv.weight", "head.bias"], "does not look like a network of minires: a transformer"),
        (
            [
                "features.conv0.weight",
                *(f"features.denseblock1.denselayer1.{name}.weight" for name in ("conv1", "x", "y")),
            ],
            "a DenseNet",
        ),
        (
            ["a.weight", "b.weight"],
            "its names are not those of torchvision, timm or transformers ('a.weight'",
        ),
        (["fc.weight", "fc.bias"], "does not look like a network"),
        (
            ["conv1.weight", "layer1.0.conv1.weight_packed"],
            "does not fit any network of minires: its weights are quantised",
        ),
        (["conv1.weight_g", "conv1.weight_v"], "weight norm"),
        (["conv1.weight", "conv1.weight_mask"], "pruned"),
        (["conv1.lora_A", "conv1.weight"], "LoRA"),
    ],
)
def test_other_files(names, message):
    arrays = {name: np.zeros((4, 3, 3, 3), np.float32) for name in names}
    with pytest.raises(WeightsMismatch, match=re.escape(message)) as failure:
        recognise(file(arrays))
    assert str(failure.value).startswith("x.pth ")


def test_a_stem_of_several_convolutions():
    with pytest.raises(WeightsMismatch, match="a stem of several convolutions: a ResNet-C or -D"):
        recognise(changed("resnet50", deep_stem))


def test_integers_are_not_weights():
    arrays = state("resnet20")
    arrays["conv1.weight"] = arrays["conv1.weight"].astype(np.int8)
    with pytest.raises(WeightsMismatch, match=r"conv1\.weight is int8: minires reads floating-point weights"):
        recognise(file(arrays))


def test_hostile_shapes_are_rejected():
    """A first layer of a million filters would ask for terabytes."""
    arrays = {"conv1.weight": np.zeros((10**6, 1, 1, 1), np.float32), "layer1.0.conv1.weight": np.zeros(1, np.float32)}
    with pytest.raises(WeightsMismatch, match=r"has 1,000,000 filters, but the whole file 1,000,001 numbers"):
        recognise(file(arrays))
    for shape in [(0, 3, 7, 7), (4, 0, 7, 7)]:
        with pytest.raises(WeightsMismatch, match="must be at least 1, got 0"):
            recognise(changed("resnet18", put(conv1__weight=shape)))
    arrays = state("resnet18")
    arrays |= {f"layer1.{n}.conv1.weight": arrays["conv1.weight"] for n in (7, 9999)}
    arrays["layer1.99999.conv1.weight"] = arrays["layer1.00.conv1.weight"] = arrays["conv1.weight"]
    match = recognise(file(arrays))
    assert match.left_over[-2:] == ("layer1.99999.conv1.weight", "layer1.00.conv1.weight")
    assert not match.complete


def test_names_from_a_file_are_escaped():
    match = recognise(changed("resnet18", lambda arrays: arrays.update({"\x1b[2Jx": arrays["fc.bias"]})))
    assert "\x1b" not in match.differences()
    assert "\\x1b[2Jx" in match.differences()


# -- the tables

# Names as they stand in the programs' own files.
LITERAL = [
    ("torchvision", "layer4.1.downsample.1.running_var", "layer4.1.downsample.1.running_var"),
    ("CIFAR, head named linear", "linear.bias", "fc.bias"),
    ("CIFAR, head named linear", "layer2.0.shortcut.1.weight", "layer2.0.downsample.1.weight"),
    ("timm", "pre_logits.fc1.weight", "classifier.0.weight"),
    ("timm", "pre_logits.fc2.bias", "classifier.3.bias"),
    ("timm", "head.fc.weight", "classifier.6.weight"),
    (HUGGING_FACE, "resnet.embedder.embedder.convolution.weight", "conv1.weight"),
    (HUGGING_FACE, "resnet.embedder.embedder.normalization.num_batches_tracked", "bn1.num_batches_tracked"),
    (HUGGING_FACE, "resnet.encoder.stages.0.layers.2.layer.0.convolution.weight", "layer1.2.conv1.weight"),
    (HUGGING_FACE, "resnet.encoder.stages.3.layers.10.layer.2.normalization.bias", "layer4.10.bn3.bias"),
    (HUGGING_FACE, "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight", "layer2.0.downsample.0.weight"),
    (HUGGING_FACE, "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias", "layer2.0.downsample.1.bias"),
    (HUGGING_FACE, "classifier.1.weight", "fc.weight"),
]


@pytest.mark.parametrize(("convention", "name", "expected"), LITERAL)
def test_literal_names(convention, name, expected):
    assert torchvisions_name(name, convention) == expected
    assert their_name(expected, convention) == name


@pytest.mark.parametrize(("name", "convention"), NAMED)
def test_names_go_both_ways(name, convention):
    assert [torchvisions_name(their_name(ours, convention), convention) for ours in state(name)] == list(state(name))


def test_the_most_frequent_prefix_is_used():
    names = ["criterion.weight", *(f"net.{name}" for name in state("resnet18"))]
    found = translate(names)
    assert (found.prefix, found.others) == ("net.", ("criterion.weight",))
    assert not recognise(file({name: np.zeros(1, np.float32) for name in names})).complete


def test_a_second_name_for_the_same_parameter_is_left_over():
    """Both heads: the second cannot be loaded as well."""
    match = recognise(changed("resnet18", put(linear__weight=(7, 32), linear__bias=(7,))))
    assert match.left_over == ("linear.weight", "linear.bias")
    arrays = renamed(state("resnet20", shortcut="B"), "CIFAR, head named linear")
    arrays |= {"fc.weight": arrays["linear.weight"], "fc.bias": arrays["linear.bias"]}
    match = recognise(file(arrays))
    assert (match.names["fc.weight"], match.left_over) == ("linear.weight", ("fc.weight", "fc.bias"))


def test_the_headless_network_of_transformers():
    arrays = state("resnet50")
    del arrays["fc.weight"], arrays["fc.bias"]
    convention = "Hugging Face transformers, without its classifier"
    match = recognise(file(renamed(arrays, convention)))
    assert (match.convention, match.missing) == (convention, ("fc.weight", "fc.bias"))
    assert (match.left_over, match.different) == ((), ())
    assert "num_classes" not in match.options
