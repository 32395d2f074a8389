"""The configuration of a run: every setting, checked, as plain values that JSON can hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from minires import backends, data, models
from minires._checks import choice, flag, integer, number, suggest
from minires._shown import shown
from minires.backends.threads import MOST_THREADS
from minires.optim import Constant, Schedule, Step, Warmup
from minires.training.recipes import recipe


class ConfigError(ValueError):
    """An invalid setting; the message contains its name, its value and the allowed values."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that decides what a training run computes, and how often it looks up.  The defaults are the paper's recipe.

    network, data     names of `models.names()` and `data.names()`
    data_dir          where to look for the data first; None: the usual places
    size              side of the images, where the data set lets it be chosen; None: its own
    test_fraction     of a folder without train/ and test/: the share of each class's images that are test images, drawn
                      from the seed; None: the folder has both
    shortcut, stride_in, width   options of the network; None: its own default
    dtype             float32 or float64
    epochs            length of the run, or
    iterations          the number of updates: one of the two
    batch_size        images per update
    micro_batch       of these, how many go through the network at a time, their gradients added up; batch norm takes
                      its statistics over them.  None: all
    sync_batch_norm   with several ranks: whether batch norm takes its statistics over all of them, as one process
                      would; else each rank's are of its own images, and rank 0's running statistics are kept
    lr, momentum, weight_decay, nesterov    of `optim.SGD`
    schedule          "step" (lr · lr_factor at each of the milestones) or "constant"
    milestones        in iterations, or below 1 as fractions of the run; of a run that goes on to another length, the
                      fractions are of the new one
    warmup            "none", a number of iterations, or "error": at warmup_lr until the training error is below 80 %
    label_smoothing   in [0, 1]
    augment           whether training images are padded, cropped and flipped as suits the data set
    seed              of initialisation, order, augmentation and dropout
    log_every         iterations between rows of the history; None: 100, or an epoch where that is shorter
    eval_every        iterations between measurements of the test error; None: an epoch
    checkpoint_every  iterations between checkpoints; None: an epoch
    keep              newest checkpoints that are kept
    keep_best         whether the checkpoint with the lowest test error is kept too, the earliest among equals
    fuse              whether the network computes with fused operations (`Module.fuse(training=True)`): same bits
    capture           whether forward and backward of whole batches are captured (`mr.capture`): same bits.  Without
                      effect where `Update` cannot capture: several ranks, micro-batches, dropout, other backends
    backend           name of a backend; None: the active one.  A run that your own backend trained records its
                      "module:class": it goes on where that backend is active
    threads           of the CPU backends; None: all processors
    workers           threads that prepare batches; None: the loader's default

    Raises ConfigError.
    """

    network: str = "resnet20"
    data: str = "digits"
    data_dir: str | None = None
    size: int | None = None
    test_fraction: float | None = None
    shortcut: str | None = None
    stride_in: str | None = None
    width: int | None = None
    dtype: str = "float32"
    epochs: float | None = None
    iterations: int | None = None
    batch_size: int = 128
    micro_batch: int | None = None
    sync_batch_norm: bool = False
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    lr_factor: float = 0.1
    warmup: str | int = "none"
    warmup_lr: float = 0.01
    label_smoothing: float = 0.0
    augment: bool = True
    seed: int = 0
    log_every: int | None = None
    eval_every: int | None = None
    checkpoint_every: int | None = None
    keep: int = 1
    keep_best: bool = False
    fuse: bool = True
    capture: bool = True
    backend: str | None = None
    threads: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        try:
            self._check()
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from None

    def _check(self) -> None:
        for name, known in (("network", models.names()), ("data", data.names())):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                kind = "network" if name == "network" else "data set"
                own = " minires.data.register adds your own." if name == "data" else ""
                unknown = f"unknown {kind} {shown(value)}; known are {', '.join(known)}"
                raise ValueError(f"{unknown}.{suggest(value, known)}{own}")
        choice(self.dtype, "dtype", ("float32", "float64"))
        for name in ("nesterov", "augment", "keep_best", "sync_batch_norm", "fuse", "capture"):
            flag(getattr(self, name), name)
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError(
                f"give one of epochs and iterations, got epochs {self.epochs!r} and iterations {self.iterations!r}"
            )
        for name in ("iterations", "batch_size", "micro_batch", "log_every", "eval_every", "checkpoint_every", "keep"):
            if getattr(self, name) is not None:
                integer(getattr(self, name), name, 1)
        if self.threads is not None:
            integer(self.threads, "threads", 1, MOST_THREADS)
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch must be at most the batch_size {self.batch_size}, got {self.micro_batch}")
        integer(self.seed, "seed", 0)
        if self.test_fraction is not None:
            if number(self.test_fraction, "test_fraction", 0, 1, open_minimum=True) == 1:
                raise ValueError("test_fraction must be below 1, got 1")
            if self.data != "folder":
                raise ValueError(f"test_fraction cannot be chosen for {self.data}, got {self.test_fraction}")
        if self.workers is not None:
            integer(self.workers, "workers", 0)
        if self.epochs is not None:
            number(self.epochs, "epochs", 0, 1e9, open_minimum=True)
        number(self.lr, "lr", 0, open_minimum=True)
        for name in ("momentum", "weight_decay", "lr_factor", "warmup_lr"):
            number(getattr(self, name), name, 0)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got momentum 0")
        number(self.label_smoothing, "label_smoothing", 0, 1)
        if self.data_dir is not None and not isinstance(self.data_dir, str):
            raise TypeError(f"data_dir must be a path, got {shown(self.data_dir)}")
        choice(self.schedule, "schedule", ("step", "constant"))
        self._check_milestones()
        if self.schedule == "step":
            try:
                Step(self.lr, (0,) * len(self.milestones), self.lr_factor)
            except ValueError as error:
                raise ValueError(f"lr_{error}") from None
        if isinstance(self.warmup, str):
            choice(self.warmup, "warmup", ("none", "error"))
        else:
            integer(self.warmup, "warmup", 1)
        if self.backend is not None and not self.has_own_backend():
            choice(self.backend, "backend", backends.names())
        allowed = models.options(self.network)
        for name in self.network_options():
            if name not in allowed:
                raise ValueError(f"{self.network} has no option {name}; it has {', '.join(allowed)}")
        if self.shortcut is not None:
            choice(self.shortcut, "shortcut", ("A", "B", "C"))
        if self.stride_in is not None:
            choice(self.stride_in, "stride_in", ("1x1", "3x3"))
        if self.width is not None:
            integer(self.width, "width", 1)
        if self.size is not None:
            integer(self.size, "size", 1)
            if self.data not in ("fashion-mnist", "folder"):
                raise ValueError(f"size cannot be chosen for {self.data}, got {self.size}")

    def _check_milestones(self) -> None:
        if not isinstance(self.milestones, (tuple, list)):
            raise TypeError(f"milestones must be a tuple, got {shown(self.milestones)}")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            number(milestone, "milestones", 0, 2**62)
            if milestone >= 1 and milestone != int(milestone):
                raise ValueError(f"milestones must be whole iterations or fractions below 1, got {milestone!r}")
        if len({milestone < 1 for milestone in self.milestones}) > 1:
            raise ValueError(f"milestones must be all iterations or all fractions, got {shown(self.milestones)}")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must rise, got {shown(self.milestones)}")

    @classmethod
    def make(cls, **given: Any) -> Config:
        """The recipe of the network and data set, changed by the given settings.  Raises ConfigError."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise ConfigError(f"unknown setting {shown(name)}; known are {', '.join(names)}.{suggest(name, names)}")
        names = [given.get(name, getattr(cls, name)) for name in ("network", "data")]
        # A value of another type has no recipe and is refused below.
        settings = recipe(*(name if isinstance(name, str) else "" for name in names))
        if given.get("epochs") is not None or given.get("iterations") is not None:
            settings.pop("epochs", None)
            settings.pop("iterations", None)
        return cls(**{**settings, **given})

    def has_own_backend(self) -> bool:
        """Whether `backend` names an object outside minires."""
        return isinstance(self.backend, str) and ":" in self.backend

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context in which the backend of the run is active.

        Raises ConfigError for your own backend unless it is active already: the configuration may come from a file,
        which must not import code.
        """
        if self.has_own_backend() and (active := backends.path_of(backends.active())) != self.backend:
            raise ConfigError(
                f"backend must be None or a name for this run, which your own backend {self.backend} trained (the "
                f"active one is {active}).  Enter it (with mr.backend(...), or --backend), or choose another by name"
            )
        named = None if self.has_own_backend() else self.backend
        with contextlib.nullcontext() if named is None else backends.backend(named):
            yield

    def network_options(self) -> dict[str, Any]:
        """The options of `models.create` other than None."""
        chosen = {"shortcut": self.shortcut, "stride_in": self.stride_in, "width": self.width}
        return {name: value for name, value in chosen.items() if value is not None}

    def total_iterations(self, batches: int) -> int:
        """Updates of the whole run, for the number of batches in an epoch."""
        integer(batches, "batches", 1)
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * batches))

    def intervals(self, batches: int) -> tuple[int, int, int]:
        """Iterations between rows, evaluations and checkpoints, for the number of batches in an epoch."""
        integer(batches, "batches", 1)
        return self.log_every or min(100, batches), self.eval_every or batches, self.checkpoint_every or batches

    def rates(self, start: int, total: int) -> list[tuple[int, float]]:
        """(iteration, learning rate) at `start` and after every milestone and the end of a fixed warm-up."""
        schedule = self.make_schedule(total)
        milestones = getattr(getattr(schedule, "schedule", schedule), "milestones", ())
        places = {start, *milestones} | ({self.warmup} if isinstance(self.warmup, int) else set())
        return [(place, schedule(place)) for place in sorted(places) if start <= place < total]

    def make_schedule(self, total: int) -> Schedule:
        """The learning rate of a run of `total` iterations."""
        integer(total, "total", 1)
        schedule: Schedule
        if self.schedule == "constant":
            schedule = Constant(self.lr)
        else:
            milestones = (m if m < 1 else int(m) for m in self.milestones)
            schedule = Step.at(self.lr, milestones, total, self.lr_factor)
        if self.warmup == "none":
            return schedule
        return Warmup(schedule, self.warmup_lr, None if isinstance(self.warmup, str) else self.warmup)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {**asdict(self), "milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, values: Any) -> Config:
        """The configuration of a `to_json`, with defaults for missing settings.  Raises ConfigError."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"values must map names to settings of a configuration, got {type(values).__name__}")
        known = [field.name for field in fields(cls)]
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"unknown setting {shown(name)}; known are {', '.join(known)}")
            if name == "milestones" and not isinstance(value, list):
                raise ConfigError(f"milestones must be a list, got {shown(value)}")
        return cls(**values)
