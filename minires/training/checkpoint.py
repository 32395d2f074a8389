"""Checkpoints: everything a run needs to go on, in two files that hold no code.

    iteration-00000470-1f0c3a55.safetensors   weights and running statistics ("model.…"), velocities of SGD
                                              ("velocity.…"), the mean image ("input.mean")
    iteration-00000470.json                   the rest: iteration, configuration, history, random state, and the name,
                                              size and SHA-256 of the tensors' file

The JSON is written last and removed first, and either is on the disk before the next step: where a JSON is, the pair is
complete, whenever a process is killed or the power fails.  The tensors' name holds the head of their checksum: to write
the same iteration again never touches a file that a JSON names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from minires import _checks
from minires._atomic import NotRegularError, make_folder, read_bytes, sync_folder, write_bytes, write_text
from minires._atomic import sweep as sweep_temporaries
from minires._checks import integer, number
from minires.arrays import Array, on_cpu
from minires.training import history
from minires.training.config import Config, ConfigError
from minires.training.measured import Measured

FORMAT, VERSION = "minires checkpoint", 1
MOST_ROWS = 150_000  # of a history, each at most 200 bytes of JSON
LARGEST_JSON = 32 << 20  # bytes: those, and the names of 21,841 classes; parsed it takes at most 24 times the memory
LONGEST_HEADER = 4 << 20  # bytes of the tensors' file: some 40,000 tensors


class CheckpointError(RuntimeError):
    """A file that is no whole checkpoint of this program: broken, foreign, or of a newer version."""


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
    interval       of the training batches since the last row
    rows           the history so far
    seconds        training time so far
    data           `Dataset.digest` of "train" and "test"; empty in a checkpoint that was written without them
    ranks          processes that trained; 0 in a checkpoint that was written without the number
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
    interval: Measured = field(default_factory=Measured)
    rows: tuple[history.Row, ...] = ()
    seconds: float = 0.0
    data: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 0

    def __repr__(self) -> str:
        return f"<checkpoint of {self.config.network} on {self.config.data}; {self.state()}>"

    def state(self) -> str:
        """How far the run was, in a few words."""
        measured = history.History(self.rows)
        return measured.last() if measured else f"iteration {self.iteration:,}, nothing measured yet"


def save(checkpoint: Checkpoint, folder: Path, keep: int = 1, keep_best: bool = False) -> Path:
    """Writes the pair into the folder and returns the path of its JSON; then all but the `keep` newest pairs go.

    keep_best   the one with the lowest test error in the history stays too

    Raises OSError when it cannot be written; what was there before is still there then, and nothing half is.
    """
    if not folder.is_dir():
        make_folder(folder)
    arrays = {f"model.{name}": array for name, array in checkpoint.model.items()}
    arrays |= dict(checkpoint.velocity)
    arrays["input.mean"] = checkpoint.mean
    content = _safetensors({name: _on_cpu(array) for name, array in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    name = _name(checkpoint.iteration)
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
        "data": dict(checkpoint.data),
        "ranks": checkpoint.ranks,
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
    forget_others(description, checkpoint.rows, keep, keep_best)
    return description


def load(path: Path) -> Checkpoint:
    """Reads a pair, given either file of it; nothing in it is executed.

    Raises FileNotFoundError when there is no such file and CheckpointError for anything that is not a whole checkpoint.
    """
    path = _checks.path(path, "path")
    path = _description(path)
    told = _told(path)
    try:
        arrays = _tensors(path, told["tensors"])
        model = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
        velocity = {k: v for k, v in arrays.items() if k.startswith("velocity.")}
        loss, wrong, images = told["interval"]
        C, H, W = (integer(n, "input_shape", 1) for n in told["input_shape"])
        rows = _rows(told)
        iteration = integer(told["iteration"], "iteration", 0)
        if arrays["input.mean"].shape != (H, W, C):
            raise ValueError(f"input_shape is {(C, H, W)}, the mean image has shape {arrays['input.mean'].shape}")
        if iteration != (rows[-1].iteration if rows else 0) and images == 0:
            raise ValueError(f"iteration {iteration} has neither a row of the history nor sums since the last one")
        return Checkpoint(
            iteration=iteration,
            config=Config.from_json(told["config"]),
            model=model,
            velocity=velocity,
            mean=arrays["input.mean"],
            classes=_classes(told["classes"]),
            input_shape=(C, H, W),
            random_state=_random_state(told["random_state"]),
            schedule=dict(told["schedule"]),
            interval=Measured(
                number(loss, "interval", 0), integer(wrong, "interval", 0), integer(images, "interval", 0)
            ),
            rows=rows,
            seconds=number(told["seconds"], "seconds", 0),
            data=_digests(told.get("data", {})),
            ranks=integer(told.get("ranks", 0), "ranks", 0),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error} is missing") from None
    except (ConfigError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None


def find(path: Path) -> Path:
    """The JSON of a checkpoint: of `path` itself, or the newest one of a run folder or of its folder of checkpoints.

    RUN/best, unless there is such a file, is the one with the lowest test error of the run so far.

    Raises FileNotFoundError that says what was looked for, and CheckpointError when a broken file hides the best one.
    """
    path = _checks.path(path, "path")
    if os.path.isdir(path):
        found = [*_all(path / "checkpoints"), *_all(path)]
        if not found:
            raise FileNotFoundError(f"{path} holds no checkpoint (looked for checkpoints/iteration-*.json)")
        return max(found, key=_iteration)
    if _is_best(path):
        return best(find(path.parent))
    description = _description(path)
    if not os.path.exists(description):
        raise FileNotFoundError(f"no checkpoint at {path}: {description} is not there")
    return description


BEST = "best"


def _is_best(path: Path) -> bool:
    return path.name == BEST and not path.exists() and path.parent.is_dir()


def best(description: Path) -> Path:
    """The JSON of the checkpoint with the lowest test error in the history of a given one's JSON.

    Raises FileNotFoundError when that was not kept or no test error was measured, and CheckpointError.
    """
    try:
        row = history.best(_rows(_told(description)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{description} is not a whole checkpoint: no history ({error})") from None
    holds = f"{description.parent} holds no best checkpoint"
    if row is None:
        raise FileNotFoundError(f"{holds}: no test error was measured yet")
    found = description.with_name(f"{_name(row.iteration)}.json")
    if not found.is_file():
        told = f"the lowest test error was that of iteration {row.iteration:,}, which was not kept"
        raise FileNotFoundError(f"{holds}: {told} (train with --keep-best)")
    return found


def _told(path: Path) -> dict[str, Any]:
    """What the JSON says, of which only format and version are known to be right."""
    try:
        told = json.loads(read_bytes(path, LARGEST_JSON))
    except (NotRegularError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: no valid JSON ({error})") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not a checkpoint: its "format" is not {FORMAT!r}')
    if told.get("version") != VERSION:
        raise CheckpointError(f"{path} has format version {told.get('version')!r}; this minires reads {VERSION}")
    return told


def _rows(told: Mapping[str, Any]) -> history.History:
    return history.History(history.row(values, f"row {i}") for i, values in enumerate(told["history"]))


def _tensors(path: Path, told: Any) -> dict[str, Array]:
    name = str(told["file"])
    if Path(name).name != name or _description(Path(name)).name != path.name:  # never a path that leads elsewhere
        raise CheckpointError(f"{path} names {name!r} as its tensors, which must be {path.stem}-….safetensors")
    file = path.with_name(name)
    damaged = f"{file} is damaged: its size or SHA-256 is not the one in {path.name}"
    try:
        content = read_bytes(file, integer(told["bytes"], "bytes", 0))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a whole checkpoint: {file} is missing") from None
    except NotRegularError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise CheckpointError(damaged) from None
    if len(content) != told["bytes"] or hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise CheckpointError(damaged)
    if int.from_bytes(content[:8], "little") > LONGEST_HEADER:
        raise CheckpointError(f"{file} is no valid safetensors file: its header exceeds {LONGEST_HEADER:,} bytes")
    try:
        return dict(safetensors.numpy.load(content))
    except (safetensors.SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} is no valid safetensors file: {error}") from None


def _safetensors(arrays: Mapping[str, Array]) -> bytes:
    """A safetensors file.

    The library would copy all arrays twice over: for networks of many parameters that were the peak of a run's memory.
    """
    header, end = {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    numbers = (array.reshape(-1).view(np.uint8).data for array in arrays.values())
    return b"".join((len(text).to_bytes(8, "little"), text, *numbers))


_DTYPES = {"float32": "F32", "float64": "F64"}


def _classes(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("classes must be a list of names")
    return tuple(names)


def _digests(told: Any) -> dict[str, str]:
    if not isinstance(told, dict) or not all(isinstance(digest, str) for digest in told.values()):
        raise TypeError("data must map splits to SHA-256 sums")
    return told


def _random_state(state: Any) -> dict[str, Any]:
    generator = np.random.PCG64(0)
    generator.state = state  # raises unless it fits
    return dict(state)


def _on_cpu(array: Any) -> Array:
    return np.ascontiguousarray(on_cpu(array))


def _name(iteration: int) -> str:
    return f"iteration-{iteration:08d}"


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
    if _is_best(path):
        return is_checkpoint(path.parent)
    # "model.safetensors.index.json" lists the parts of a published model
    return bool(_NAME.fullmatch(path.name)) or (path.suffix == ".json" and not path.name.endswith(".index.json"))


def sweep(folder: Path) -> None:
    """Removes what is no pair, nor part of one, where a process was killed while it saved."""
    sweep_temporaries(folder, "iteration-*")
    iterations = {_iteration(pair) for pair in _all(folder)}
    for file in _all(folder, ".safetensors"):
        if _iteration(file) not in iterations:
            file.unlink(missing_ok=True)


def forget_others(description: Path, rows: Iterable[history.Row], keep: int, keep_best: bool) -> None:
    """Removes the pairs that are not to be kept beside this one, and the leftovers of a process that was killed.

    What is newer than this one goes too: it belongs to a course of the run that was left by resuming from an earlier
    checkpoint.
    """
    folder = description.parent
    tensors = folder / str(_told(description)["tensors"]["file"])
    pairs = {_iteration(pair): pair for pair in _all(folder)}
    course = [iteration for iteration in pairs if iteration <= _iteration(description)]
    kept = set(course[-keep:])
    if keep_best:  # the best one as of each that is kept: whichever the run goes on from, it is there
        measured = [row for row in rows if row.iteration in course]
        bests = (history.best(row for row in measured if row.iteration <= last) for last in sorted(kept))
        kept |= {row.iteration for row in bests if row is not None}
    old = [pair for iteration, pair in pairs.items() if iteration not in kept]
    for pair in old:
        pair.unlink(missing_ok=True)
    if old:
        sync_folder(folder)  # or a power failure might leave a JSON whose tensors are gone
    for file in _all(folder, ".safetensors"):
        if _iteration(file) == _iteration(tensors) and file != tensors:
            file.unlink(missing_ok=True)
    sweep(folder)
