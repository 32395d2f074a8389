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
from minires import functional as F
from minires._checks import flag, instance, path
from minires._shown import shown
from minires.arrays import Array, array_module
from minires.data import Dataset
from minires.inspect import summary
from minires.nn import Module
from minires.optim import SGD
from minires.tensor import Tensor
from minires.training import checkpoint as checkpoints
from minires.training.batches import evaluation_loader, images, training_loader
from minires.training.checkpoint import Checkpoint, CheckpointError, Interval
from minires.training.config import Config, ConfigError
from minires.training.evaluation import Diverged, evaluate, on_device
from minires.training.history import Row
from minires.training.interrupt import StopRequest
from minires.training.progress import Silent
from minires.training.run import RunFolder


class Interrupted(Exception):
    """The run was asked to stop; it can go on from `checkpoint`, or has not begun where that is None."""

    def __init__(self, iteration: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped after iteration {iteration:,}")
        self.iteration, self.checkpoint = iteration, checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        return Interrupted, (self.iteration, self.checkpoint)  # pickle would call it with the message alone


@dataclass(frozen=True)
class Result:
    """A run that went to its end.

    rows        the history; the last row is the end of the run
    parameters  how many numbers were trained
    checkpoint  path of the last one
    """

    folder: RunFolder
    config: Config
    parameters: int
    rows: tuple[Row, ...]
    checkpoint: Path

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

    config    the run; with `resume`, take `load_checkpoint(resume).config`
    out       a new or empty folder; None: the next free runs/<network>-<data>-<number>, or the folder of `resume`
    resume    a run folder or a checkpoint to go on from: the end is bit for bit that of the uninterrupted run
    download  whether the data may be fetched when they are missing
    report    hears about the progress

    Seeds the generator of `minires.random`.  Raises ConfigError, CheckpointError, minires.data's DataError,
    BackendUnavailable, Diverged when the loss is no longer finite, Interrupted after SIGINT or SIGTERM, and OSError
    when a file cannot be written; in each case the last complete checkpoint is left in place.
    """
    instance(config, "config", Config)
    flag(download, "download")
    target = None if out is None else path(out, "out")
    if report is not None and not hasattr(report, "iteration"):
        raise TypeError(f"report must be a Silent or a Progress, got {shown(report)}")
    start_path = None if resume is None else checkpoints.find(path(resume, "resume"))
    start = None if start_path is None else checkpoints.load(start_path)
    with backends.backend(config.backend) if config.backend else contextlib.nullcontext():
        if config.threads is not None:
            backends.set_num_threads(config.threads)
        config = replace(config, backend=_active_backend())
        run = _Run(config, start, download, report or Silent())
        if start_path is not None and out is None:
            run.folder, run.checkpoint = RunFolder.of_checkpoint(start_path), start_path
        else:
            run.folder = RunFolder.claim(target, config)
        run.folder.write_config(config)
        if run.rows:
            run.folder.write_history(run.rows)
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
        self.model = make_model(config, len(self.images.classes), self.input_shape)
        self.optimizer = SGD(
            self.model.parameters(), config.lr, config.momentum, config.weight_decay, nesterov=config.nesterov
        )
        self.schedule = config.make_schedule(self.total)
        self.iteration = 0
        self.interval = Interval()
        self.rows: list[Row] = []
        self.seconds_before = 0.0
        if start is not None:
            self._restore(start)
        self.began = time.perf_counter()
        self.timed_images, self.timed_seconds = 0, 0.0  # of training alone, since the last row

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
            finally:
                self.report.stop()
                if self.rows:
                    self.folder.write_curves(self.rows, self.config)
        assert self.checkpoint is not None
        parameters = sum(p.size for p in self.model.parameters())
        return Result(self.folder, self.config, parameters, tuple(self.rows), self.checkpoint)

    def _step(self, x: Array, labels: Array) -> None:
        """One update: forward, backward, descent.  x (N, C, H, W), labels (N,)"""
        lr = self.schedule(self.iteration)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what overflows is noticed here
            logits = self.model(Tensor(on_device(self.model, x)))  # (N, classes)
            xp = array_module(logits.data)
            labels = xp.asarray(labels)
            if not bool(xp.isfinite(logits.data).all()):
                raise self._diverged("the network's outputs are not finite")
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            if not np.isfinite(loss.item()):
                raise self._diverged(f"the loss is {loss.item()}")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.lr = lr
            self.optimizer.step()
        N = len(labels)
        wrong = int((logits.data.argmax(axis=1) != labels).sum())
        self.schedule.observe(self.iteration, 100.0 * wrong / N)
        self.iteration += 1
        past = self.interval
        self.interval = Interval(past.loss + loss.item() * N, past.wrong + wrong, past.images + N)
        self.timed_images += N

    def _row_is_due(self) -> bool:
        if self.iteration == 0 or (self.rows and self.rows[-1].iteration == self.iteration):
            return False
        return self.iteration % self.log_every == 0 or self._evaluation_is_due()

    def _evaluation_is_due(self) -> bool:
        return self.iteration % self.eval_every == 0 or self.iteration == self.total

    def _checkpoint_is_due(self) -> bool:
        due = self.iteration % self.checkpoint_every == 0 or self.iteration == self.total
        return due and self.iteration != self.saved

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
        self.interval, self.timed_images, self.timed_seconds = Interval(), 0, 0.0
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
            raise self._diverged("the weights are not finite")
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
        self.checkpoint = checkpoints.save(now, self.folder.checkpoints, self.config.keep)
        self.saved = self.iteration

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
        raise Interrupted(self.iteration, self.checkpoint)

    def _diverged(self, what: str) -> Diverged:
        kept = f"the last checkpoint is {self.checkpoint}" if self.checkpoint else "no checkpoint was written yet"
        lr = self.schedule(self.iteration)
        return Diverged(f"iteration {self.iteration:,}: {what}; a lower learning rate than {lr:g} may help; {kept}")

    def _training_means(self) -> tuple[float, float]:
        """Loss and error (percent) since the last row."""
        images = self.interval.images
        return self.interval.loss / images, 100.0 * self.interval.wrong / images

    def _speed(self) -> float:
        return self.timed_images / self.timed_seconds if self.timed_seconds else 0.0

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began


def make_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> Module:
    """The network of a run, on the device of its backend.  Raises ConfigError where the images don't fit it."""
    try:
        options = config.network_options()
        model = models.create(config.network, num_classes=classes, in_channels=input_shape[0], **options)
        layers = summary(model, input_shape).rows
    except (TypeError, ValueError) as error:
        shape = "×".join(map(str, input_shape))
        raise ConfigError(f"{config.network} cannot be trained on {config.data} ({shape}): {error}") from None
    pixels = min((math.prod(row.output_shape[1:]) for row in layers if row.operation == "BatchNorm"), default=2)
    if config.batch_size * pixels < 2:
        told = "a channel has one value only, which batch norm cannot normalise"
        raise ConfigError(f"batch_size must be at least 2 for {config.network} on {config.data}, got 1: {told}")
    model.astype(config.dtype)
    return model.to("cuda") if config.backend in ("cuda", "cublas") else model


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
