"""Checkpoints: the complete state of a run, as two files without code.

    iteration-00000470-1f0c3a55.safetensors   weights and running statistics ("model.…"), velocities of SGD
                                              ("velocity.…"), the mean image ("input.mean")
    iteration-00000470.json                   the rest: iteration, configuration, history, random state, and the name,
                                              size and SHA-256 of the safetensors file

The JSON is written last and removed first, and each step is on the disk before the next one.  So a JSON implies a
complete pair, even after a crash or power failure.  The name of the safetensors file contains the first digits of its
checksum: saving an iteration again never overwrites a file that a JSON names.
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
from minires.training.history import Metrics

FORMAT, VERSION = "minires checkpoint", 1
MOST_ROWS = 150_000  # of a history, each at most 200 bytes of JSON
LARGEST_JSON = 32 << 20  # bytes: the rows and the names of 21,841 classes; parsing takes at most 24 times the memory
LONGEST_HEADER = 4 << 20  # bytes of the safetensors file: some 40,000 tensors


class CheckpointError(RuntimeError):
    """A file that is no complete checkpoint of minires: broken, foreign, or of a newer version."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    iteration      updates done
    config         the run's configuration
    model          arrays by the names of `Module.state_dict`
    velocity       of `SGD.state_dict`
    mean           the mean image that is subtracted from every input, (H, W, C) as `data.pixel_mean` returns it
    classes        names of the classes, in the order of the network's outputs
    input_shape    (C, H, W) of the network's input
    random_state   of the generator that dropout draws from
    schedule       of `Schedule.state_dict`
    interval       metrics of the training batches since the last row
    rows           the history so far
    seconds        training time so far
    data           `Dataset.digest` of "train" and "test"; empty in a checkpoint without digests
    ranks          processes that trained; 0 in a checkpoint without the number
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
    interval: Metrics = field(default_factory=Metrics)
    rows: tuple[history.Row, ...] = ()
    seconds: float = 0.0
    data: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 0

    def __repr__(self) -> str:
        return f"<checkpoint of {self.config.network} on {self.config.data}; {self.state()}>"

    def state(self) -> str:
        """A summary of the progress of the run."""
        return history.History(self.rows).last() if self.rows else f"iteration {self.iteration:,}, nothing measured yet"


