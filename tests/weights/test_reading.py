"""Weight files read without PyTorch: the formats, the types, what is taken out of a checkpoint."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from weights.files import (
    EMPTY,
    SIX,
    TWO,
    VALID,
    Call,
    Global,
    Raw,
    built,
    dump,
    entry,
    legacy,
    storage,
    tensor,
    zipped,
)
from weights.files import safetensors as safetensors_file

from minires import weights
from minires.weights.torch_file import STATE_DICT_KEYS


@pytest.fixture
def read(tmp_path):
    def read(content, name="x.pth"):
        (tmp_path / name).write_bytes(content)
        return weights.read(tmp_path / name)

    return read


@pytest.mark.parametrize(
    ("which", "format"), [("zip", "PyTorch zip"), ("legacy", "PyTorch legacy"), ("safetensors", "safetensors")]
)
def test_the_three_formats(read, which, format):
    found = read(VALID[which], "x.bin")  # the suffix is ignored
    assert (found.format, found.metadata, found.inside) == (format, {}, "")
    assert list(found.arrays) == ["a", "b"]
    np.testing.assert_array_equal(found.arrays["a"], np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)
    np.testing.assert_array_equal(found.arrays["b"], np.array([1.5, -2], np.float32), strict=True)
    assert found.stored == {"a": "float32", "b": "float16"}
    for array in found.arrays.values():
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype.isnative


def test_torch_is_not_imported():
    program = "import sys, minires.weights; print(sorted({'torch', 'ml_dtypes'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


TYPES = {
    "F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors_types_that_stay(read, dtype):
    array = np.array([[0, 1, 1]], TYPES[dtype])
    content = safetensors.numpy.save({"x": array, "empty": array[:0], "scalar": np.array(array[0, 1])}, {"k": "v"})
    found = read(content)
    np.testing.assert_array_equal(found.arrays["x"], array, strict=True)
    assert found.arrays["empty"].shape == (0, 3)
    assert found.arrays["scalar"].shape == ()
    assert found.arrays["scalar"] == 1
    assert found.metadata == {"k": "v"}


def test_half_precision_widens_exactly(read):
    every = np.arange(1 << 16, dtype="<u2")
    header = {"f": entry("F16", (1 << 16,), (0, 1 << 17)), "b": entry("BF16", (1 << 16,), (1 << 17, 1 << 18))}
    found = read(safetensors_file(header, every.tobytes() * 2))
    half = every.view("<f2")
    np.testing.assert_array_equal(found.arrays["f"], half.astype(np.float32), strict=True)
    np.testing.assert_array_equal(found.arrays["b"].view(np.uint32), every.astype(np.uint32) << 16, strict=True)
    assert found.stored == {"f": "float16", "b": "bfloat16"}


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "BOOL"])
def test_scalars_are_arrays(read, dtype):
    width = {"8": 1, "1": 2, "F": 2, "3": 4, "O": 1}[dtype[1]]
    array = read(safetensors_file({"x": entry(dtype, (), (0, width))}, bytes(width))).arrays["x"]
    assert type(array) is np.ndarray
    assert array.shape == ()
    assert array.flags.writeable


def test_float8(read):
    every = bytes(range(256))
    header = {"e4m3": entry("F8_E4M3", (256,), (0, 256)), "e5m2": entry("F8_E5M2", (256,), (256, 512))}
    found = read(safetensors_file(header, every * 2))
    e4m3, e5m2 = found.arrays["e4m3"], found.arrays["e5m2"]
    assert found.stored == {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}
    # Table 1 of arXiv:2209.05433: largest, smallest normal, smallest subnormal, NaN, infinity.
    assert [e4m3[byte] for byte in (0x7E, 0x08, 0x01, 0x38, 0xB8)] == [448, 2**-6, 2**-9, 1, -1]
    assert np.flatnonzero(np.isnan(e4m3)).tolist() == [0x7F, 0xFF]
    assert [e5m2[byte] for byte in (0x7B, 0x04, 0x01, 0x3C, 0xFC)] == [57344, 2**-14, 2**-16, 1, -np.inf]
    assert np.isnan(e5m2).sum() == 6


@pytest.mark.parametrize("build", ["zip", "legacy"])
def test_views_of_one_storage(read, build):
    tensors = {
        "transposed": tensor(size=(3, 2), stride=(1, 3)),
        "row": tensor(size=(3,), stride=(1,), offset=3),
        "every second": tensor(size=(3,), stride=(2,), offset=1),
        "expanded": tensor(size=(4, 3), stride=(0, 1)),
        "scalar": tensor(size=(), stride=(), offset=5),
        "empty": tensor(size=(0, 3), stride=(3, 1), offset=77),
        "long stride": tensor(size=(1, 2), stride=(1 << 62, 1)),
    }
    found = read(built(build, tensors, {"0": (6, SIX)})).arrays
    whole = np.arange(6, dtype=np.float32)
    wanted = {
        "transposed": whole.reshape(2, 3).T,
        "row": whole[3:],
        "every second": whole[1::2],
        "expanded": np.broadcast_to(whole[:3], (4, 3)),
        "scalar": whole[5].reshape(()),
        "empty": np.empty((0, 3), np.float32),
        "long stride": whole[:2].reshape(1, 2),
    }
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert found[name].flags.c_contiguous
    found["row"][...] = -1
    np.testing.assert_array_equal(found["transposed"], wanted["transposed"])


@pytest.mark.parametrize("build", ["zip", "legacy"])
def test_the_order_is_that_of_the_names(read, build):
    """Not that of the storages, each of which is read once."""
    tensors = {"c": tensor("1"), "a": tensor("0"), "b": tensor("1", size=(6,), stride=(1,)), "d": tensor("0")}
    found = read(built(build, tensors, {"0": (6, SIX), "1": (6, bytes(24))})).arrays
    assert list(found) == list("cabd")
    assert [array.sum() for array in found.values()] == [0, 15, 0, 15]


def test_a_legacy_storage_that_is_part_of_another(read):
    part = tensor(size=(2,), stride=(1,), view=[("v", 3, 2)])
    whole = tensor(view=[None])
    np.testing.assert_array_equal(read(legacy({"a": part, "b": whole}, {"0": (6, SIX)})).arrays["a"], [3, 4])


def test_big_endian(read):
    big = np.arange(6, dtype=">f4").tobytes()
    found = read(zipped({"a": tensor()}, {"0": big}, byteorder=b"big")).arrays["a"]
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)
    # The legacy format is little-endian on every machine.
    found = read(legacy({"a": tensor()}, {"0": (6, SIX)}, info={"little_endian": False})).arrays["a"]
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("prefix", ["archive/", "resnet 20/", "", "a/b/"])
def test_protocols_and_prefixes(read, protocol, prefix):
    assert read(zipped(dump(TWO, protocol), {"0": SIX, "1": bytes(4)}, prefix)).arrays["a"].sum() == 15


def test_an_archive_of_64_bits(read):
    """The numbers of the last record are all ones, the true ones stand in another before it."""
    content = VALID["zip"]
    body, end = content[:-22], content[-22:]
    count, size, offset = struct.unpack("<10xHII2x", end)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body), 1)
    last = struct.pack("<4s4xHHIIH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert list(read(body + record + locator + last).arrays) == ["a", "b"]
    assert list(read(content[:-2] + b"\x02\0zz").arrays) == ["a", "b"]  # a comment


def test_deflated_members(read):
    assert read(zipped(TWO, {"0": SIX, "1": bytes(4)}, deflate=True)).arrays["a"].sum() == 15


def test_bytes_of_booleans(read):
    found = read(zipped({"a": tensor(kind="BoolStorage")}, {"0": bytes([0, 1, 2, 0, 255, 1])})).arrays["a"]
    np.testing.assert_array_equal(found, [[False, True, True], [False, True, True]], strict=True)


# What stands around the state dict

SCALAR = Call(
    Global("numpy.core.multiarray", "scalar"),
    (
        Call(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0)),
        Call(Global("_codecs", "encode"), ("\x00" * 8, "latin1")),
    ),
)
BESIDE = {
    "epoch": 90,
    "loss": 0.5,
    "arch": "resnet20",
    "best": SCALAR,
    "best_acc1": tensor("9", (), (), count=1),
    "device": Call(Global("torch", "device"), ("cuda", 0)),
    "milestones": Call(Global("collections", "Counter"), ({30: 1, 60: 1},)),
    "size": Call(Global("torch", "Size"), ((2, 3),)),
    "optimizer": {"state": {0: {"momentum_buffer": tensor("8", kind="ComplexFloatStorage")}}, "groups": [{"lr": 0.1}]},
    "dtype": Global("torch", "float32"),
    "scaler": None,
    "nesterov": True,
    "big": 1 << 100,
}


@pytest.mark.parametrize("key", STATE_DICT_KEYS)
@pytest.mark.parametrize("build", ["zip", "legacy"])
def test_checkpoints(read, key, build):
    checkpoint = BESIDE | {key: TWO}
    contents = {"0": (6, SIX), "1": (2, bytes(4)), "8": (6, bytes(48)), "9": (1, bytes(4))}
    if build == "zip":
        del contents["9"]  # nothing asks for it
    found = read(built(build, checkpoint, contents))
    assert found.inside == key
    assert list(found.arrays) == ["a", "b"]


def test_ordered_dictionaries(read):
    """With the attribute `_metadata`, as state_dict() gives them; and as Python 2 wrote them, items first."""
    ordered = Call(Global("collections", "OrderedDict"), (), {"_metadata": {"": {"version": 1}}})
    items = Call(Global("collections", "OrderedDict"), ([["b", tensor()], ["a", tensor()]],))
    assert list(read(zipped({"state_dict": items, "x": ordered, "y": EMPTY}, {"0": SIX})).arrays) == ["b", "a"]


def test_names_of_python_2(read):
    """Its strings are bytes: SHORT_BINSTRING."""
    name = Raw(b"U\x01a")
    content = zipped(dump([Raw(b"}("), name, tensor(), Raw(b"u")])[:-2].replace(b"]q\x00(", b"", 1) + b".", {"0": SIX})
    assert list(read(content).arrays) == ["a"]


@pytest.mark.parametrize("rebuild", ["_rebuild_parameter", "_rebuild_parameter_with_state"])
def test_parameters(read, rebuild):
    parameter = Call(Global("torch._utils", rebuild), (tensor(), True, EMPTY, {}))
    assert read(zipped({"a": parameter}, {"0": SIX})).arrays["a"].sum() == 15


def test_tensors_of_other_generations(read):
    first = Call(Global("torch._utils", "_rebuild_tensor"), (storage(), 0, (6,), (1,)))
    third = Call(
        Global("torch._utils", "_rebuild_tensor_v3"),
        (storage("1", "UntypedStorage", 4), 2, (2,), (1,), False, EMPTY, Global("torch", "float8_e5m2"), {}),
    )
    found = read(zipped({"a": first, "b": third}, {"0": SIX, "1": b"\0\0\x3c\xbc"}))
    assert found.arrays["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.arrays["b"].tolist() == [1, -1]
    assert found.stored["b"] == "float8_e5m2"


def test_invalid_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*gone"):
        weights.read(tmp_path / "gone.pth")
    with pytest.raises(weights.WeightsError, match="is a folder, not a weight file"):
        weights.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(weights.WeightsError, match="is no regular file, not a weight file"):
        weights.read(tmp_path / "pipe")


def test_checkpoints_of_this_program(tmp_path):
    from minires.training import Config, checkpoint

    mean = np.ones((8, 8, 1), np.float32)
    state = checkpoint.Checkpoint(
        iteration=0, config=Config(iterations=1), model={"conv1.weight": np.zeros((4, 1, 3, 3), np.float32)},
        velocity={"velocity.conv1.weight": np.zeros((4, 1, 3, 3), np.float32)}, mean=mean, classes=("a", "b"),
        input_shape=(1, 8, 8), random_state=np.random.PCG64(0).state,
    )  # fmt: skip
    checkpoint.save(state, tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    found = weights.read(tensors)
    assert set(found.arrays) == {"model.conv1.weight", "velocity.conv1.weight", "input.mean"}
    np.testing.assert_array_equal(found.arrays["input.mean"], mean, strict=True)


def test_published_weights():
    """ResNet-20 as trained by Y. Idelbayev (licence beside it): the legacy format, written on a GPU."""
    found = weights.read(Path(__file__).parent / "data" / "resnet20-12fca82f.th")
    assert (found.format, found.inside, len(found.arrays)) == ("PyTorch legacy", "state_dict", 97)
    assert found.arrays["module.layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert set(found.stored.values()) == {"float32"}
    trained = [array for name, array in found.arrays.items() if "running" not in name]
    assert sum(array.size for array in trained) == 269_722  # the paper: 0.27M
    content = b"".join(array.tobytes() for array in found.arrays.values())
    assert zlib.crc32(content) == 0x1D128E52  # as PyTorch reads them: see tests/parity


def test_the_command_line_reports_a_broken_file():
    from minires.cli import _exit_code

    assert _exit_code(weights.WeightsError("x")) == 4
