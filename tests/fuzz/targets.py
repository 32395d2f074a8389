"""What is fuzzed: each target turns bytes into a file and reads it; its seeds are tiny valid files."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from weights import files
from weights.hostile import CASES

from minires.data import DataError, cifar10, fashion_mnist
from minires.weights import WeightsError, read

LARGEST_SEED = 4096


@dataclass(frozen=True)
class Target:
    """seeds: inputs to start from; write(input, folder) makes the file; read(folder) is what must not fail.

    words   what the mutations may put in, longer than they would find
    """

    seeds: Callable[[], Iterable[bytes]]
    write: Callable[[bytes, Path], None]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()


NAMES = (
    "torch._utils\n_rebuild_tensor\n", "torch._utils\n_rebuild_tensor_v2\n", "torch._utils\n_rebuild_tensor_v3\n",
    "torch._utils\n_rebuild_parameter\n", "collections\nOrderedDict\n", "torch\nSize\n", "torch\nFloatStorage\n",
    "torch\nBoolStorage\n", "torch\nUntypedStorage\n", "torch\nbfloat16\n", "torch\nfloat8_e5m2\n", "os\nsystem\n",
    "numpy\ndtype\n", "numpy.core.multiarray\nscalar\n", "torch.nn.modules.linear\nLinear\n",
)  # fmt: skip
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ"
PICKLE = (
    *(b"c" + name.encode() for name in NAMES), STORAGE, b"X\x0a\0\0\0state_dict", b"\x8c\x05model", b"K\x02K\x03\x86",
    b"K\0", b"K\x01", b"\x89", b")R", b"tR", b"}", b"]", b")", b"(", b"s", b"u", b"e", b"a", b"\x85", b"\x86", b"\x87",
    b"q\0", b"h\0", b"\x94", b"r\xff\xff\xff\x7f", b"Q", b"b", b"\x8a\x08\0\0\0\0\0\0\0\x40", b"\x8b\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff", b"\x95\0\0\0\0\0\0\0\0", b"\x93", b"\x81", b"2", b"0", b"1",
)  # fmt: skip
JSON = tuple(
    b'"dtype": "data_offsets": "shape": "F32" "F16" "BF16" "F8_E4M3" "F8_E5M2" "F64" "I64" "U8" "BOOL" "C64" "F4" '
    b'"__metadata__": [0,24] [24,28] [2,3] [] {} {"format":"pt"} 18446744073709551615 9007199254740993 -1 1e9 '
    b'"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} \\u0000 \\ud800'.split()
)
ZIP = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\1\0\x10\0", b"archive/data/0", b"archive/data.pkl",
       b"\xff\xff", b"\xff\xff\xff\xff", b"\x08\0", b"\x0c\0")  # fmt: skip


def _pickles() -> list[bytes]:
    beside = {
        "epoch": 1,
        "state_dict": files.TWO,
        "lr": 0.1,
        "size": files.Call(files.Global("torch", "Size"), ((2,),)),
    }
    values = (files.TWO, beside, {"a": files.tensor(size=(3,), stride=(2,))})
    return [files.dump(value, protocol) for value in values for protocol in (2, 4)]


def _hostile(start: bytes) -> list[bytes]:
    """The files of the hostile suite that begin like this, without the large ones."""
    return [content for content, _ in CASES.values() if content.startswith(start) and len(content) <= LARGEST_SEED]


STORED = {"0": files.SIX, "1": files.HALVES}
COUNTED = {"0": (6, files.SIX), "1": (2, files.HALVES)}


def _file(name: str, whole: Callable[[bytes], bytes] = lambda content: content) -> Callable[[bytes, Path], None]:
    def write(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(whole(content))

    return write


def _weights(folder: Path) -> None:
    found = read(folder / "x.pth")
    assert found.arrays.keys() == found.stored.keys()
    assert all(array.flags.c_contiguous and array.dtype.isnative for array in found.arrays.values())


def _safetensors() -> list[bytes]:
    types = {
        "a": files.entry("BF16", (3,), (0, 6)),
        "b": files.entry("F8_E4M3", (1, 2), (6, 8)),
        "__metadata__": {"k": "v"},
        "c": files.entry("BOOL", (), (8, 9)),
        "d": files.entry("I64", (0,), (9, 9)),
    }
    return [files.VALID["safetensors"], files.safetensors(types, bytes(9))]


def _idx(folder: Path) -> None:
    for name in ("x", "x.gz"):
        for dimensions in (1, 3):
            with contextlib.suppress(DataError):
                fashion_mnist.read_idx(folder / name, dimensions)


def _write_idx(content: bytes, folder: Path) -> None:
    (folder / "x").write_bytes(content)
    # The checksum belongs to what was meant: a stream that is damaged is the raw file's part.
    (folder / "x.gz").write_bytes(content if content.startswith(b"\x1f\x8b") else gzip.compress(content, 1, mtime=0))


def _idx_seeds() -> list[bytes]:
    shapes = ((3,), (1, 2, 3))
    plain = [struct.pack(f">HBB{len(s)}I", 0, 8, len(s), *s) + bytes(n) for s, n in zip(shapes, (3, 6), strict=True)]
    return plain + [gzip.compress(content, mtime=0) for content in plain]


def _tar(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _write_cifar10(content: bytes, folder: Path) -> None:
    """Either the records themselves, or a tar archive, whose headers get their checksums right again."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        header = data[start : start + 512]
        if header[257:262] == b"ustar":
            data[start + 148 : start + 156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    (folder / cifar10.ARCHIVE.name).write_bytes(gzip.compress(bytes(data), 1, mtime=0))
    (folder / "test_batch.bin").write_bytes(content)


def _read_cifar10(folder: Path) -> None:
    cifar10.RECORDS, cifar10.RECORD = 2, 7  # 30 MB a file otherwise
    for place in (folder, folder / "nowhere"):
        with contextlib.suppress(DataError):
            cifar10._records(place, "test_batch.bin")
    (folder / "test_batch.bin").unlink()
    cifar10._records(folder, "test_batch.bin")


def _cifar10_seeds() -> list[bytes]:
    member = f"{cifar10.INSIDE}/test_batch.bin"
    return [bytes(14), bytes([255]) * 14, _tar(member, bytes(14)), _tar("./" + member, bytes(14))]


TARGETS = {
    "zip": Target(lambda: [files.VALID["zip"], *_hostile(b"PK")], _file("x.pth"), _weights, ZIP),
    "zip-pickle": Target(_pickles, _file("x.pth", lambda pickled: files.zipped(pickled, STORED)), _weights, PICKLE),
    "legacy": Target(lambda: [files.VALID["legacy"], *_hostile(b"\x80")], _file("x.pth"), _weights, PICKLE),
    "legacy-pickle": Target(
        _pickles, _file("x.pth", lambda pickled: files.legacy(pickled, COUNTED)), _weights, PICKLE
    ),
    "safetensors": Target(_safetensors, _file("x.pth"), _weights, JSON),
    "safetensors-header": Target(
        lambda: [content[8 : content.rindex(b"}") + 1] for content in _safetensors()],
        _file("x.pth", lambda header: files.safetensors(header, files.SIX + files.HALVES)),
        _weights,
        JSON,
    ),
    "idx": Target(_idx_seeds, _write_idx, _idx, (b"\0\0\x08\x01", b"\0\0\x08\x03", b"\x1f\x8b\x08")),
    "cifar10": Target(_cifar10_seeds, _write_cifar10, _read_cifar10, (b"ustar", b"\x80\0\0\0", b"00000000016", b"L")),
}  # fmt: skip


def run_one(target: Target, content: bytes) -> None:
    """One input; returns where it was read or properly refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        target.write(content, Path(folder))
        try:
            target.read(Path(folder))
        except (WeightsError, DataError) as error:
            if "\n" in str(error):
                raise ValueError("an error of more than one line") from error
