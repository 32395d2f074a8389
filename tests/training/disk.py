"""File operations of a program, one at a time: recorded, interrupted, or lost in a power failure.

`Disk` calls a function before every operation below a folder; the function may raise an error or end the process.
`crashes` yields every folder that a power failure may leave after the first operations of a record:

- the bytes of a file that was not synced since: all, none, the first half, or zeros
- of the changes to a folder (a new name, a rename, a removal) that was not synced since: any, and not the others
"""

from __future__ import annotations

import builtins
import copy
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minires import _atomic
from minires.training import checkpoint as checkpoints


@dataclass(frozen=True)
class Operation:
    """kind: mkdir, create, write, sync, rename (to `target`), unlink, or saved: the return of `checkpoint.save`."""

    kind: str
    path: str  # below the root, "." for the root itself
    target: str = ""
    content: bytes = b""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" -> {self.target}" if self.target else "")


class Disk:
    """A context in which `before` is called before every operation on a file below `root`."""

    def __init__(self, root: Path, before: Callable[[Operation], None]) -> None:
        self.root, self.before = root, before
        self.opened: dict[int, str] = {}  # descriptors

    def __enter__(self) -> Disk:
        self.patch = pytest.MonkeyPatch()
        self.real = {
            name: getattr(os, name) for name in ("open", "close", "write", "fsync", "replace", "unlink", "mkdir")
        }
        for name in self.real:
            self.patch.setattr(os, name, getattr(self, f"_{name}"))
        self.patch.setattr(_atomic, "open", self._open_file, raising=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _below(self, path: Any) -> str | None:
        """The path as seen from the root; None elsewhere."""
        if isinstance(path, int):
            return self.opened.get(path)
        full = Path(os.path.abspath(os.fspath(path)))
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else None

    def _report(self, kind: str, path: Any, **more: Any) -> None:
        if (below := self._below(path)) is not None:
            self.before(Operation(kind, below, **more))

    def _open_file(self, path: Path, mode: str = "r") -> object:
        if mode != "xb" or self._below(path) is None:
            return builtins.open(path, mode)
        self._report("create", path)
        return _Observed(builtins.open(path, mode, buffering=0), self, path)

    def _open(self, path: Any, flags: int, *more: int, **named: Any) -> int:
        temporary = flags & os.O_TMPFILE == os.O_TMPFILE  # has no name
        reading = not flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY)  # closed by its file object
        if flags & os.O_CREAT and not temporary and not os.path.exists(path):
            self._report("create", path)
        descriptor: int = self.real["open"](path, flags, *more, **named)
        if not temporary and not reading and (below := self._below(path)) is not None:
            self.opened[descriptor] = below
        return descriptor

    def _close(self, descriptor: int) -> None:
        self.opened.pop(descriptor, None)
        self.real["close"](descriptor)

    def _write(self, descriptor: int, content: bytes) -> int:
        self._report("write", descriptor, content=bytes(content))
        return int(self.real["write"](descriptor, content))

    def _fsync(self, descriptor: int) -> None:
        self._report("sync", descriptor)
        self.real["fsync"](descriptor)

    def _replace(self, path: Any, target: Any) -> None:
        self._report("rename", path, target=self._below(target))
        self.real["replace"](path, target)

    def _unlink(self, path: Any, **named: Any) -> None:
        if os.path.lexists(path):
            self._report("unlink", path)
        self.real["unlink"](path, **named)

    def _mkdir(self, path: Any, *more: Any) -> None:
        if not os.path.exists(path):
            self._report("mkdir", path)
        self.real["mkdir"](path, *more)


class _Observed:
    """A file open for writing, whose content is written in two halves."""

    def __init__(self, file: io.FileIO, disk: Disk, path: Path) -> None:
        self.file, self.disk, self.path = file, disk, path
        disk.opened[file.fileno()] = str(disk._below(path))
        self.fileno, self.flush = file.fileno, file.flush

    def __enter__(self) -> _Observed:
        return self

    def __exit__(self, *_: object) -> None:
        self.disk.opened.pop(self.file.fileno(), None)
        self.file.close()

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        for part in (content[:half], content[half:]):
            self.disk._report("write", self.path, content=bytes(part))
            self.file.write(part)


