"""The run folder: config.json, history.csv, curves.png, checkpoints/, and .lock during a run.

config.json is written first.  So the folder of a killed run can be resumed, at least from the beginning, or it is empty
and can be used for a new run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from minires import _checks
from minires._atomic import make_folder, read_bytes, refuse_link, sweep, write_text
from minires.training import checkpoint as checkpoints
from minires.training import history
from minires.training.checkpoint import CheckpointError
from minires.training.config import Config, ConfigError
from minires.training.lock import NAME as LOCK
from minires.training.lock import RunFolderError, locked


class RunFolder:
    """The paths of the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path = _checks.path(path, "path")
        self.config = path / "config.json"
        self.history = path / "history.csv"
        self.curves = path / "curves.png"
        self.checkpoints = path / "checkpoints"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    @contextlib.contextmanager
    def claim(cls, out: Path | None, config: Config, root: Path = Path("runs")) -> Iterator[RunFolder]:
        """A new folder, locked within the block and removed at its end if nothing was written.

        out   a new or empty folder; None: the next free runs/<network>-<data>-<number>

        Raises ConfigError for a folder that cannot be made or is not empty, RunFolderError when another run uses it.
        """
        root = _checks.path(root, "root")
        out = None if out is None else _checks.path(out, "out")
        _checks.instance(config, "config", Config)
        try:
            new = out is None or not out.exists()
            path = _next_free(root, f"{config.network}-{config.data}") if out is None else out
            make_folder(path)
        except OSError as error:
            which = "out must be a folder, new or empty; none" if out is not None else "no run folder"
            raise ConfigError(f"{which} can be made at {out or root}: {error.strerror or error}") from None
        folder = cls(path)
        try:
            with locked(path):
                if not folder._is_empty():
                    raise ConfigError(
                        f"{out} is not empty: go on with --resume {out}, or choose another folder with --out"
                    )
                yield folder
        finally:
            with contextlib.suppress(OSError):
                if new:
                    path.rmdir()

    @classmethod
    def of(cls, path: Path) -> RunFolder:
        """The run folder that contains `path`: the folder itself, its folder of checkpoints, or a checkpoint."""
        path = _checks.path(path, "path")
        if not path.is_dir():
            path = path.parent
        own = (path / "config.json").exists() or (path / "checkpoints").exists()
        return cls(path.parent if path.name == "checkpoints" and not own else path)

    def begin(self, config: Config, rows: list[history.Row], checkpoint_bytes: int) -> None:
        """Writes the configuration and the history so far, removes temporary files, and checks the free space.

        Raises RunFolderError for a folder that is not writable, or too small for checkpoints of that size.
        """
        try:
            refuse_link(self.checkpoints)
            sweep(self.path, self.config.name, self.history.name, self.curves.name)
            checkpoints.sweep(self.checkpoints)
            self._demand_room(config.keep + config.keep_best, checkpoint_bytes)
            self.write_config(config)
            make_folder(self.checkpoints)
            with tempfile.TemporaryFile(dir=self.checkpoints):
                pass
            if rows:
                self.write_history(rows)
            else:  # left by a run that was killed before its first checkpoint
                self.history.unlink(missing_ok=True)
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(f"nothing can be written in {self.path}: {error.strerror or error}") from None

    def _demand_room(self, kept: int, checkpoint_bytes: int) -> None:
        """Checks the room for all kept checkpoints and the next one, which is written before an old one is removed."""
        existing = len(list(self.checkpoints.glob("iteration-*.json")))
        more = max(1, kept + 1 - existing)
        needed, free = checkpoint_bytes * more, shutil.disk_usage(self.path).free
        if free < needed:
            what = "the next checkpoint" if more == 1 else f"{more} checkpoints"
            raise RunFolderError(f"{self.path}: {what} of this run take {needed:,} bytes, the disk has {free:,} left")

    def read_config(self) -> Config:
        """The configuration of the run.  Raises CheckpointError for a broken or foreign file."""
        try:
            return Config.from_json(json.loads(read_bytes(self.config, checkpoints.LARGEST_JSON)))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.config} is not the configuration of a run: {error}") from None

    def write_config(self, config: Config) -> None:
        write_text(self.config, json.dumps(config.to_json(), indent=2) + "\n")

    def write_history(self, rows: list[history.Row]) -> None:
        history.write(self.history, rows)

    def write_curves(self, rows: list[history.Row], config: Config) -> None:
        history.draw(rows, self.curves, config.network, config.data)

    def _is_empty(self) -> bool:
        """Whether it has no files but the remains of a run that was killed before its first file was complete."""
        return all(file == self.checkpoints or _LEFTOVER.fullmatch(file.name) for file in self.path.rglob("*"))


_LEFTOVER = re.compile(rf"{re.escape(LOCK)}|\.(config|iteration).*\.tmp|iteration-\d{{8,}}-[0-9a-f]{{8}}\.safetensors")


def starting_point(path: Path) -> Path | None:
    """The checkpoint to resume from; None for a run without one, which starts from the beginning.

    path   a run folder (its newest checkpoint), its folder of checkpoints, a checkpoint, or RUN/best

    Raises FileNotFoundError when `path` contains neither a checkpoint nor the configuration of a run.
    """
    try:
        return checkpoints.find(path)
    except FileNotFoundError:
        if not path.is_dir():
            raise
    folder = RunFolder.of(path)
    if folder.config.is_file():
        return None
    begin = f"; begin a run there with: minires train --out {folder.path}" if folder._is_empty() else ""
    raise FileNotFoundError(f"{path} holds no run: neither a checkpoint nor config.json{begin}")


def resume_config(path: str | Path) -> Config:
    """The configuration of a run to resume: of its checkpoint, or of config.json before the first checkpoint.

    Raises the errors of `starting_point`, and CheckpointError for a broken file.
    """
    path = _checks.path(path, "path")
    start = starting_point(path)
    return RunFolder.of(path).read_config() if start is None else checkpoints.load(start).config


def _next_free(root: Path, name: str) -> Path:
    make_folder(root)
    for number in itertools.count(1):
        path = root / f"{name}-{number}"
        try:
            path.mkdir()  # fails if another process has just made it
            return path
        except FileExistsError:
            if not path.exists():
                raise  # `root` is not a folder
    raise AssertionError
