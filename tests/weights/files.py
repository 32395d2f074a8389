"""Weight files built byte by byte, without PyTorch: well-formed ones, and the parts of hostile ones."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Global:
    """`module.name`, written as a reference: neither need exist."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """function(*arguments) when unpickled; `state`: what BUILD then gives it."""

    function: Any
    arguments: Any
    state: Any = None


@dataclass(frozen=True)
class Persistent:
    identity: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


class _Writer(pickle._Pickler):
    legacy = False

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Raw):
            self.write(obj.opcodes)
        elif isinstance(obj, Persistent):
            part = (None,) if self.legacy and len(obj.identity) == 5 else ()  # of which storage it is a part
            self.save((*obj.identity, *part) if part else obj.identity)
            self.write(pickle.BINPERSID)
        elif isinstance(obj, Global):
            if self.proto >= 4:
                self.save(obj.module)
                self.save(obj.name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def dump(value: Any, protocol: int = 2, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    writer = _Writer(out, protocol)
    writer.legacy = legacy
    writer.dump(value)
    return out.getvalue()


def program(opcodes: bytes) -> bytes:
    """A pickle of these opcodes."""
    return b"\x80\x02" + opcodes + b"."


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
EMPTY = Call(Global("collections", "OrderedDict"), ())


def storage(key="0", kind="FloatStorage", count=6, view=()):
    return Persistent(("storage", Global("torch", kind), key, "cpu", count, *view))


def tensor(key="0", size=(2, 3), stride=(3, 1), offset=0, kind="FloatStorage", count=6, view=()):
    return Call(REBUILD, (storage(key, kind, count, view), offset, size, stride, False, EMPTY))


SIX = np.arange(6, dtype="<f4").tobytes()


def zipped(loaded: Any, contents: dict[str, bytes], prefix="archive/", deflate=False, byteorder: bytes | None = None):
    """A file of `torch.save` since 1.6: `loaded` is a value or a whole pickle."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(f"{prefix}data.pkl", loaded if isinstance(loaded, bytes) else dump(loaded))
        if byteorder is not None:
            archive.writestr(f"{prefix}byteorder", byteorder)
        for key, content in contents.items():
            archive.writestr(f"{prefix}data/{key}", content)
        archive.writestr(f"{prefix}version", b"3\n")
    return out.getvalue()


LEGACY_HEAD = dump(0x1950A86A20F9469CFC6C) + dump(1001)
SYS_INFO = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def legacy(loaded: Any, contents: dict[str, tuple[int, bytes]], keys: Any = None, info: Any = SYS_INFO):
    """A file of `torch.save` before 1.6; contents: the number of elements and the bytes of each storage."""
    pickled = loaded if isinstance(loaded, bytes) else dump(loaded, legacy=True)
    head = LEGACY_HEAD + dump(info) + pickled + dump(sorted(contents) if keys is None else keys)
    return head + b"".join(struct.pack("<q", count) + content for count, content in contents.values())


def built(format: str, loaded: Any, contents: dict[str, tuple[int, bytes]]) -> bytes:
    """A file of `torch.save` in this format, "zip" or "legacy"."""
    if format == "legacy":
        return legacy(loaded, contents)
    return zipped(loaded, {key: content for key, (_, content) in contents.items()})


def safetensors(header: Any, content: bytes, length: int | None = None) -> bytes:
    """header: JSON as text or as a value."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# The smallest files of each format that hold two arrays.
TWO = {"a": tensor(), "b": tensor("1", (2,), (1,), kind="HalfStorage", count=2)}
HALVES = np.array([1.5, -2], "<f2").tobytes()
VALID = {
    "zip": zipped(TWO, {"0": SIX, "1": HALVES}),
    "legacy": legacy(TWO, {"0": (6, SIX), "1": (2, HALVES)}),
    "safetensors": safetensors({"a": entry(), "b": entry("F16", (2,), (24, 28))}, SIX + HALVES),
}
