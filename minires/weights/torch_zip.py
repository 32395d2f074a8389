"""PyTorch's format since 1.6: a zip archive, PREFIX/data.pkl for the object, PREFIX/data/KEY for the storages."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import BinaryIO

from minires.arrays import Array
from minires.weights import state_dict, torch_arrays, torch_objects
from minires.weights.file import WeightsError, plain, quoted
from minires.weights.pickles import Source, load
from minires.weights.torch_objects import Storage, element_bytes

LONGEST_DIRECTORY = 4 << 20  # bytes, some 40,000 storages
ENCRYPTED = 0x1  # of a member's flags
# What zipfile raises over an archive that is none: from ValueError on over names, and numbers beyond every file.
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError, NotImplementedError, OSError,
)  # fmt: skip


def read(file: BinaryIO, size: int) -> tuple[dict[str, Array], dict[str, str], str]:
    """Arrays by name, their types as stored, and the key of the checkpoint that the state dict stood under."""
    archive = _Archive(file, torch_arrays.allowed_bytes(size))
    content = archive.content("data.pkl")
    storages: dict[str, Storage] = {}
    loaded = load(
        Source(io.BytesIO(content), len(content)),
        torch_objects.find,
        lambda identity: torch_objects.storage(identity, storages),
    )
    tensors, inside = state_dict.find(loaded)
    # Archives without the record are of little-endian machines, says PyTorch.
    order = archive.content("byteorder") if archive.holds("byteorder") else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"broken: its byte order is {quoted(order[:16])}")

    def elements(storage: Storage) -> bytes:
        count = storage.whole * element_bytes(storage.dtype)
        return archive.content(f"data/{storage.key}", count)

    allowed = torch_arrays.allowed_bytes(size)
    return *torch_arrays.build(tensors, elements, "<" if order == b"little" else ">", allowed), inside


class _Archive:
    """A zip archive out of which no more than `allowed` bytes are read."""

    def __init__(self, file: BinaryIO, allowed: int) -> None:
        if (directory := _directory_bytes(file)) > LONGEST_DIRECTORY:
            raise WeightsError(
                f"unsafe: its directory takes {directory:,} bytes, {LONGEST_DIRECTORY:,} at most are read"
            )
        try:
            self.zip = zipfile.ZipFile(file)
        except BROKEN as error:
            raise WeightsError(f"truncated or broken zip archive: {plain(error)}") from None
        self.allowed = allowed
        self.members = {member.filename: member for member in self.zip.infolist()}
        if len(self.members) != len(self.zip.infolist()):
            raise WeightsError("unsafe: the zip archive holds two members of the same name")
        found = [name for name in self.members if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise WeightsError(_foreign(list(self.members)) or f"the zip archive holds {len(found)} data.pkl, not one")
        self.prefix = found[0].removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in self.members:
            raise WeightsError("is a TorchScript archive, which is a program: save the state_dict() of the model")

    def holds(self, name: str) -> bool:
        return self.prefix + name in self.members

    def content(self, name: str, expected: int | None = None) -> bytes:
        """The bytes of a member, its checksum compared; `expected`: how many they have to be."""
        member = self.members.get(self.prefix + name)
        told = quoted(self.prefix + name)
        if member is None:
            raise WeightsError(f"broken: {told} is missing from the zip archive")
        size = member.file_size
        if member.flag_bits & ENCRYPTED:
            raise WeightsError(f"{told} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{told} is compressed by method {member.compress_type}: PyTorch compresses nothing")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != size:
            raise WeightsError(f"broken: {told} has two sizes, {size:,} and {member.compress_size:,}")
        if expected is not None and size != expected:
            raise WeightsError(f"broken: {told} holds {size:,} bytes, its tensors need {expected:,}")
        self.allowed -= size
        if self.allowed < 0:
            raise WeightsError(f"unsafe: {told} unpacks to {size:,} bytes, more than a file of this size may hold")
        try:
            with self.zip.open(member) as opened:
                found = opened.read(size)  # without a number it would unpack all there is before it counts
        except BROKEN as error:
            raise WeightsError(f"truncated or broken zip archive: {told}: {plain(error)}") from None
        if len(found) != size:
            raise WeightsError(f"broken: {told} holds {len(found):,} bytes, not the {size:,} it says")
        return found


def _directory_bytes(file: BinaryIO) -> int:
    """The bytes of the list of members, as `zipfile` is about to believe; 0 where it finds no end of an archive.

    The last record of the archive holds them, or one before it that has 64 bits for each number.
    """
    start = max(0, file.seek(0, io.SEEK_END) - (1 << 16) - 22 - 76)  # a comment may follow the end
    file.seek(start)
    tail = file.read()
    file.seek(0)
    at_the_end = tail[-22:-18] == b"PK\5\6" and tail.endswith(b"\0\0")
    end = len(tail) - 22 if at_the_end else tail.rfind(b"PK\5\6")
    if end < 0:
        return 0
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7" and tail[end - 76 : end - 72] == b"PK\6\6":
        return int.from_bytes(tail[end - 36 : end - 28], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little")


def _foreign(names: list[str]) -> str | None:
    """What an archive without data.pkl is, where its members say so."""
    if names and all(name.endswith(".npy") for name in names):
        return "is an npz archive of NumPy arrays, not a weight file"
    if any(name.endswith("model.weights.h5") for name in names):
        return "is a Keras model, not a weight file of PyTorch"
    return None
