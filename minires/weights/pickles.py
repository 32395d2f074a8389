"""Pickles read as data: a stack machine for the opcodes that `torch.save` writes, which imports and calls nothing.

Why not `pickle.Unpickler` with its `find_class` overridden, which closes the door to `os.system`?  What remains open
there takes the process down all the same: a memo index of 2^31 allocates that many places, a string may claim 2^60
bytes, BUILD sets attributes, and a tuple that holds itself twice, fifty levels deep, takes 2^50 steps to hash as a key.
Here no opcode allocates before the bytes it asks for are known to be there, keys are strings or 64-bit integers, values
are never hashed, compared, printed or walked, and the number of steps is bounded.  It is also the shorter way: what a
state dict needs is two thirds of the opcodes, a few lines each.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from minires.weights.file import WeightsError, plain

STEPS = 300_000  # a tensor takes some 40: ResNet-152 with all of Adam's state takes a third of it
LONGEST_NUMBER = 255  # bytes
LONGEST_NAME = 256  # bytes of a module's or a function's name


@dataclass(frozen=True)
class Function:
    """What a global stands for, where the pickle may call it: a function of this package over the arguments."""

    name: str
    build: Callable[[tuple[Any, ...]], Any]


class UnknownGlobal(WeightsError):
    """The pickle names something that no state dict needs."""


class Source:
    """The bytes of a pickle; asked for more than there are, it raises instead of reading."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def take(self, count: int) -> bytes:
        if count > self.left:
            self.ended()
        taken = self.file.read(count)
        if len(taken) != count:
            self.ended()
        self.left -= count
        return taken

    def line(self) -> str:
        """Up to the next newline, which is dropped."""
        text = self.file.readline(min(LONGEST_NAME + 1, self.left))
        self.left -= len(text)
        if not text.endswith(b"\n"):
            raise WeightsError("broken pickle: a name without an end")
        return _text(text[:-1])

    def peek(self, count: int) -> bytes:
        place = self.file.tell()
        ahead = self.file.read(min(count, self.left))
        self.file.seek(place)
        return ahead

    def ended(self) -> NoReturn:
        raise WeightsError("truncated: it ends within a pickle")


def load(
    source: Source, find: Callable[[str, str], object], persistent: Callable[[object], object] | None = None
) -> Any:
    """The object that the pickle at `source` describes, up to and including its STOP.

    find         what stands for the global of a module and a name; raises UnknownGlobal
    persistent   what stands for a persistent id
    Raises WeightsError for a broken pickle, one too long, and any opcode that is not needed for a state dict.
    """
    machine = _Machine(source, find, persistent)
    while True:
        machine.spend(1)
        opcode = source.take(1)
        if opcode == pickle.STOP:
            return machine.pop()
        step = _OPCODES.get(opcode)
        if step is None:
            known = {code.code: f"the opcode {code.name}" for code in pickletools.opcodes}
            name = known.get(opcode.decode("latin-1"), f"the byte {opcode[0]:#04x}")
            raise WeightsError(f"unsafe or broken pickle: {name} is not part of a state dict")
        step(machine)


