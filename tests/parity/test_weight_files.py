"""Files that PyTorch writes hold what it was given, and files that others wrote what it reads, bit by bit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from weights.files import SIX, VALID, tensor, zipped
from weights.files import legacy as legacy_file

from minires import weights

torch = pytest.importorskip("torch")
RESNET20 = Path(__file__).parents[1] / "weights" / "data" / "resnet20-12fca82f.th"


@pytest.fixture(autouse=True)
def backend():
    """Files know of no backend: once is enough."""


FORMATS = {"PyTorch zip": True, "PyTorch legacy": False}


@pytest.fixture(params=FORMATS)
def roundtrip(request, tmp_path):
    """What was given to torch.save, and what minires reads out of the file.

    PyTorch's own reader would not do in between: it fails on types of the legacy format that have no storage class.
    """

    def roundtrip(value, **options):
        path = tmp_path / "x.pth"
        torch.save(value, path, _use_new_zipfile_serialization=FORMATS[request.param], **options)
        found = weights.read(path)
        assert found.format == request.param
        return value, found

    return roundtrip


def same(found, wanted):
    assert list(found.arrays) == list(wanted)
    for name, value in wanted.items():
        array = found.arrays[name]
        value = value.detach()
        assert found.stored[name] == str(value.dtype).removeprefix("torch.")
        if value.dtype.is_floating_point and value.dtype.itemsize < 4:
            value = value.float()
        np.testing.assert_array_equal(array, value.numpy(), strict=True)
        assert array.flags.c_contiguous
        assert array.flags.writeable


TYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
def test_types(roundtrip, dtype):
    drawn = torch.rand((3, 5), generator=torch.Generator().manual_seed(0)) * 4 - (0 if dtype.startswith("u") else 2)
    x = drawn.to(getattr(torch, dtype))
    wanted, found = roundtrip({"x": x, "scalar": x[1, 2], "empty": x[:0], "transposed": x.T, "part": x[1:, ::2]})
    same(found, wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_every_value_of_the_narrow_types(roundtrip, dtype):
    kind = getattr(torch, dtype)
    count = 1 << 8 * kind.itemsize
    bits = torch.arange(count, dtype=torch.int32).to(torch.int16 if kind.itemsize == 2 else torch.uint8)
    wanted, found = roundtrip({"x": bits.view(kind)})
    same(found, wanted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_state_dict_of_every_protocol(roundtrip, protocol):
    """An OrderedDict with the attribute _metadata; parameters, statistics, and a count in int64."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    state = model.state_dict()
    assert isinstance(state, OrderedDict)
    assert state._metadata
    wanted, found = roundtrip(state, pickle_protocol=protocol)
    same(found, wanted)
    assert found.arrays["1.num_batches_tracked"].shape == ()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_checkpoint(roundtrip, protocol):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    checkpoint = {
        "epoch": 3, "arch": "linear", "best_acc1": torch.tensor(92.5), "device": torch.device("cpu"),
        "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict(),
        "shape": torch.Size([2, 3]), "dtype": torch.float16, "random": torch.get_rng_state(),
    }  # fmt: skip
    wanted, found = roundtrip(checkpoint, pickle_protocol=protocol)
    assert found.inside == "state_dict"
    same(found, wanted["state_dict"])


def test_numpy_numbers_beside_it(tmp_path):
    """torch.load refuses them by default."""
    for protocol in (2, 4):
        torch.save(
            {"best": np.float64(0.5), "n": np.int64(3), "model": {"a": torch.ones(2)}},
            tmp_path / "x.pth",
            pickle_protocol=protocol,
        )
        assert weights.read(tmp_path / "x.pth").arrays["a"].tolist() == [1, 1]


def test_shared_storages_and_parameters(roundtrip):
    whole = torch.arange(24.0)
    state = {
        "whole": whole,
        "tied": whole,
        "matrix": whole[4:16].view(3, 4),
        "transposed": whole.view(4, 6).T,
        "columns": whole.view(4, 6)[:, 1:5:2],
        "expanded": whole[:3].expand(4, 3),
        "parameter": torch.nn.Parameter(whole.view(4, 6)),
        "strided": torch.as_strided(whole, (5, 3), (2, 7), 1),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    wanted, found = roundtrip(state)
    same(found, wanted)
    found.arrays["whole"][...] = -1
    assert found.arrays["tied"][1] == 1


def test_other_byte_orders(tmp_path):
    """A zip archive states its byte order; the legacy format is little-endian, whatever its header states."""
    path = tmp_path / "x.pth"
    big = np.frombuffer(SIX, "<f4").astype(">f4").tobytes()
    for content in (
        zipped({"a": tensor()}, {"0": big}, byteorder=b"big"),
        legacy_file({"a": tensor()}, {"0": (6, SIX)}, info={"little_endian": False}),
    ):
        path.write_bytes(content)
        same(weights.read(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("which", ["zip", "legacy"])
def test_files_built_without_pytorch(tmp_path, which):
    """What the other tests build is what PyTorch reads, too."""
    (tmp_path / "x.pth").write_bytes(VALID[which])
    same(weights.read(tmp_path / "x.pth"), torch.load(tmp_path / "x.pth", weights_only=True))


def test_published_weights():
    wanted = torch.load(RESNET20, weights_only=True, map_location="cpu")["state_dict"]
    found = weights.read(RESNET20)
    same(found, wanted)
    for name, value in wanted.items():
        assert found.arrays[name].tobytes() == value.numpy().tobytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: torch.nn.Linear(2, 2), "a whole pickled model (class torch.nn.modules.linear.Linear)"),
        (lambda: {"a": torch.eye(3).to_sparse()}, "holds a sparse tensor"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "tensor 'a' is complex64"),
        (lambda: {"a": torch.ones(2, device="meta")}, "holds a meta tensor"),
        (lambda: {"a": torch.ones(1).expand(1 << 12, 1 << 12)}, "are allowed"),
        (lambda: {"a": torch.ones(2), "args": slice(3)}, "_builtin__.slice, which was not executed"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_dense_tensor(tmp_path, format, value, text):
    path = tmp_path / "x.pth"
    torch.save(value(), path, _use_new_zipfile_serialization=FORMATS[format])
    with pytest.raises(weights.WeightsError) as failure:
        weights.read(path)
    assert text in str(failure.value)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    drawn = torch.rand((3, 5), generator=torch.Generator().manual_seed(0)) * 4
    wanted = {dtype: drawn.to(getattr(torch, dtype)) for dtype in TYPES}
    save_file(wanted, tmp_path / "x.safetensors", {"format": "pt"})
    found = weights.read(tmp_path / "x.safetensors")
    assert found.metadata == {"format": "pt"}
    same(found, {name: wanted[name] for name in found.arrays})
    assert found.arrays.keys() == wanted.keys()
