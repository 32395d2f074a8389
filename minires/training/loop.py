"""The training loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minires import backends, data, models, random
from minires.arrays import Array, array_module
from minires.data import Dataset
from minires.inspect import Summary, summary
from minires.nn import Module
from minires.optim import SGD
from minires.training import checkpoint as checkpoints
from minires.training import history
from minires.training.batches import evaluation_loader, images, training_loader
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.config import Config, ConfigError
from minires.training.divergence import Diverged, bad_parameters
from minires.training.evaluation import evaluate
from minires.training.history import Row
from minires.training.interrupt import StopRequest
from minires.training.lock import RunFolderError, locked
from minires.training.measured import Measured
from minires.training.memory import check_memory
from minires.training.progress import Silent
from minires.training.run import RunFolder, starting_point
from minires.training.update import Update


class Interrupted(Exception):
    """The run was asked to stop; it can go on in its `folder`, from `checkpoint` or, if that is None, the beginning."""

    def __init__(self, iteration: int, checkpoint: Path | None, folder: Path) -> None:
        super().__init__(f"stopped after iteration {iteration:,}; go on with: minires train --resume {folder}")
        self.iteration, self.checkpoint, self.folder = iteration, checkpoint, folder

    def __reduce__(self) -> tuple[Any, ...]:  # pickle would call it with the message alone
        return Interrupted, (self.iteration, self.checkpoint, self.folder)


@dataclass(frozen=True)
class Result:
    """A run that went to its end.

    rows        the history; the last row is the end of the run
    parameters  how many numbers were trained
    checkpoint  path of the last one
    best        path of the one with the lowest test error, where the configuration has it kept
    """

    folder: RunFolder
    config: Config
    parameters: int
    rows: tuple[Row, ...]
    checkpoint: Path
    best: Path | None = None

    @property
    def test_error(self) -> float:
        """Percent, at the last iteration: never the best one on the way."""
        error = self.rows[-1].test_error
        assert error is not None
        return error


def train(
    config: Config,
    out: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    download: bool = False,
    report: Silent | None = None,
) -> Result:
    """Trains a network and writes its run folder.

    config    the run; with `resume`, take `resume_config(resume)`
    out       a new or empty folder; None: the next free runs/<network>-<data>-<number>, or the folder of `resume`
    resume    a run folder or a checkpoint to go on from: the end is bit for bit that of the uninterrupted run, but for
              `history.TIMING`; a run that was stopped before its first checkpoint begins anew
    download  whether the data may be fetched when they are missing
    report    hears about the progress

    Seeds the generator of `minires.random`.  Raises ConfigError, CheckpointError, FileNotFoundError when there is
    nothing to resume, minires.data's DataError, BackendUnavailable, Diverged when the loss is no longer finite,
    Interrupted after SIGINT or SIGTERM, and RunFolderError (an OSError) when another run is in the folder, when it
    cannot be written or is full; in each case the last complete checkpoint is left in place.
    """
    with contextlib.ExitStack() as held:
        folder, start_path = None, None if resume is None else starting_point(Path(resume))
        if resume is not None and out is None:
            folder = RunFolder.of(Path(resume) if start_path is None else start_path)
            held.enter_context(locked(folder.path))
            start_path = starting_point(Path(resume))  # the newest one, now that no other run writes
        start = None if start_path is None else checkpoints.load(start_path)
        held.enter_context(backends.backend(config.backend) if config.backend else contextlib.nullcontext())
        if config.threads is not None:
            backends.set_num_threads(config.threads)
        config = replace(config, backend=_active_backend())
        run = _Run(config, start, download, report or Silent())
        if folder is not None:
            run.folder, run.checkpoint = folder, start_path
        else:
            run.folder = held.enter_context(RunFolder.claim(None if out is None else Path(out), config))
        run.folder.begin(config, run.rows, run.checkpoint_bytes())
        if start_path is not None and run.checkpoint is None:
            run.take_along(start_path)
        return run.to_end()


class _Run:
    """The state of a run, and what is done with it."""

    folder: RunFolder
    checkpoint: Path | None = None  # the last one written

    def __init__(self, config: Config, start: Checkpoint | None, download: bool, report: Silent) -> None:
        self.config, self.report = config, report
        self.images: Dataset = images(config, "train", download)
        self.test_images: Dataset = images(config, "test", download)
        self.mean = data.pixel_mean(self.images)  # (H, W, C), subtracted from every image
        self.loader = training_loader(config, self.images, self.mean)
        self.test_loader = evaluation_loader(config, self.test_images, self.mean)
        self.batches = len(self.loader)
        self.total = config.total_iterations(self.batches)
        self.log_every, self.eval_every, self.checkpoint_every = config.intervals(self.batches)

        random.manual_seed(config.seed)
        self.input_shape = self.loader.shape
        self.model, layers = make_model(config, len(self.images.classes), self.input_shape)
        check_memory(config, self.model, layers)
        self.optimizer = SGD(
            self.model.parameters(), config.lr, config.momentum, config.weight_decay, nesterov=config.nesterov
        )
        self.update = Update(
            self.model, self.optimizer, label_smoothing=config.label_smoothing, micro_batch=config.micro_batch
        )
        self.schedule = config.make_schedule(self.total)
        self.iteration = 0
        self.interval = Measured()
        self.rows: list[Row] = []
        self.seconds_before = 0.0
        if start is not None:
            self._restore(start)
        self.began = time.perf_counter()
        self.timed_images, self.timed_seconds = 0, 0.0  # of training alone, since the last row

    def checkpoint_bytes(self) -> int:
        """What a checkpoint will take: weights, running statistics and velocities; the rest is small beside them."""
        arrays = list(self.model.state_dict().values())
        arrays += [p.data for p in self.model.parameters()] if self.config.momentum else []
        return sum(int(array.nbytes) for array in arrays)

    def take_along(self, start: Path) -> None:
        """Puts the checkpoint of another run that this one goes on from into its folder, and before it the best one."""
        found = [start]
        if self.config.keep_best:
            with contextlib.suppress(FileNotFoundError):
                found = [checkpoints.best(start), start]
        for path in found:
            with self._writing():
                self.checkpoint = checkpoints.save(checkpoints.load(path), self.folder.checkpoints, keep=2)

    def to_end(self) -> Result:
        """The loop: measure, save, or make one more step, until the last iteration is done."""
        batches: Iterator[tuple[Array, Array]] = self.loader.iterate(self.iteration)
        self.model.train()
        self.report.start(self.iteration, self.total)
        self.saved = self.iteration if self.checkpoint else 0
        with StopRequest() as self.stop:
            try:
                while True:
                    if self._row_is_due():
                        self._add_row()
                    if self._checkpoint_is_due():
                        self._save()
                    if self.iteration == self.total:
                        break
                    if self.stop.requested:
                        self._interrupt()
                    began = time.perf_counter()
                    self._step(*next(batches))
                    self.timed_seconds += time.perf_counter() - began
                    self.report.iteration(self.iteration, *self._training_means(), self._speed())
            except BaseException:
                self.report.stop()
                with contextlib.suppress(OSError):  # what ended the run is told
                    self._draw()
                raise
            self.report.stop()
            with self._writing():
                self._draw()
        assert self.checkpoint is not None
        parameters = sum(p.size for p in self.model.parameters())
        best = checkpoints.best(self.checkpoint) if self.config.keep_best else None
        return Result(self.folder, self.config, parameters, tuple(self.rows), self.checkpoint, best)

    def _draw(self) -> None:
        if self.rows:
            self.folder.write_curves(self.rows, self.config)

    def _step(self, x: Array, labels: Array) -> None:
        """One update.  x (N, C, H, W), labels (N,)"""
        try:
            measured = self.update(x, labels, self.schedule(self.iteration))
        except Diverged as error:
            raise self._diverged(str(error)) from None
        except MemoryError as error:
            raise self._out_of_memory(error) from None
        self.schedule.observe(self.iteration, 100.0 * measured.wrong / measured.images)
        self.iteration += 1
        self.interval += measured
        self.timed_images += measured.images

    def _row_is_due(self) -> bool:
        if self.iteration == 0 or (self.rows and self.rows[-1].iteration == self.iteration):
            return False
        return self.iteration % self.log_every == 0 or self._evaluation_is_due()

    def _evaluation_is_due(self) -> bool:
        return self.iteration % self.eval_every == 0 or self.iteration == self.total

    def _checkpoint_is_due(self) -> bool:
        due = self.iteration % self.checkpoint_every == 0 or self.iteration == self.total or self._is_best()
        return due and self.iteration != self.saved

    def _is_best(self) -> bool:
        if not self.config.keep_best or not self.rows or self.rows[-1].iteration != self.iteration:
            return False
        return history.best(self.rows) is self.rows[-1]

    def _add_row(self) -> None:
        test_error = self._test_error() if self._evaluation_is_due() else None
        row = Row(
            self.iteration,
            self.iteration / self.batches,
            self.schedule(self.iteration - 1),
            *self._training_means(),
            test_error,
            self._speed(),
            self._seconds(),
        )
        self.rows.append(row)
        self.saved = -1  # a checkpoint of this iteration, if there is one, lacks this row
        self.interval, self.timed_images, self.timed_seconds = Measured(), 0, 0.0
        with self._writing():
            self.folder.write_history(self.rows)
        self.report.row(row)

    def _test_error(self) -> float:
        def on_batch(done: int) -> None:
            self.report.evaluating(done, len(self.test_images.labels))
            if self.stop.requested:
                self._interrupt()

        try:
            return evaluate(self.model, self.test_loader.epoch(), on_batch).error
        except Diverged as error:
            raise self._diverged(str(error)) from None

    def _save(self) -> None:
        state = self.model.state_dict()
        velocity = self.optimizer.state_dict()
        if not all(bool(array_module(a).isfinite(a).all()) for a in (*state.values(), *velocity.values())):
            raise self._diverged(bad_parameters(self.model) or "the running statistics or velocities are not finite")
        now = Checkpoint(
            iteration=self.iteration,
            config=self.config,
            model=state,
            velocity=velocity,
            mean=self.mean,
            classes=tuple(self.images.classes),
            input_shape=self.input_shape,
            random_state=random.generator().bit_generator.state,
            schedule=self.schedule.state_dict(),
            interval=self.interval,
            rows=tuple(self.rows),
            seconds=self._seconds(),
        )
        with self._writing():
            self.checkpoint = checkpoints.save(now, self.folder.checkpoints, self.config.keep, self.config.keep_best)
        self.saved = self.iteration

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What cannot be written ends the run, with a word on what is kept and how to go on."""
        try:
            yield
        except OSError as error:
            kept = f"the last checkpoint is {self.checkpoint}" if self.checkpoint else "no checkpoint was written yet"
            raise RunFolderError(
                f"iteration {self.iteration:,}: {error.filename or self.folder.path} cannot be written: "
                f"{error.strerror or error}; {kept}; once it can, go on with: minires train --resume {self.folder.path}"
            ) from error

    def _restore(self, start: Checkpoint) -> None:
        same = start.classes == tuple(self.images.classes) and start.input_shape == self.input_shape
        if not same or not np.array_equal(start.mean, self.mean):
            raise ConfigError(f"the training images of {self.config.data} are not those that this run began with")
        if start.iteration > self.total:
            told = f"the checkpoint is of iteration {start.iteration:,}, the run ends at {self.total:,}"
            raise CheckpointError(f"the checkpoint does not fit its own configuration: {told}")
        try:
            self.model.load_state_dict(start.model)
            self.optimizer.load_state_dict(_like_parameters(self.model, start.velocity))
            self.schedule.load_state_dict(start.schedule)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit {self.config.network}: {error}") from None
        random.generator().bit_generator.state = start.random_state
        self.iteration, self.interval, self.rows = start.iteration, start.interval, list(start.rows)
        self.seconds_before = start.seconds

    def _interrupt(self) -> None:
        if self.iteration != self.saved:
            self._save()
        raise Interrupted(self.iteration, self.checkpoint, self.folder.path)

    def _diverged(self, what: str) -> Diverged:
        """At the update that was to come; the one before it is the last that moved the weights."""
        lr = self.schedule(max(0, self.iteration - 1))
        told = f"iteration {self.iteration:,}, learning rate {lr:g}: {what}"
        tries = "try a lower learning rate (--lr), a warmup (--warmup) or less weight decay (--weight-decay)"
        return Diverged(f"{told}; {tries}; {self._kept()}")

    def _out_of_memory(self, error: MemoryError) -> MemoryError:
        told = f"iteration {self.iteration:,}: no memory is left" + (f" ({error})" if str(error) else "")
        images = self.config.micro_batch or self.config.batch_size
        return MemoryError(f"{told}; try fewer than {images} images at a time (--micro-batch); {self._kept()}")

    def _kept(self) -> str:
        return f"the last checkpoint is {self.checkpoint}" if self.checkpoint else "no checkpoint was written yet"

    def _training_means(self) -> tuple[float, float]:
        """Loss and error (percent) since the last row."""
        images = self.interval.images
        return self.interval.loss / images, 100.0 * self.interval.wrong / images

    def _speed(self) -> float:
        return self.timed_images / self.timed_seconds if self.timed_seconds else 0.0

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began


