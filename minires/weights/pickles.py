"""Reads pickles as data: a stack machine for the opcodes that `torch.save` writes, which imports and calls nothing.

`pickletools` parses the opcodes.  `pickle.Unpickler` with its own `find_class` would not be safe enough.  It keeps
`os.system` out, but a hostile pickle can still exhaust the process or change objects:

- A memo index of 2^31 allocates that many places, and a string may claim 2^60 bytes.
- BUILD sets attributes.
- A tuple that holds itself twice, fifty levels deep, takes 2^50 steps to hash as a key.

Here no opcode allocates more bytes than the file has left.  Keys are strings or 64-bit integers.  Values are never
hashed, compared, printed or traversed, and the number of steps is bounded.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from minires.weights.weight_file import WeightsError, plain

STEPS = 300_000  # a tensor takes about 40: ResNet-152 with all of Adam's state takes a third of it
LONGEST_NUMBER = 255  # bytes
LONGEST_LINE = 256  # bytes: the name of a module or a function

Find = Callable[[str, str], object]  # (module, name of a global) -> its replacement, or None
Persistent = Callable[[object], object]  # persistent id -> its replacement


@dataclass(frozen=True)
class Function:
    """Stands for a global that the pickle may call; `build` takes the tuple of arguments."""

    name: str
    build: Callable[[tuple[Any, ...]], Any]


class Opaque:
    """Stands for a value that is not needed and not constructed: a device, a NumPy scalar."""


class Source:
    """A file whose `read` raises WeightsError, before it allocates memory, if fewer bytes are left than requested."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        self.left -= count
        if self.left < 0 or len(content := self.file.read(count)) != count:
            raise WeightsError("truncated: it ends within a pickle")
        return content

    def readline(self) -> bytes:
        """Reads a name and its newline."""
        line = self.file.readline(min(LONGEST_LINE, self.left))
        self.left -= len(line)
        if not line.endswith(b"\n") or b"\\" in line:  # pickletools would replace escapes
            raise WeightsError(f"broken pickle: a line of more than {LONGEST_LINE} bytes, or with a backslash")
        return line

    def peek(self, count: int) -> bytes:
        place = self.file.tell()
        ahead = self.file.read(min(count, self.left))
        self.file.seek(place)
        return ahead


def load(source: Source, find: Find, persistent: Persistent | None = None) -> Any:
    """Reads the pickle at `source`, up to and including its STOP; returns the object that it describes.

    Raises WeightsError for a broken pickle, for too many steps, and for an opcode that no state dict needs.
    """
    machine = _Machine(source, find, persistent)
    for opcode, argument in _opcodes(source):
        machine.spend(1)
        machine.step(opcode, argument)
    return machine.pop()


def _opcodes(source: Source) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
            yield opcode.name, argument
    except UnicodeError:
        raise WeightsError("broken pickle: text that is not UTF-8") from None
    except ValueError as error:
        reason = plain(error).removeprefix("at position <unknown>, ")
        raise WeightsError(f"broken pickle: {reason}") from None


class _Machine:
    def __init__(self, source: Source, find: Find, persistent: Persistent | None) -> None:
        self.source, self.find, self.persistent = source, find, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack under each MARK
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEPS:
            raise WeightsError(f"the pickle takes more than {STEPS:,} steps: save the state dict alone")

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

    def step(self, opcode: str, argument: Any) -> None:
        push = self.stack.append
        match opcode:
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                push(_without_surrogates(argument))
            case "BINFLOAT" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                push(argument)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4":
                if argument.bit_length() > 8 * LONGEST_NUMBER:
                    raise WeightsError(f"the pickle holds a number of more than {LONGEST_NUMBER} bytes")
                push(argument)
            case "SHORT_BINSTRING" | "BINSTRING":
                push(_python2_string(argument))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}[opcode])
            case "EMPTY_LIST" | "EMPTY_DICT":
                push([] if opcode == "EMPTY_LIST" else {})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([self.pop() for _ in range(int(opcode[-1]))][::-1]))
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "TUPLE":
                values = self.since_mark()
                self.stack.append(tuple(values))
            case "APPEND":
                value = self.pop()
                self.top(list, opcode).append(value)
            case "APPENDS":
                values = self.since_mark()
                self.top(list, opcode).extend(values)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.top(dict, opcode)[checked_key(key)] = value
            case "SETITEMS":
                values = self.since_mark()
                if len(values) % 2:
                    raise WeightsError("broken pickle: a key without a value")
                target = self.top(dict, opcode)
                for key, value in zip(values[::2], values[1::2], strict=True):
                    target[checked_key(key)] = value
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                push(value := self.pop())
                self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = value
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise WeightsError(f"broken pickle: its memo holds nothing at {argument}")
                push(self.memo[argument])
            case "GLOBAL":
                push(self.find_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                push(self.find_global(module, name))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                push(self.call(function, arguments))
            case "BUILD":  # sets attributes, which are not needed: a state dict's _metadata, a NumPy type's byte order
                self.pop()
                if not self.stack or type(self.stack[-1]) not in (dict, Opaque):
                    raise WeightsError("unsafe or broken pickle: BUILD on an object without attributes")
            case "BINPERSID":
                if self.persistent is None:
                    raise WeightsError("unsafe or broken pickle: unexpected persistent id")
                push(self.persistent(self.pop()))
            case "PROTO":
                if argument > pickle.HIGHEST_PROTOCOL:
                    raise WeightsError(f"broken pickle: unknown protocol {argument}")
            case "FRAME":
                if argument > self.source.left:
                    raise WeightsError("truncated: it ends within a pickle")
            case "STOP":
                pass
            case _:
                raise WeightsError(f"unsafe or broken pickle: the opcode {opcode} is not part of a state dict")

    def find_global(self, module: object, name: object) -> object:
        if type(module) is not str or type(name) is not str:
            raise WeightsError("broken pickle: a global without a name")
        if (found := self.find(module, name)) is not None:
            return found
        # The state of a pickled torch.nn.Module follows its class, which the user may have written.
        ahead, whole = self.source.peek(1 << 16), plain(f"{module}.{name}")
        if module.startswith("torch.nn.") or (b"_parameters" in ahead and b"_modules" in ahead):
            raise WeightsError(
                f"holds a whole pickled model (class {whole}), which was not executed: save its state_dict() instead"
            )
        raise WeightsError(f"unsafe or not a state dict: it names {whole}, which was not executed")

    def call(self, function: object, arguments: object) -> object:
        if type(function) is not Function:
            raise WeightsError(f"unsafe or broken pickle: it calls {type(function).__name__}")
        if type(arguments) is not tuple:
            raise WeightsError(f"broken pickle: {function.name} is called without arguments")
        # A pickle can call a function many times with long arguments from its memo.
        self.spend(len(arguments) + sum(len(a) for a in arguments if type(a) in (tuple, list)))
        return function.build(arguments)


def checked_key(key: Any) -> str | int:
    if type(key) is str or (type(key) is int and -(1 << 63) <= key < 1 << 63):
        return key
    raise WeightsError(f"unsafe or broken pickle: a dictionary's key is a {type(key).__name__}")


def _without_surrogates(text: str) -> str:
    """Returns the text; raises WeightsError if pickletools decoded surrogates, which are invalid and not printable."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise WeightsError("broken pickle: text that is not UTF-8") from None
    return text


def _python2_string(text: str) -> str | bytes:
    """A string of Python 2, which pickletools decodes as Latin-1, as text or, if it is not UTF-8, as bytes."""
    content = text.encode("latin-1")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
