"""The training loop."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minires import backends, data, random
from minires._checks import flag, instance, path
from minires.arrays import Array, array_module
from minires.data import Dataset
from minires.optim import SGD
from minires.parallel import (
    Communicator,
    as_agreed,
    as_communicator,
    by_first,
    expect_same,
    synchronise,
    together,
    world,
)
from minires.parallel.nccl import use_own_device
from minires.training import checkpoint as checkpoints
from minires.training import history
from minires.training.batches import evaluation_loader, images, training_loader
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.config import Config, ConfigError
from minires.training.divergence import Diverged, bad_parameters
from minires.training.evaluation import evaluate
from minires.training.history import History, Metrics, Row
from minires.training.interrupt import StopRequest
from minires.training.lock import RunFolderError, locked
from minires.training.memory import check_memory
from minires.training.network import check_ranks, check_shapes, make_model
from minires.training.progress import Silent
from minires.training.run import RunFolder, starting_point
from minires.training.update import Update


class Interrupted(Exception):
    """A stopped run.  Resume it in its `folder`, from `checkpoint` or, for None, from the beginning."""

    def __init__(self, iteration: int, checkpoint: Path | None, folder: Path) -> None:
        super().__init__(f"stopped after iteration {iteration:,}; go on with: minires train --resume {folder}")
        self.iteration, self.checkpoint, self.folder = iteration, checkpoint, folder

    def __reduce__(self) -> tuple[Any, ...]:  # by default pickle passes the message alone
        return Interrupted, (self.iteration, self.checkpoint, self.folder)


@dataclass(frozen=True)
class Result:
    """A complete run.

    rows        the history; the last row belongs to the last iteration
    parameters  number of trained values
    checkpoint  path of the last checkpoint
    best        path of the checkpoint with the lowest test error, if `keep_best`
    """

    folder: RunFolder
    config: Config
    parameters: int
    rows: History
    checkpoint: Path
    best: Path | None = None

    def __repr__(self) -> str:
        network = f"{self.config.network} on {self.config.data}, {self.parameters:,} parameters"
        return f"<{network}; {self.rows.last()}; in {self.folder.path}>"

    @property
    def test_error(self) -> float:
        """Percent, at the last iteration, not the lowest of the run."""
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
    ranks: Communicator | None = None,
) -> Result:
    """Trains a network and writes its run folder.

    config    the run; with `resume`, take `resume_config(resume)`
    out       a new or empty folder; None: the next free runs/<network>-<data>-<number>, or the folder of `resume`
    resume    a run folder or a checkpoint.  With the same number of ranks, the end is bit-identical to the
              uninterrupted run, except the measured times.  A run without a checkpoint starts from the beginning.  The
              images must be the same (see `Dataset.digest`); the length in `config` may differ
    download  whether to download missing data
    report    receives the progress
    ranks     processes that train together, each on its part of every batch; None: all processes that mpirun started.
              Rank 0 alone writes files and reports

    Seeds the generator of `minires.random`.  Raises ConfigError, CheckpointError, FileNotFoundError when there is
    nothing to resume, minires.data's DataError, BackendUnavailable, Diverged for a non-finite loss, Interrupted after
    SIGINT or SIGTERM (with several ranks SIGUSR1 too), RanksDisagree, and RunFolderError (an OSError) when another run
    uses the folder, or it is full or not writable.  In each case the last complete checkpoint stays in place.
    """
    instance(config, "config", Config)
    flag(download, "download")
    out = None if out is None else path(out, "out")
    resume = None if resume is None else path(resume, "resume")
    if report is not None:
        instance(report, "report", Silent)
    ranks = world() if ranks is None else as_communicator(ranks, "ranks")
    report = report if report and ranks.rank == 0 else Silent()
    with contextlib.ExitStack() as stack:
        folder, start = by_first(ranks, lambda: _resumed(resume, out, stack))
        together(ranks, lambda: stack.enter_context(config.computing()))
        if download and ranks.size > 1:
            by_first(ranks, lambda: len(images(config, "train", True)) + len(images(config, "test", True)))
            download = False
        run = together(ranks, lambda: _prepared(config, start, download, report, ranks))
        run.expect_one_beginning()
        if folder is None:
            run.folder = by_first(ranks, lambda: stack.enter_context(RunFolder.claim(out, config)))
        else:
            run.folder, run.checkpoint = folder, start
        by_first(ranks, lambda: run.folder.begin(run.config, run.rows, run.checkpoint_bytes()))
        if folder is None and start is not None:
            run.checkpoint = by_first(ranks, lambda: run.copy_checkpoints(start))
        return run.to_end()


def _resumed(
    resume: Path | None, out: Path | None, stack: contextlib.ExitStack
) -> tuple[RunFolder | None, Path | None]:
    """The folder of a resumed run, locked until `stack` is closed, or None for a new folder; the first checkpoint."""
    start = None if resume is None else starting_point(resume)
    if resume is None or out is not None:
        return None, start
    folder = RunFolder.of(resume if start is None else start)
    stack.enter_context(locked(folder.path))
    return folder, starting_point(resume)  # again: another run may have written until the lock was acquired


def _prepared(config: Config, start: Path | None, download: bool, report: Silent, ranks: Communicator) -> _Run:
    try:
        config = replace(config, backend=backends.path_of(backends.active()))
    except (TypeError, ValueError) as error:  # an invalid MINIRES_BACKEND
        raise ConfigError(str(error)) from None
    if config.threads is not None:
        backends.set_num_threads(config.threads)
    elif ranks.size > 1:
        share = (os.cpu_count() or 1) // ranks.local_size
        backends.set_num_threads(max(1, min(share, backends.get_num_threads())))  # mpirun may have bound it to fewer
    if ranks.size > 1 and backends.on_gpu(config.backend):
        use_own_device(ranks)
    checkpoint = None if start is None else checkpoints.load(start)
    if checkpoint is not None and start is not None:
        check_shapes(checkpoint, start)
    return _Run(config, checkpoint, download, report, ranks)


class _Run:
    """The state of a run and its steps."""

    folder: RunFolder
    checkpoint: Path | None = None  # the newest one
    notes: tuple[str, ...] = ()  # settings that differ from the resumed run: its length, the number of ranks

    def __init__(
        self, config: Config, start: Checkpoint | None, download: bool, report: Silent, ranks: Communicator
    ) -> None:
        self.config, self.report, self.ranks = config, report, ranks
        self.images: Dataset = images(config, "train", download)
        self.test_images: Dataset = images(config, "test", download)
        self.digests = {images.split: images.digest() for images in (self.images, self.test_images)}
        self.mean = data.pixel_mean(self.images)  # (H, W, C), subtracted from every image
        self.loader = training_loader(config, self.images, self.mean, ranks)
        self.batches = len(self.loader)
        self.total = config.total_iterations(self.batches)
        self.log_every, self.eval_every, self.checkpoint_every = config.intervals(self.batches)
        both = math.lcm(self.log_every, self.eval_every)
        rows = self.total // self.log_every + self.total // self.eval_every - self.total // both + 1
        if rows > checkpoints.MOST_ROWS:
            raise ConfigError(
                f"log_every: a history of {rows:,} rows exceeds the {checkpoints.MOST_ROWS:,} that a checkpoint holds; "
                "raise --log-every or --eval-every"
            )

        random.manual_seed(config.seed)
        self.input_shape = self.loader.shape
        self.model, layers = make_model(config, len(self.images.classes), self.input_shape)
        self.model.fuse(config.fuse, training=config.fuse)
        check_ranks(config, layers, self.loader, len(self.test_images), ranks)
        check_memory(config, self.model, layers, self.loader.largest_batch, ranks)
        self.test_loader = evaluation_loader(config, self.test_images, self.mean, ranks)
        if config.sync_batch_norm:
            synchronise(self.model, ranks)
        self.optimizer = SGD(
            self.model.parameters(), config.lr, config.momentum, config.weight_decay, nesterov=config.nesterov
        )
        self.update = Update(
            self.model,
            self.optimizer,
            label_smoothing=config.label_smoothing,
            micro_batch=config.micro_batch,
            ranks=ranks,
            capture=config.capture,
        )
        self.schedule = config.make_schedule(self.total)
        self.iteration = 0
        self.interval = Metrics()
        self.rows: list[Row] = []
        self.seconds_before = 0.0
        if start is not None:
            self._restore(start)
        self.began = time.perf_counter()
        self.timed_images, self.timed_seconds = 0, 0.0  # of training alone, since the last row

    def checkpoint_bytes(self) -> int:
        """Size of weights, running statistics and velocities; the rest of a checkpoint is small."""
        arrays = list(self.model.state_dict().values())
        arrays += [p.data for p in self.model.parameters()] if self.config.momentum else []
        return sum(int(array.nbytes) for array in arrays)

    def copy_checkpoints(self, start: Path) -> Path:
        """Copies another run's checkpoint into this run's folder, and with `keep_best` the best one before it."""
        found = [start]
        if self.config.keep_best:
            with contextlib.suppress(FileNotFoundError):
                found = [checkpoints.best(start), start]
        with self._writing():
            for path in found:
                saved = checkpoints.save(checkpoints.load(path), self.folder.checkpoints, keep=2)
        return saved

    def expect_one_beginning(self) -> None:
        """Raises RanksDisagree when the ranks' data or first checkpoints differ."""
        settings = np.frombuffer(repr((self.config, self.iteration, self.digests)).encode(), np.uint8)
        expect_same(self.ranks, "the settings or the data", (settings, self.mean))
        expect_same(self.ranks, "the weights at the start", self._state())

    def to_end(self) -> Result:
        """Measures, saves and updates until the last iteration is done."""
        batches: Iterator[tuple[Array, Array]] = self.loader.iterate(self.iteration)
        self.model.train()
        self.report.start(self.iteration, self.total)
        for note in self.notes:
            self.report.note(note)
        self.saved = self.iteration if self.checkpoint else 0
        more = (signal.SIGUSR1,) if self.ranks.size > 1 else ()  # mpirun forwards it; after SIGTERM it kills the ranks
        with StopRequest(*more) as self.stop:
            try:
                while True:
                    if self._row_is_due():
                        self._add_row()
                    if self._checkpoint_is_due():
                        self._save()
                    if self.iteration == self.total:
                        break
                    if self._stop_is_requested():
                        self._interrupt()
                    began = time.perf_counter()
                    self._step(*next(batches))
                    self.timed_seconds += time.perf_counter() - began
                    self.report.iteration(self.iteration, *self._training_means(), self._speed())
            except BaseException:
                self.report.stop()
                with contextlib.suppress(Exception):  # the original exception is raised instead
                    self._draw()
                raise
            self.report.stop()
            by_first(self.ranks, self._tidy)
        assert self.checkpoint is not None
        parameters = sum(p.size for p in self.model.parameters())
        best = None
        if self.config.keep_best:
            with contextlib.suppress(FileNotFoundError):  # the best one may be in the folder of an earlier run
                best = checkpoints.best(self.checkpoint)
        return Result(self.folder, self.config, parameters, History(self.rows), self.checkpoint, best)

    def _draw(self) -> None:
        if self.rows and self.ranks.rank == 0:
            self.folder.write_curves(self.rows, self.config)

    def _tidy(self) -> None:
        """Draws the curves and removes old checkpoints, which a kill after the last save may have left."""
        assert self.checkpoint is not None
        with self._writing():
            checkpoints.forget_others(self.checkpoint, self.rows, self.config.keep, self.config.keep_best)
            self._draw()

    def _step(self, x: Array, labels: Array) -> None:
        """One update.  x (N, C, H, W), labels (N,): this rank's part of the batch"""
        try:
            whole = self.loader.images_of(self.iteration)
            metrics = self.update(x, labels, self.schedule(self.iteration), whole)
        except Diverged as error:
            raise as_agreed(self._diverged(str(error)), error) from None
        except MemoryError as error:
            raise self._out_of_memory(error) from None
        self.schedule.observe(self.iteration, 100.0 * metrics.wrong / metrics.images)
        self.iteration += 1
        self.interval += metrics
        self.timed_images += metrics.images

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
        self.saved = -1  # an existing checkpoint of this iteration lacks the row
        self.interval, self.timed_images, self.timed_seconds = Metrics(), 0, 0.0
        by_first(self.ranks, self._write_history)
        self.report.row(row)

    def _write_history(self) -> None:
        with self._writing():
            self.folder.write_history(self.rows)

    def _test_error(self) -> float:
        def on_batch(done: int) -> None:
            images = len(self.test_images)
            self.report.evaluating(min(done * self.ranks.size, images), images)
            if self.stop.requested and self.ranks.size == 1:  # several ranks continue until all agree to stop
                self._interrupt()

        self._share_statistics()
        try:
            return evaluate(self.model, self.test_loader.epoch(), on_batch, ranks=self.ranks).error
        except Diverged as error:
            raise as_agreed(self._diverged(str(error)), error) from None

    def _share_statistics(self) -> None:
        """Gives every rank the running statistics of rank 0, so that all measure and save one network."""
        for _, buffer in self.model.named_buffers():
            self.ranks.broadcast(buffer)

    def _save(self) -> None:
        self._share_statistics()
        expect_same(self.ranks, f"after iteration {self.iteration:,} the weights", self._state())
        self.optimizer.zero_grad()  # frees memory for the copy to be written
        try:
            self.checkpoint = by_first(self.ranks, self._write)
        except MemoryError as error:
            raise as_agreed(self._out_of_memory(error), error) from None
        self.saved = self.iteration

    def _state(self) -> list[Array]:
        """The arrays that determine the next update."""
        drawn = np.frombuffer(repr(random.generator().bit_generator.state).encode(), np.uint8)
        return [*self.model.state_dict().values(), *self.optimizer.state_dict().values(), drawn]

    def _write(self) -> Path:
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
            rows=History(self.rows),
            seconds=self._seconds(),
            data=self.digests,
            ranks=self.ranks.size,
        )
        with self._writing():
            return checkpoints.save(now, self.folder.checkpoints, self.config.keep, self.config.keep_best)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError into a RunFolderError that names the last checkpoint and how to resume."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"iteration {self.iteration:,}: {error.filename or self.folder.path} cannot be written: "
                f"{error.strerror or error}; {self._kept()}; once it can, go on with: minires train --resume "
                f"{self.folder.path}"
            ) from error

    def _restore(self, start: Checkpoint) -> None:
        differ = f"images of {self.config.data} differ from the images at the start of this run"
        same = start.classes == tuple(self.images.classes) and start.input_shape == self.input_shape
        if not same or not np.array_equal(start.mean, self.mean):
            raise ConfigError(f"the training {differ}")
        for split, digest in start.data.items():
            if digest != self.digests.get(split):
                raise ConfigError(f"the {split} {differ}: names, sizes, labels, order or pixels")
        before = start.config.total_iterations(self.batches)
        if start.iteration > self.total:
            ahead = f"the checkpoint is of iteration {start.iteration:,}"
            if self.total != before:
                name = "iterations" if self.config.iterations else "epochs"
                raise ConfigError(f"{name}: {ahead}, a run of this length ends at {self.total:,}")
            ends = f"{ahead}, the run ends at {self.total:,}"
            raise CheckpointError(f"the checkpoint does not fit its own configuration: {ends}")
        try:
            self.model.load_state_dict(start.model)
            modules = {f"velocity.{i}": array_module(p.data) for i, p in enumerate(self.model.parameters())}
            velocity = {name: modules[name].asarray(array) for name, array in start.velocity.items()}
            self.optimizer.load_state_dict(velocity)
            self.schedule.load_state_dict(start.schedule)
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit {self.config.network}: {error}") from None
        random.generator().bit_generator.state = start.random_state
        if self.total != before:
            rates = self.config.rates(start.iteration, self.total)
            listed = ", ".join(f"{rate:g} from {place:,}" for place, rate in rates) or "none"
            self.notes += (f"iterations {self.total:,} instead of {before:,}; learning rate by iteration: {listed}",)
        normed = any(name.endswith("running_mean") for name in start.model)
        if start.ranks not in (0, self.ranks.size) and normed and not self.config.sync_batch_norm:
            parts = "without sync_batch_norm a rank normalises another part of each batch than before"
            self.notes += (f"ranks {self.ranks.size} instead of {start.ranks}: {parts}",)
        self.iteration, self.interval, self.rows = start.iteration, start.interval, list(start.rows)
        self.seconds_before = start.seconds

    def _stop_is_requested(self) -> bool:
        """Whether any rank has a stop request: all ranks stop after the same iteration."""
        requested = np.array([self.stop.requested], np.int64)
        self.ranks.allreduce(requested)
        return bool(requested[0])

    def _interrupt(self) -> None:
        if self.iteration != self.saved:
            self._save()
        raise Interrupted(self.iteration, self.checkpoint, self.folder.path)

    def _diverged(self, what: str) -> Diverged:
        """The error of the next update, with the learning rate of the last one, which changed the weights."""
        place = f"iteration {self.iteration:,}, learning rate {self.schedule(max(0, self.iteration - 1)):g}"
        remedy = "try a lower learning rate (--lr), a warmup (--warmup) or less weight decay (--weight-decay)"
        return Diverged(f"{place}: {what}; {remedy}; {self._kept()}")

    def _out_of_memory(self, error: MemoryError) -> MemoryError:
        reason = f" ({error})" if str(error) else ""
        images = self.config.micro_batch or self.config.batch_size
        remedy = f"try fewer than {images} images at a time (--micro-batch)"
        return MemoryError(f"iteration {self.iteration:,}: no memory is left{reason}; {remedy}; {self._kept()}")

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