def save(checkpoint: Checkpoint, folder: Path, keep: int = 1, keep_best: bool = False) -> Path:
    """Writes the pair into the folder, then removes all but the `keep` newest pairs.  Returns the path of the JSON.

    keep_best   whether the pair with the lowest test error in the history is kept too

    Raises OSError when the pair cannot be written; the previous files stay, without a partial one.
    """
    if not folder.is_dir():
        make_folder(folder)
    arrays = {f"model.{name}": array for name, array in checkpoint.model.items()}
    arrays |= dict(checkpoint.velocity)
    arrays["input.mean"] = checkpoint.mean
    content = _safetensors({name: np.ascontiguousarray(on_cpu(array)) for name, array in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    name = _name(checkpoint.iteration)
    tensors, description = folder / f"{name}-{sha256[:8]}.safetensors", folder / f"{name}.json"
    fields = {
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
    text = json.dumps(fields, allow_nan=False)
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
    """Reads a pair, given either of its files, without executing anything in it.

    Raises FileNotFoundError for a missing file and CheckpointError for an incomplete or broken checkpoint.
    """
    path = _description(_checks.path(path, "path"))
    fields = _fields(path)
    try:
        arrays = _tensors(path, fields["tensors"])
        loss, wrong, images = fields["interval"]
        C, H, W = (integer(n, "input_shape", 1) for n in fields["input_shape"])
        rows = _rows(fields)
        iteration = integer(fields["iteration"], "iteration", 0)
        if arrays["input.mean"].shape != (H, W, C):
            raise ValueError(f"input_shape is {(C, H, W)}, the mean image has shape {arrays['input.mean'].shape}")
        if iteration != (rows[-1].iteration if rows else 0) and images == 0:
            raise ValueError(f"iteration {iteration} has neither a row of the history nor sums since the last one")
        classes, data = fields["classes"], fields.get("data", {})
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("classes must be a list of names")
        if not isinstance(data, dict) or not all(isinstance(digest, str) for digest in data.values()):
            raise TypeError("data must map splits to SHA-256 sums")
        np.random.PCG64(0).state = fields["random_state"]  # raises for an invalid state
        return Checkpoint(
            iteration=iteration,
            config=Config.from_json(fields["config"]),
            model={k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")},
            velocity={k: v for k, v in arrays.items() if k.startswith("velocity.")},
            mean=arrays["input.mean"],
            classes=tuple(classes),
            input_shape=(C, H, W),
            random_state=dict(fields["random_state"]),
            schedule=dict(fields["schedule"]),
            interval=Metrics(
                number(loss, "interval", 0), integer(wrong, "interval", 0), integer(images, "interval", 0)
            ),
            rows=rows,
            seconds=number(fields["seconds"], "seconds", 0),
            data=data,
            ranks=integer(fields.get("ranks", 0), "ranks", 0),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error} is missing") from None
    except (ConfigError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None


def find(path: Path) -> Path:
    """The JSON of a checkpoint: of `path` itself, or the newest one of a run folder or of its folder of checkpoints.

    RUN/best, unless such a file exists, is the checkpoint with the lowest test error of the run so far.

    Raises FileNotFoundError that names the missing file, and CheckpointError when a broken file hides the best one.
    """
    path = _checks.path(path, "path")
    if os.path.isdir(path):
        found = _in_run(path)
        if not found:
            raise FileNotFoundError(f"{path} holds no checkpoint (looked for checkpoints/iteration-*.json)")
        return max(found, key=_iteration)
    if _is_best(path):
        return best(find(path.parent))
    description = _description(path)
    if not os.path.exists(description):
        raise FileNotFoundError(f"no checkpoint at {path}: {description} does not exist")
    return description


def _is_best(path: Path) -> bool:
    return path.name == "best" and not path.exists() and path.parent.is_dir()


def best(description: Path) -> Path:
    """The JSON of the checkpoint with the lowest test error in the history of the given JSON.

    Raises FileNotFoundError when that checkpoint was not kept or no test error was measured, and CheckpointError.
    """
    try:
        row = history.best(_rows(_fields(description)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{description} is not a whole checkpoint: no history ({error})") from None
    missing = f"{description.parent} holds no best checkpoint"
    if row is None:
        raise FileNotFoundError(f"{missing}: no test error was measured yet")
    found = description.with_name(f"{_name(row.iteration)}.json")
    if not found.is_file():
        reason = f"the lowest test error was that of iteration {row.iteration:,}, which was not kept"
        raise FileNotFoundError(f"{missing}: {reason} (train with --keep-best)")
    return found


def _fields(path: Path) -> dict[str, Any]:
    """The content of the JSON; only its format and version are checked."""
    try:
        fields = json.loads(read_bytes(path, LARGEST_JSON))
    except (NotRegularError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: no valid JSON ({error})") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not a checkpoint: its "format" is not {FORMAT!r}')
    if fields.get("version") != VERSION:
        raise CheckpointError(f"{path} has format version {fields.get('version')!r}; this minires reads {VERSION}")
    return fields


def _rows(fields: Mapping[str, Any]) -> history.History:
    return history.History(history.row(values, f"row {i}") for i, values in enumerate(fields["history"]))


def _tensors(path: Path, listed: Any) -> dict[str, Array]:
    """The arrays of the safetensors file, checked against its name, size and SHA-256 as `listed` in the JSON."""
    name = str(listed["file"])
    if Path(name).name != name or _description(Path(name)).name != path.name:  # never a path to another folder
        raise CheckpointError(f"{path} names {name!r} as its tensors, which must be {path.stem}-….safetensors")
    file = path.with_name(name)
    damaged = f"{file} is damaged: its size or SHA-256 is not the one in {path.name}"
    try:
        content = read_bytes(file, integer(listed["bytes"], "bytes", 0))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a whole checkpoint: {file} is missing") from None
    except NotRegularError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise CheckpointError(damaged) from None
    if len(content) != listed["bytes"] or hashlib.sha256(content).hexdigest() != listed["sha256"]:
        raise CheckpointError(damaged)
    if int.from_bytes(content[:8], "little") > LONGEST_HEADER:
        raise CheckpointError(f"{file} is no valid safetensors file: its header exceeds {LONGEST_HEADER:,} bytes")
    try:
        return dict(safetensors.numpy.load(content))
    except (safetensors.SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} is no valid safetensors file: {error}") from None


def _safetensors(arrays: Mapping[str, Array]) -> bytes:
    """A safetensors file.

    The library would copy all arrays twice, which would be the memory peak of a run with many parameters.
    """
    header, end = {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligns the numbers
    numbers = (array.reshape(-1).view(np.uint8).data for array in arrays.values())
    return b"".join((len(text).to_bytes(8, "little"), text, *numbers))


_DTYPES = {"float32": "F32", "float64": "F64"}


def _name(iteration: int) -> str:
    return f"iteration-{iteration:08d}"


_NAME = re.compile(r"(iteration-(\d{8,}))(\.json|-[0-9a-f]{8}\.safetensors)")


def _description(path: Path) -> Path:
    """The JSON of the pair that contains a file."""
    match = _NAME.fullmatch(path.name)
    return path.with_name(f"{match[1]}.json") if match else path


def _all(folder: Path, suffix: str = ".json") -> list[Path]:
    """The files of checkpoints in a folder, the oldest first."""
    found = [file for file in folder.glob(f"iteration-*{suffix}") if _NAME.fullmatch(file.name)]
    return sorted(found, key=_iteration)


def _in_run(path: Path) -> list[Path]:
    """The JSONs in a run folder, or in its folder of checkpoints."""
    return [*_all(path / "checkpoints"), *_all(path)]


def _iteration(file: Path) -> int:
    match = _NAME.fullmatch(file.name)
    return int(match[2]) if match else -1


def is_checkpoint(path: Path) -> bool:
    """Whether a path refers to a run folder or a checkpoint of minires, in contrast to another program's weights."""
    if os.path.isdir(path):
        return bool(_in_run(path))
    if _is_best(path):
        return is_checkpoint(path.parent)
    # "model.safetensors.index.json" lists the parts of a published model
    return bool(_NAME.fullmatch(path.name)) or (path.suffix == ".json" and not path.name.endswith(".index.json"))


def sweep(folder: Path) -> None:
    """Removes temporary and unpaired files of a process that was killed during a save."""
    sweep_temporaries(folder, "iteration-*")
    iterations = {_iteration(pair) for pair in _all(folder)}
    for file in _all(folder, ".safetensors"):
        if _iteration(file) not in iterations:
            file.unlink(missing_ok=True)


def forget_others(description: Path, rows: Iterable[history.Row], keep: int, keep_best: bool) -> None:
    """Removes all pairs but this one, the `keep` newest and the best one, and the remains of killed processes.

    Newer pairs are removed too: the run was resumed from an earlier checkpoint, so they belong to a discarded course.
    """
    folder = description.parent
    tensors = folder / str(_fields(description)["tensors"]["file"])
    pairs = {_iteration(pair): pair for pair in _all(folder)}
    course = [iteration for iteration in pairs if iteration <= _iteration(description)]
    kept = set(course[-keep:])
    if keep_best:  # the best one up to each kept pair, so that a run resumed from any of them finds its best one
        measured = [row for row in rows if row.iteration in course]
        bests = (history.best(row for row in measured if row.iteration <= last) for last in sorted(kept))
        kept |= {row.iteration for row in bests if row is not None}
    old = [pair for iteration, pair in pairs.items() if iteration not in kept]
    for pair in old:
        pair.unlink(missing_ok=True)
    if old:
        sync_folder(folder)  # or a power failure might leave a JSON without its safetensors file
    for file in _all(folder, ".safetensors"):
        if _iteration(file) == _iteration(tensors) and file != tensors:
            file.unlink(missing_ok=True)
    sweep(folder)