@dataclass
class _Inode:
    """A file or folder on the disk, and its changes since the last sync."""

    folder: bool
    content: bytes = b""
    synced: bool = True
    entries: dict[str, _Inode] = field(default_factory=dict)  # of a folder: names that last
    pending: list[tuple[tuple[str, ...], dict[str, _Inode]]] = field(default_factory=list)  # names gone, names new

    def now(self, applied: tuple[bool, ...] | None = None) -> dict[str, _Inode]:
        """The names after the pending changes, or some of them."""
        names = dict(self.entries)
        for (gone, new), applies in zip(self.pending, applied or (True,) * len(self.pending), strict=True):
            if applies:
                for name in gone:
                    names.pop(name, None)
                names |= new
        return names


def _tree(path: Path) -> _Inode:
    """The files on the disk, all synced."""
    if path.is_file():
        return _Inode(False, path.read_bytes())
    return _Inode(True, entries={file.name: _tree(file) for file in path.iterdir()} if path.is_dir() else {})


class Record(Disk):
    """Records the operations and the returns of checkpoint saves; `start` holds the files before."""

    def __init__(self, root: Path) -> None:
        self.operations: list[Operation] = []
        super().__init__(root, self.operations.append)
        self.start = _tree(root)

    def __enter__(self) -> Record:
        super().__enter__()
        save = checkpoints.save

        def noted(*args: Any, **named: Any) -> Path:
            path = save(*args, **named)
            self.operations.append(Operation("saved", str(path.relative_to(self.root))))
            return path

        self.patch.setattr(checkpoints, "save", noted)
        return self


State = tuple[tuple[str, bytes | None], ...]  # paths below the root with their bytes; None: a folder


def crashes(start: _Inode, operations: Sequence[Operation]) -> Iterator[tuple[int, State]]:
    """After every number of operations, each state that a power failure may leave; between two saves each one once."""
    root, seen = copy.deepcopy(start), set[State]()
    for number in range(len(operations) + 1):
        if number:
            _apply(root, operations[number - 1])
            if operations[number - 1].kind == "saved":  # from here on the check is stricter
                seen = set()
        for state in _states(root):
            if state not in seen:
                seen.add(state)
                yield number, state


def _apply(root: _Inode, operation: Operation) -> None:
    parent, name = _parent(root, operation.path)
    if operation.kind == "mkdir" and not name:  # the root itself is synced
        return
    if operation.kind in ("create", "mkdir"):
        old = parent.now().get(name)
        if old is not None and operation.kind == "create":  # truncated
            old.content, old.synced = b"", False
        else:
            parent.pending.append(((), {name: _Inode(operation.kind == "mkdir", synced=False)}))
    elif operation.kind == "write":
        file = parent.now()[name]
        file.content, file.synced = file.content + operation.content, False
    elif operation.kind == "sync":
        inode = parent.now()[name] if name else root
        inode.synced, inode.entries, inode.pending = True, inode.now(), []
    elif operation.kind == "rename":
        _, target = _parent(root, operation.target)
        parent.pending.append(((name,), {target: parent.now()[name]}))
    elif operation.kind == "unlink":
        parent.pending.append(((name,), {}))


def _parent(root: _Inode, path: str) -> tuple[_Inode, str]:
    """The folder of a path, and its name in it ("" for the root)."""
    *folders, name = Path(path).parts or ("",)
    for folder in folders:
        root = root.now()[folder]
    return root, name


def _states(inode: _Inode, path: str = "") -> Iterator[State]:
    if not inode.folder:
        yield from (((path, content),) for content in _contents(inode, path))
        return
    for applied in itertools.product((True, False), repeat=len(inode.pending)):
        names = inode.now(applied)
        within = [list(_states(names[name], f"{path}/{name}" if path else name)) for name in sorted(names)]
        for states in itertools.product(*within):
            yield (*(((path, None),) if path else ()), *itertools.chain.from_iterable(states))


def _contents(file: _Inode, path: str) -> set[bytes]:
    content = file.content
    if file.synced or path == ".lock":  # its content has no effect
        return {content}
    return {content, b"", content[: len(content) // 2], bytes(len(content))}


def build(state: State, root: Path) -> None:
    """Makes the folder that a state describes."""
    root.mkdir()
    for path, content in state:
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def full_from(number: int, error: OSError) -> Callable[[Operation], None]:
    """For `Disk`: the operation of that number, counted from 0, fails, and after it all that need room."""
    counted = itertools.count()

    def before(operation: Operation) -> None:
        at = next(counted)
        if at == number or (at > number and operation.kind in ("mkdir", "create", "write")):
            raise error

    return before
