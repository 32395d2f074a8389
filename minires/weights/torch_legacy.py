"""PyTorch's format before 1.6: five pickles, then the storages one after the other.

    magic number · protocol version · sizes and byte order of the machine · the object · the keys of the storages
    for each key: the number of elements (int64), then the elements

Numbers and elements are little-endian whatever machine wrote them, and whatever it says about itself: PyTorch converts
them when it writes and never looks at the third pickle.
"""

from __future__ import annotations

from typing import BinaryIO

from minires.arrays import Array
from minires.weights import state_dict, torch_arrays, torch_objects
from minires.weights.file import WeightsError, quoted
from minires.weights.pickles import Source, load
from minires.weights.torch_objects import Storage, element_bytes

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def read(file: BinaryIO, size: int) -> tuple[dict[str, Array], dict[str, str], str]:
    """Arrays by name, their types as stored, and the key of the checkpoint that the state dict stood under."""
    source = Source(file, size)
    magic = load(source, torch_objects.find)
    if type(magic) is not int or magic != MAGIC:
        raise WeightsError("is a pickle, but not one that torch.save wrote")
    version = load(source, torch_objects.find)
    if type(version) is not int or version != VERSION:
        raise WeightsError("is of an unknown version of PyTorch's legacy format")
    load(source, torch_objects.find)
    storages: dict[str, Storage] = {}
    loaded = load(source, torch_objects.find, lambda identity: torch_objects.storage(identity, storages))
    keys = load(source, torch_objects.find)
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise WeightsError("broken: the list of its storages is none")
    tensors, inside = state_dict.find(loaded)
    places = _places(source, keys, storages)

    def content(storage: Storage) -> bytes:
        if storage.key not in places:
            raise WeightsError(f"broken: storage {quoted(storage.key)} is missing")
        start, count = places[storage.key]
        file.seek(start)
        found = file.read(count)
        if len(found) != count:
            raise WeightsError("truncated: it ends within a storage")
        return found

    return *torch_arrays.build(tensors, content, "<", torch_arrays.allowed_bytes(size)), inside


def _places(source: Source, keys: list[str], storages: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Where the elements of each storage begin, and their number of bytes; that all of them are there."""
    places = {}
    for key in keys:
        if key not in storages:
            raise WeightsError(f"broken: it lists a storage {quoted(key)} that nothing uses")
        told = storages[key].whole
        if source.left < 8:
            raise WeightsError("truncated: it ends before its last storage")
        count = int.from_bytes(source.take(8), "little", signed=True)
        if count != told:
            raise WeightsError(f"broken: storage {quoted(key)} holds {count:,} elements, not {told:,}")
        size = count * element_bytes(storages[key].dtype)
        if size > source.left:
            raise WeightsError(f"truncated: storage {quoted(key)} takes {size:,} bytes, {source.left:,} are left")
        places[key] = source.file.tell(), size
        source.file.seek(size, 1)
        source.left -= size
    if source.left:
        raise WeightsError(f"broken: {source.left:,} bytes follow the last storage")
    return places