class _Machine:
    def __init__(
        self,
        source: Source,
        find: Callable[[str, str], object],
        persistent: Callable[[object], object] | None,
    ) -> None:
        self.source, self.find, self.persistent = source, find, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each MARK
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEPS:
            raise WeightsError(f"the pickle takes more than {STEPS:,} steps: save the state dict alone")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise WeightsError("broken pickle: nothing left on its stack")
        return self.stack.pop()

    def top(self, kind: type, opcode: str) -> Any:
        value = self.stack[-1] if self.stack else None
        if type(value) is not kind:
            raise WeightsError(f"broken pickle: {opcode} on {type(value).__name__}")
        return value

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise WeightsError("broken pickle: a MARK is missing")
        values, self.stack = self.stack, self.below.pop()
        return values

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    # Values

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.source.take(width), "little", signed=signed)

    def long(self, width: int) -> None:
        size = self.number(width)
        if size > LONGEST_NUMBER:
            raise WeightsError(f"the pickle holds a number of {size:,} bytes")
        self.push(self.number(size, signed=True))

    def float(self) -> None:
        self.push(struct.unpack(">d", self.source.take(8))[0])

    def text(self, width: int) -> None:
        self.push(_text(self.source.take(self.number(width))))

    def bytes(self, width: int) -> None:
        self.push(self.source.take(self.number(width)))

    def string(self, width: int) -> None:
        """A string of Python 2, which was either text or bytes."""
        content = self.source.take(self.number(width))
        try:
            self.push(content.decode())
        except UnicodeDecodeError:
            self.push(content)

    # Containers

    def tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise WeightsError("broken pickle: nothing left on its stack")
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def append(self, values: list[Any]) -> None:
        self.top(list, "APPEND").extend(values)

    def set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise WeightsError("broken pickle: a key without a value")
        target = self.top(dict, "SETITEM")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    # The memo

    def put(self, index: int) -> None:
        value = self.pop()
        self.memo[index] = value
        self.push(value)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise WeightsError(f"broken pickle: its memo holds nothing at {index}")
        self.push(self.memo[index])

    # What would run code elsewhere

    def frame(self) -> None:
        if self.number(8) > self.source.left:
            self.source.ended()

    def protocol(self) -> None:
        if (number := self.number(1)) > pickle.HIGHEST_PROTOCOL:
            raise WeightsError(f"broken pickle: there is no protocol {number}")

    def find_global(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise WeightsError("broken pickle: a global that has no name")
        try:
            self.push(self.find(module, name))
        except UnknownGlobal:
            # What every pickled torch.nn.Module goes on with; its class alone, the user's own, says nothing.
            ahead = self.source.peek(1 << 16)
            if module.startswith("torch.nn.") or (b"_parameters" in ahead and b"_modules" in ahead):
                raise WeightsError(
                    f"holds a whole pickled model (class {plain(f'{module}.{name}')}), none of which was "
                    "executed: save its state_dict() instead"
                ) from None
            raise

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not Function:
            raise WeightsError(f"unsafe or broken pickle: it calls {type(function).__name__}")
        if type(arguments) is not tuple:
            raise WeightsError(f"broken pickle: {function.name} is called without arguments")
        # They may be long, and the memo hands them out again and again.
        self.spend(len(arguments))
        self.spend(sum(len(argument) for argument in arguments if type(argument) in (tuple, list)))
        self.push(function.build(arguments))

    def build(self) -> None:
        """Attributes: a state dict's `_metadata`, a NumPy type's byte order.  None of them is needed, none is set."""
        self.pop()
        if not self.stack or type(self.stack[-1]) not in (dict, Opaque):
            raise WeightsError("unsafe or broken pickle: BUILD on what has no attributes")

    def persist(self) -> None:
        if self.persistent is None:
            raise WeightsError("unsafe or broken pickle: a persistent id where none belongs")
        self.push(self.persistent(self.pop()))


@dataclass(frozen=True)
class Opaque:
    """A value that is of no use here and was never made: a device, a NumPy scalar."""

    name: str


def checked_key(key: Any) -> str | int:
    if type(key) is str or (type(key) is int and -(1 << 63) <= key < 1 << 63):
        return key
    raise WeightsError(f"unsafe or broken pickle: a dictionary's key is a {type(key).__name__}")


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WeightsError("broken pickle: text that is not UTF-8") from None


_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: _Machine.frame,
    pickle.MARK: _Machine.mark,
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number(4, signed=True)),
    pickle.BININT1: lambda m: m.push(m.number(1)),
    pickle.BININT2: lambda m: m.push(m.number(2)),
    pickle.LONG1: lambda m: m.long(1),
    pickle.LONG4: lambda m: m.long(4),
    pickle.BINFLOAT: _Machine.float,
    pickle.SHORT_BINUNICODE: lambda m: m.text(1),
    pickle.BINUNICODE: lambda m: m.text(4),
    pickle.BINUNICODE8: lambda m: m.text(8),
    pickle.SHORT_BINSTRING: lambda m: m.string(1),
    pickle.BINSTRING: lambda m: m.string(4),
    pickle.SHORT_BINBYTES: lambda m: m.bytes(1),
    pickle.BINBYTES: lambda m: m.bytes(4),
    pickle.BINBYTES8: lambda m: m.bytes(8),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.tuple(1),
    pickle.TUPLE2: lambda m: m.tuple(2),
    pickle.TUPLE3: lambda m: m.tuple(3),
    pickle.TUPLE: lambda m: m.push(tuple(m.since_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.APPEND: lambda m: m.append([m.pop()]),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.BINPUT: lambda m: m.put(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.put(m.number(4)),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.BINGET: lambda m: m.get(m.number(1)),
    pickle.LONG_BINGET: lambda m: m.get(m.number(4)),
    pickle.GLOBAL: lambda m: m.find_global(m.source.line(), m.source.line()),
    pickle.STACK_GLOBAL: lambda m: m.find_global(*[m.pop(), m.pop()][::-1]),
    pickle.REDUCE: _Machine.reduce,
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.persist,
}
