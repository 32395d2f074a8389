"""The run folder: config.json, history.csv, curves.png, checkpoints/."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from minires import _checks
from minires._atomic import write_text
from minires.training import curves, history
from minires.training.config import Config, ConfigError


class RunFolder:
    """Where the files of one run are."""

    def __init__(self, path: Path) -> None:
        self.path = path = _checks.path(path, "path")
        self.config = path / "config.json"
        self.history = path / "history.csv"
        self.curves = path / "curves.png"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def claim(cls, out: Path | None, config: Config, root: Path = Path("runs")) -> RunFolder:
        """A new folder: `out`, which must be new or empty, or else the next free runs/<network>-<data>-<number>.

        Raises ConfigError when it cannot be had.
        """
        root = _checks.path(root, "root")
        out = None if out is None else _checks.path(out, "out")
        if not hasattr(config, "network"):
            raise TypeError(f"config must be a Config, got {type(config).__name__}")
        try:
            if out is None:
                return cls(_next_free(root, f"{config.network}-{config.data}"))
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise ConfigError(f"{out} is not empty: go on with --resume {out}, or choose another folder with --out")
            return cls(out)
        except OSError as error:
            told = f"{out or root}: {error.strerror or error}"
            which = "out must be a folder, new or empty; none" if out is not None else "no run folder"
            raise ConfigError(f"{which} can be made at {told}") from None

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder:
        """The run that a checkpoint belongs to."""
        folder = _checks.path(checkpoint, "checkpoint").parent
        return cls(folder.parent if folder.name == "checkpoints" else folder)

    def write_config(self, config: Config) -> None:
        write_text(self.config, json.dumps(config.to_json(), indent=2) + "\n")

    def write_history(self, rows: list[history.Row]) -> None:
        history.write(self.history, rows)

    def write_curves(self, rows: list[history.Row], config: Config) -> None:
        curves.draw({config.network: rows}, self.curves, title=f"{config.network} on {config.data}")


def _next_free(root: Path, name: str) -> Path:
    for number in itertools.count(1):
        path = root / f"{name}-{number}"
        try:
            path.mkdir(parents=True)  # fails where another process was faster
            return path
        except FileExistsError:
            if not path.exists():
                raise  # it is `root` that is in the way
    raise AssertionError
