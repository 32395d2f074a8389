"""Checkpoints: everything a run needs to go on, in two files that hold no code.

    iteration-00000470-1f0c3a55.safetensors   weights and running statistics ("model.…"), velocities of SGD
                                              ("velocity.…"), the mean image ("input.mean")
    iteration-00000470.json                   the rest: iteration, configuration, history, random state, and the name,
                                              size and SHA-256 of the tensors' file

The JSON is written last: where it is, the pair is complete.  The tensors' name holds the head of their checksum: to
write the same iteration again never touches a file that a JSON names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from minires import _checks
from minires._atomic import write_bytes, write_text
from minires._checks import integer, number
from minires.arrays import Array
from minires.training import history
from minires.training.config import Config, ConfigError

FORMAT, VERSION = "minires checkpoint", 1


class CheckpointError(RuntimeError):
    """A file that is no whole checkpoint of this program: broken, foreign, or of a newer version."""


@dataclass(frozen=True)
class Interval:
    """Sums over the training batches since the last row of the history."""

    loss: float = 0.0
    wrong: int = 0
    images: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    iteration      updates done
    config         the run's configuration
    model          plain arrays by the names of `Module.state_dict`
    velocity       of `SGD.state_dict`
    mean           the mean image that is subtracted from every input, (H, W, C) as `data.pixel_mean` gives it
    classes        names of the classes, in the order of the network's outputs
    input_shape    (C, H, W) of what the network is given
    random_state   of the generator that dropout draws from
    schedule       of `Schedule.state_dict`
    interval       sums since the last row
    rows           the history so far
    seconds        training time so far
    """

    iteration: int
    config: Config
    model: Mapping[str, Array]
    velocity: Mapping[str, Array]
    mean: Array
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    random_state: Mapping[str, Any]
    schedule: Mapping[str, Any] = field(default_factory=dict)
    interval: Interval = Interval()
    rows: tuple[history.Row, ...] = ()
    seconds: float = 0.0


