"""The configuration of a run: every setting, checked, as plain values that JSON can hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

from minires import backends, data, models
from minires._checks import choice, flag, integer, number, suggest
from minires._repr import shown
from minires.backends.threads import MOST_THREADS
from minires.optim import Constant, Schedule, Step, Warmup
from minires.training.recipes import recipe


class ConfigError(ValueError):
    """An invalid setting; the message contains its name, its value and the allowed values."""


NETWORK, DATA, LENGTH, UPDATE = "The network and its images", "The data", "The length", "The update"
RUN, MACHINE = "The run", "The machine"


def setting(
    default: Any,
    help: str,
    group: str,
    check: Callable[[Any, str], object] | None = None,
    *,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    resume: bool = False,
) -> Any:
    """A field of `Config`.

    help      what it is, its unit, and the default unless that is the same for every run
    group     heading of its flag in `minires train --help`
    check     raises TypeError or ValueError, of a value and the setting's name; None is checked only if not the default
    resume    whether a resumed run may have another value
    """
    words = {"help": help, "group": group, "choices": choices, "metavar": metavar, "resume": resume}
    return field(default=default, metadata={"check": check} | words)


def at_least(minimum: int, maximum: int = 2**63 - 1) -> Callable[[Any, str], int]:
    return partial(integer, minimum=minimum, maximum=maximum)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training run.  The defaults are the paper's recipe.

    Each setting is declared once, with its help and its check: `minires train` makes its flags from the settings.
    Raises ConfigError.
    """

    network: str = setting("resnet20", "network name; `minires models` lists the names", NETWORK)
    data: str = setting("digits", "data set: digits, fashion-mnist, cifar10, folder, or one that you registered", DATA)
    data_dir: str | None = setting(
        None, "folder to search first (default: $MINIRES_DATA, then the usual places)", DATA, metavar="DIR", resume=True
    )
    size: int | None = setting(
        None,
        "side of the images in pixels, for fashion-mnist and folder (default: the data set's)",
        NETWORK,
        at_least(1),
    )
    test_fraction: float | None = setting(
        None, "share of each class's images to test on, chosen by the seed; for a folder without train/ and test/",
        DATA, metavar="X",
    )  # fmt: skip
    shortcut: str | None = setting(
        None, "kind of shortcut where dimensions increase (default: A for CIFAR networks, else B)", NETWORK,
        choices=("A", "B", "C"),
    )  # fmt: skip
    stride_in: str | None = setting(
        None, "convolution of a bottleneck that has the stride (default: 1x1)", NETWORK, choices=("1x1", "3x3")
    )
    width: int | None = setting(None, "filters of the first stage (default: the network's)", NETWORK, at_least(1))
    dtype: str = setting("float32", "type of weights and activations", NETWORK, choices=("float32", "float64"))
    epochs: float | None = setting(
        None, "length of the run in passes through the training set (default: the data set's)", LENGTH,
        partial(number, minimum=0, maximum=1e9, open_minimum=True), resume=True,
    )  # fmt: skip
    iterations: int | None = setting(
        None, "length of the run in updates, instead of epochs", LENGTH, at_least(1), resume=True
    )
    batch_size: int = setting(128, "images per update (default: 128; folder: 256)", UPDATE, at_least(1))
    micro_batch: int | None = setting(
        None, "images at a time, to save memory (default: the whole batch).  The gradients add up to those of the "
        "batch, but batch norm's statistics cover only these images", UPDATE, at_least(1),
    )  # fmt: skip
    sync_batch_norm: bool = setting(
        False, "batch norm's statistics over all ranks' images, instead of each rank's own images", UPDATE, flag
    )
    lr: float = setting(0.1, "learning rate", UPDATE, partial(number, minimum=0, open_minimum=True))
    momentum: float = setting(0.9, "momentum of SGD", UPDATE, partial(number, minimum=0))
    weight_decay: float = setting(1e-4, "weight decay", UPDATE, partial(number, minimum=0))
    nesterov: bool = setting(False, "Nesterov's momentum", UPDATE, flag)
    schedule: str = setting(
        "step",
        "learning rate over the run: reduced at each milestone (step), or constant",
        UPDATE,
        choices=("step", "constant"),
    )
    milestones: tuple[float, ...] = setting(
        (0.5, 0.75), "updates at which the learning rate is reduced; numbers below 1 are fractions of the run's length "
        "(default: 0.5,0.75; folder: 1/3 and 2/3)", UPDATE, metavar="A,B",
    )  # fmt: skip
    lr_factor: float = setting(0.1, "factor of the learning rate at each milestone", UPDATE, partial(number, minimum=0))
    warmup: str | int = setting(
        "none", "warm-up: N updates, or error (until the training error is below 80 %), or none "
        "(default: none; resnet110: error)", UPDATE, metavar="N|error|none",
    )  # fmt: skip
    warmup_lr: float = setting(0.01, "learning rate of the warm-up", UPDATE, partial(number, minimum=0))
    label_smoothing: float = setting(
        0.0, "share of label smoothing in [0, 1]", UPDATE, partial(number, minimum=0, maximum=1)
    )
    augment: bool = setting(True, "padding, crops and flips of training images, as suits the data set", DATA, flag)
    seed: int = setting(0, "seed of initialisation, order, augmentation and dropout", RUN, at_least(0))
    log_every: int | None = setting(
        None, "updates between rows of the history (default: 100, at most an epoch)", RUN, at_least(1)
    )
    eval_every: int | None = setting(
        None, "updates between measurements of the test error (default: an epoch)", RUN, at_least(1)
    )
    checkpoint_every: int | None = setting(None, "updates between checkpoints (default: an epoch)", RUN, at_least(1))
    keep: int = setting(1, "number of newest checkpoints to keep", RUN, at_least(1))
    keep_best: bool = setting(
        False, "second checkpoint, RUN/best, with the lowest test error, the earliest among equals", RUN, flag
    )
    fuse: bool = setting(
        True, "fused operations, bit-identical: batch norm, skip-add and ReLU in one pass", MACHINE, flag, resume=True
    )
    capture: bool = setting(
        True, "replay of recorded kernel calls without Python between them, bit-identical; no effect with several "
        "ranks, micro-batches, dropout, or a backend other than native", MACHINE, flag, resume=True,
    )  # fmt: skip
    backend: str | None = setting(
        None, "backend that computes: a name, NAME:option=value such as emulated:gemm=mine.cu, or module:object for "
        "your own (default: $MINIRES_BACKEND, else native)", MACHINE, resume=True,
    )  # fmt: skip
    threads: int | None = setting(
        None, "threads of the CPU backends, BLAS included (default: all processors)", MACHINE,
        at_least(1, MOST_THREADS), resume=True,
    )  # fmt: skip
    workers: int | None = setting(None, "threads that prepare batches (default: 2)", MACHINE, at_least(0), resume=True)

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
        for one in fields(self):
            value, check, choices = getattr(self, one.name), one.metadata["check"], one.metadata["choices"]
            if value is None and one.default is None:
                continue
            if check is not None:
                check(value, one.name)
            if choices:
                choice(value, one.name, choices)
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError(
                f"give one of epochs and iterations, got epochs {self.epochs!r} and iterations {self.iterations!r}"
            )
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch must be at most the batch_size {self.batch_size}, got {self.micro_batch}")
        if self.test_fraction is not None:
            if number(self.test_fraction, "test_fraction", 0, 1, open_minimum=True) == 1:
                raise ValueError("test_fraction must be below 1, got 1")
            if self.data != "folder":
                raise ValueError(f"test_fraction cannot be chosen for {self.data}, got {self.test_fraction}")
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got momentum 0")
        if self.data_dir is not None and not isinstance(self.data_dir, str):
            raise TypeError(f"data_dir must be a path, got {shown(self.data_dir)}")
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
            name = self.backend.partition(":")[0] if isinstance(self.backend, str) else self.backend
            choice(name, "backend", backends.names())
        allowed = models.options(self.network)
        for name in self.network_options():
            if name not in allowed:
                raise ValueError(f"{self.network} has no option {name}; it has {', '.join(allowed)}")
        if self.size is not None and self.data not in ("fashion-mnist", "folder"):
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
        """Whether `backend` names code outside minires: an object, or a kernel's file."""
        name, colon, rest = self.backend.partition(":") if isinstance(self.backend, str) else ("", "", "")
        return bool(colon) and (name not in backends.names() or ".cu" in rest)

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


Config.__doc__ = f"{Config.__doc__}\n" + "".join(
    f"    {one.name:17} {one.metadata['help']}\n" for one in fields(Config)
)
