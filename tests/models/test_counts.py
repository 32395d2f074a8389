"""Parameters and multiply-adds, exact to the integer, beside a closed-form count written from Table 1 alone."""

from __future__ import annotations

import pytest

import minires as mr

# multiply-adds, parameters; the first column's figures are those that the paper's networks are known by
KNOWN = {
    ("vgg19", ()): (19_632_062_464, 143_667_240),
    ("plain34", ()): (3_644_493_824, 21_623_848),
    ("resnet34", (("shortcut", "A"),)): (3_644_493_824, 21_623_848),
    ("resnet50", (("shortcut", "B"), ("stride_in", "1x1"))): (3_857_973_248, 25_557_032),
    ("resnet20", (("shortcut", "A"),)): (40_551_040, 269_722),
    ("plain20", ()): (40_551_040, 269_722),
}
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def count_residual(
    depth: int, shortcut: str | None, stride_in: str = "1x1", size: int | None = None
) -> tuple[int, int]:
    """Layer by layer in plain arithmetic: (multiply-adds, parameters). shortcut None is the plain network."""
    macs = params = 0

    def conv(side: int, k: int, c_in: int, c_out: int) -> None:
        nonlocal macs, params
        macs += side * side * k * k * c_in * c_out
        params += k * k * c_in * c_out + 2 * c_out  # the batch norm that follows has a scale and a shift

    cifar = depth not in BASIC and depth not in BOTTLENECK
    blocks = ((depth - 2) // 6,) * 3 if cifar else BASIC.get(depth) or BOTTLENECK[depth]
    width, classes = (16, 10) if cifar else (64, 1000)
    side = size or (32 if cifar else 224)
    if cifar:
        conv(side, 3, 3, width)
    else:
        side //= 2
        conv(side, 7, 3, width)
        side //= 2
    c_in = width
    for stage, repeats in enumerate(blocks):
        w = width * 2**stage
        for block in range(repeats):
            stride = 2 if stage and block == 0 else 1
            before, side = side, side // stride
            if depth in BOTTLENECK:
                c_out = 4 * w
                conv(side if stride_in == "1x1" else before, 1, c_in, w)
                conv(side, 3, w, w)
                conv(side, 1, w, c_out)
            else:
                c_out = w
                conv(side, 3, c_in, w)
                conv(side, 3, w, w)
            if shortcut == "C" or (shortcut == "B" and (stride > 1 or c_in != c_out)):
                conv(side, 1, c_in, c_out)
            c_in = c_out
    return macs + c_in * classes, params + (c_in + 1) * classes


def cases() -> list[tuple[str, dict[str, str], tuple[int, int]]]:
    result = []
    for depth in (18, 34, 20, 32, 44, 56, 110):
        result.append((f"plain{depth}", {}, count_residual(depth, None)))
        for shortcut in "ABC":
            result.append((f"resnet{depth}", {"shortcut": shortcut}, count_residual(depth, shortcut)))
    for depth in BOTTLENECK:
        for shortcut in "ABC":
            for stride_in in ("1x1", "3x3"):
                options = {"shortcut": shortcut, "stride_in": stride_in}
                result.append((f"resnet{depth}", options, count_residual(depth, shortcut, stride_in)))
    return result


def name_of(value: object) -> str:
    return "-".join(value.values()) if isinstance(value, dict) else str(value) if isinstance(value, str) else ""


@pytest.fixture
def without_drawing(monkeypatch):
    """Counting needs shapes only: drawing the weights of ResNet-152 takes longer than running it."""
    import numpy as np

    monkeypatch.setattr(mr.nn.init, "he_normal", lambda shape, fan="out": np.zeros(shape, np.float32))


@pytest.mark.parametrize(("name", "options", "expected"), cases(), ids=name_of)
@pytest.mark.usefixtures("without_drawing")
def test_residual_and_plain_networks(name, options, expected):
    summary = mr.summary(mr.models.create(name, **options), mr.models.input_shape(name))
    assert (summary.macs, summary.params) == expected


@pytest.mark.parametrize(("name", "options"), KNOWN, ids=name_of)
@pytest.mark.usefixtures("without_drawing")
def test_published_integers(name, options):
    summary = mr.summary(mr.models.create(name, **dict(options)), mr.models.input_shape(name))
    assert (summary.macs, summary.params) == KNOWN[name, options]


@pytest.mark.parametrize(("name", "layers"), [("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))])
@pytest.mark.usefixtures("without_drawing")
def test_vgg(name, layers):
    macs = params = 0
    side, c_in = 224, 3
    for stage, convolutions in enumerate(layers):
        c_out = min(64 * 2**stage, 512)
        for _ in range(convolutions):
            macs += side * side * 9 * c_in * c_out
            params += (9 * c_in + 1) * c_out
            c_in = c_out
        side //= 2
    for fan_in, fan_out in ((512 * 49, 4096), (4096, 4096), (4096, 1000)):
        macs += fan_in * fan_out
        params += (fan_in + 1) * fan_out
    summary = mr.summary(mr.models.create(name), (3, 224, 224))
    assert (summary.macs, summary.params) == (macs, params)


@pytest.mark.usefixtures("without_drawing")
def test_every_network_is_counted_above():
    counted = {name for name, _, _ in cases()} | {"vgg16", "vgg19"}
    assert counted == set(mr.models.names())


def test_other_sizes_and_widths():
    model = mr.models.create("resnet18", num_classes=7, in_channels=1, width=8)
    assert mr.summary(model, (1, 65, 97)).rows[-1].output_shape == (7,)