def save(checkpoint: Checkpoint, folder: Path, keep: int = 1) -> Path:
    """Writes the pair into the folder and returns the path of its JSON; then all but the `keep` newest pairs go.

    Raises OSError when it cannot be written; what was there before is still there then, and nothing half is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"model.{name}": array for name, array in checkpoint.model.items()}
    arrays |= dict(checkpoint.velocity)
    arrays["input.mean"] = checkpoint.mean
    content = safetensors.numpy.save({name: _on_cpu(array) for name, array in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"iteration-{checkpoint.iteration:08d}"
    tensors, description = folder / f"{name}-{sha256[:8]}.safetensors", folder / f"{name}.json"
    told = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": {"file": tensors.name, "bytes": len(content), "sha256": sha256},
        "iteration": checkpoint.iteration,
        "config": checkpoint.config.to_json(),
        "classes": list(checkpoint.classes),
        "input_shape": list(checkpoint.input_shape),
        "random_state": checkpoint.random_state,
        "schedule": checkpoint.schedule,
        "interval": list(astuple(checkpoint.interval)),
        "history": [list(astuple(row)) for row in checkpoint.rows],
        "seconds": checkpoint.seconds,
    }
    text = json.dumps(told, allow_nan=False)
    new = not tensors.exists()
    try:
        write_bytes(tensors, content)
        write_text(description, text)
    except BaseException:
        with contextlib.suppress(OSError):
            if new and not (description.exists() and tensors.name in description.read_text()):
                tensors.unlink()
        raise
    _forget_all_but(folder, keep, description, tensors)
    return description


def load(path: Path) -> Checkpoint:
    """Reads a pair, given either file of it; nothing in it is executed.

    Raises FileNotFoundError when there is no such file and CheckpointError for anything that is not a whole checkpoint.
    """
    path = _checks.path(path, "path")
    path = _description(path)
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: no valid JSON ({error})") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not a checkpoint: its "format" is not {FORMAT!r}')
    if told.get("version") != VERSION:
        raise CheckpointError(f"{path} has format version {told.get('version')!r}; this minires reads {VERSION}")
    try:
        arrays = _tensors(path, told["tensors"])
        model = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
        velocity = {k: v for k, v in arrays.items() if k.startswith("velocity.")}
        loss, wrong, images = told["interval"]
        C, H, W = (integer(n, "input_shape", 1) for n in told["input_shape"])
        rows = tuple(history.row(values, f"row {i}") for i, values in enumerate(told["history"]))
        iteration = integer(told["iteration"], "iteration", 0)
        if iteration != (rows[-1].iteration if rows else 0) and images == 0:
            raise ValueError(f"iteration {iteration} has neither a row of the history nor sums since the last one")
        return Checkpoint(
            iteration=iteration,
            config=Config.from_json(told["config"]),
            model=model,
            velocity=velocity,
            mean=arrays["input.mean"],
            classes=tuple(str(name) for name in told["classes"]),
            input_shape=(C, H, W),
            random_state=_random_state(told["random_state"]),
            schedule=dict(told["schedule"]),
            interval=Interval(
                number(loss, "interval", 0), integer(wrong, "interval", 0), integer(images, "interval", 0)
            ),
            rows=rows,
            seconds=number(told["seconds"], "seconds", 0),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error} is missing") from None
    except (ConfigError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None


def find(path: Path) -> Path:
    """The JSON of a checkpoint: of `path` itself, or the newest one of a run folder or of its folder of checkpoints.

    Raises FileNotFoundError that says what was looked for.
    """
    path = _checks.path(path, "path")
    if os.path.isdir(path):
        found = [*_all(path / "checkpoints"), *_all(path)]
        if not found:
            raise FileNotFoundError(f"{path} holds no checkpoint (looked for checkpoints/iteration-*.json)")
        return max(found, key=_iteration)
    description = _description(path)
    if not os.path.isfile(description):
        raise FileNotFoundError(f"no checkpoint at {path}: {description} is not there")
    return description


def _tensors(path: Path, told: Any) -> dict[str, Array]:
    name = str(told["file"])
    if Path(name).name != name or _description(Path(name)).name != path.name:  # never a path that leads elsewhere
        raise CheckpointError(f"{path} names {name!r} as its tensors, which must be {path.stem}-….safetensors")
    file = path.with_name(name)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a whole checkpoint: {file} is missing") from None
    if len(content) != told["bytes"] or hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise CheckpointError(f"{file} is damaged: its size or SHA-256 is not the one in {path.name}")
    try:
        return dict(safetensors.numpy.load(content))
    except (safetensors.SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} is no valid safetensors file: {error}") from None


def _random_state(state: Any) -> dict[str, Any]:
    generator = np.random.PCG64(0)
    generator.state = state  # raises unless it fits
    return dict(state)


def _on_cpu(array: Any) -> Array:
    return np.ascontiguousarray(array if isinstance(array, np.ndarray) else array.get())


_NAME = re.compile(r"(iteration-(\d{8,}))(\.json|-[0-9a-f]{8}\.safetensors)")


def _description(path: Path) -> Path:
    """The JSON of the pair that a file belongs to."""
    match = _NAME.fullmatch(path.name)
    return path.with_name(f"{match[1]}.json") if match else path


def _all(folder: Path, suffix: str = ".json") -> list[Path]:
    """The files of checkpoints in a folder, the oldest first."""
    found = [file for file in folder.glob(f"iteration-*{suffix}") if _NAME.fullmatch(file.name)]
    return sorted(found, key=_iteration)


def _iteration(file: Path) -> int:
    match = _NAME.fullmatch(file.name)
    return int(match[2]) if match else -1


def is_checkpoint(path: Path) -> bool:
    """Whether a path is meant as a run folder or checkpoint of this program, and not as another's weight file."""
    if os.path.isdir(path):
        return bool(_all(path / "checkpoints") or _all(path))
    # "model.safetensors.index.json" lists the parts of a published model
    return bool(_NAME.fullmatch(path.name)) or (path.suffix == ".json" and not path.name.endswith(".index.json"))


def _forget_all_but(folder: Path, keep: int, description: Path, tensors: Path) -> None:
    """Removes old pairs, JSON first, and the leftovers of a process that was killed.

    What is newer than the pair just written goes too: it belongs to a course of the run that was left by resuming from
    an earlier checkpoint.
    """
    pairs = _all(folder)
    newest = pairs.index(description)
    kept = pairs[max(0, newest + 1 - keep) : newest + 1]
    for pair in pairs:
        if pair not in kept:
            pair.unlink(missing_ok=True)
    iterations = {_iteration(pair) for pair in kept}
    for file in _all(folder, ".safetensors"):
        if _iteration(file) not in iterations or (_iteration(file) == _iteration(tensors) and file != tensors):
            file.unlink(missing_ok=True)
    for file in folder.glob(".iteration-*.tmp"):
        file.unlink(missing_ok=True)