def make_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> tuple[Module, Summary]:
    """The network of a run, on the device of its backend, and its layers for one image.

    Raises ConfigError where the images don't fit it.
    """
    try:
        options = config.network_options()
        model = models.create(config.network, num_classes=classes, in_channels=input_shape[0], **options)
        layers = summary(model, input_shape)
    except (TypeError, ValueError) as error:
        shape = "×".join(map(str, input_shape))
        raise ConfigError(f"{config.network} cannot be trained on {config.data} ({shape}): {error}") from None
    pixels = min((math.prod(row.output_shape[1:]) for row in layers.rows if row.operation == "BatchNorm"), default=2)
    if pixels == 1:
        # A batch of three in parts of at most two has a part of one image; with at most three, no batch has.
        for name, least in (("batch_size", 2), ("micro_batch", 3)):
            images = getattr(config, name)
            if images is not None and images < least:
                told = f"{name} must be at least {least} for {config.network} on {config.data}, got {images}"
                raise ConfigError(f"{told}: of one value a channel, batch norm makes nothing")
    model.astype(config.dtype)
    return model.to("cuda") if config.backend in ("cuda", "cublas") else model, layers


def _active_backend() -> str:
    try:
        name: str = backends.active().name
        return name
    except ValueError as error:  # a wrong name in MINIRES_BACKEND
        raise ConfigError(str(error)) from None


def _like_parameters(model: Module, velocity: Any) -> dict[str, Array]:
    """The velocities on the device of their parameters."""
    modules = [array_module(p.data) for p in model.parameters()]
    return {name: modules[int(name.partition(".")[2])].asarray(array) for name, array in velocity.items()}
