"""`minires train`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires.cli.words import UsageError, add_data, add_machine, checkpoint, computing_on, own_backend, print_json, say

if TYPE_CHECKING:
    from minires.parallel import Communicator
    from minires.training import Config, Result

# The settings of `Config` that are flags, and those of them that may differ when a run goes on.
_SETTINGS = (
    *("network", "data", "data_dir", "size", "test_fraction", "shortcut", "stride_in", "width", "dtype"),
    *("epochs", "iterations"),
    *("batch_size", "micro_batch", "sync_batch_norm", "lr", "momentum", "weight_decay", "nesterov"),
    *("schedule", "milestones", "lr_factor", "warmup", "warmup_lr", "label_smoothing", "augment", "seed"),
    *("log_every", "eval_every", "checkpoint_every", "keep", "keep_best"),
    *("fuse", "capture", "backend", "threads", "workers"),
)
_MAY_CHANGE = ("data_dir", "epochs", "iterations", "fuse", "capture", "backend", "threads", "workers")


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a network",
        description="Train a network (resnet20 on digits unless told otherwise) and write its history, learning "
        "curves, configuration and checkpoint into a run folder.  What is not given here follows the paper's recipe "
        "and the data set's.  Ctrl-C or SIGTERM saves (under nohup too, where SIGINT is ignored); --resume goes on to "
        "the very same weights, also after a kill or a power failure at any moment.  "
        "A closed or full stderr loses the progress, not the run.  "
        "`mpirun -n K minires train ...` trains on K processes (ranks), which share every batch.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_train)
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="see `minires models` (default: resnet20)")
    add_data(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--out", metavar="DIR", help="run folder, new or empty (default: runs/NETWORK-DATA-NUMBER)")
    run.add_argument(
        "--resume",
        metavar="RUN",
        help="go on from a run folder's newest checkpoint (from the beginning where there is none yet), from RUN/best, "
        "or from a checkpoint file; the images must be the same.  --epochs or --iterations give the run another "
        "length: milestones in iterations stay where they are, fractions are of the new length",
    )
    run.add_argument(
        "--seed", type=int, metavar="N", help="of initialisation, order, augmentation, dropout (default: 0)"
    )
    run.add_argument("--json", action="store_true", help="print the result as JSON")
    run.add_argument("--quiet", action="store_true", help="no progress on stderr")
    run.add_argument("--log-every", type=int, metavar="N", help="iterations a row (default: 100, at most an epoch)")
    run.add_argument("--eval-every", type=int, metavar="N", help="iterations between test errors (default: an epoch)")
    run.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="iterations between checkpoints (default: an epoch)"
    )
    run.add_argument("--keep", type=int, metavar="N", help="how many of the newest checkpoints stay (default: 1)")
    run.add_argument(
        "--keep-best",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the checkpoint with the lowest test error (the earliest among equals) stays too; RUN/best names it to "
        "--resume, evaluate and predict (default: no)",
    )
    length = parser.add_argument_group("the length").add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=float, metavar="N", help="passes through the training set (default: the data's)"
    )
    length.add_argument("--iterations", type=int, metavar="N", help="updates")
    descent = parser.add_argument_group("the descent")
    descent.add_argument("--batch-size", type=int, metavar="N", help="images an update (default: 128; folder: 256)")
    descent.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="images that go through the network at a time, at most, to save memory: gradients add up to the batch's, "
        "batch norm takes its statistics over those of a time (default: the whole batch)",
    )
    descent.add_argument(
        "--sync-batch-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="with several ranks: batch norm takes its statistics over the whole batch, not over a rank's part of it "
        "(default: no)",
    )
    descent.add_argument("--lr", type=float, metavar="X", help="learning rate (default: 0.1)")
    descent.add_argument("--momentum", type=float, metavar="X", help="default: 0.9")
    descent.add_argument("--weight-decay", type=float, metavar="X", help="default: 0.0001")
    descent.add_argument(
        "--nesterov", action=argparse.BooleanOptionalAction, default=None, help="Nesterov's momentum (default: no)"
    )
    descent.add_argument("--schedule", metavar="NAME", help="step or constant (default: step)")
    descent.add_argument(
        "--milestones",
        type=_milestones,
        metavar="A,B",
        help="where the rate drops, in iterations or as fractions of the run (default: 0.5,0.75; folder: 1/3 and 2/3)",
    )
    descent.add_argument("--lr-factor", type=float, metavar="X", help="of every drop (default: 0.1)")
    descent.add_argument(
        "--warmup",
        type=_warmup,
        metavar="HOW",
        help="begin at --warmup-lr: for N iterations, or `error`: until the training error is below 80 %%; or `none` "
        "(default: none; resnet110: error)",
    )
    descent.add_argument("--warmup-lr", type=float, metavar="X", help="default: 0.01")
    descent.add_argument("--label-smoothing", type=float, metavar="X", help="in [0, 1] (default: 0)")
    network = parser.add_argument_group("the network and its images")
    network.add_argument("--size", type=int, metavar="N", help="side of the images (fashion-mnist, folder)")
    network.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="share of each class's images that become test images, drawn from --seed, of a folder of classes without "
        "train/ and test/",
    )
    network.add_argument("--shortcut", metavar="A|B|C", help="default: A for the CIFAR family, B for ImageNet's")
    network.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    network.add_argument("--width", type=int, metavar="N", help="filters of the first stage (default: the network's)")
    network.add_argument("--dtype", metavar="NAME", help="float32 or float64 (default: float32)")
    network.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="pad, crop and flip training images as suits the data (default: yes)",
    )
    add_machine(parser)
    parser.add_argument(
        "--fuse",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="fused operations: batch norm, skip-add and ReLU in one pass, the same bits (default: yes)",
    )
    parser.add_argument(
        "--capture",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="replay recorded kernel calls instead of running Python between them, the same bits (default: yes)",
    )
    return parser


def _train(arguments: argparse.Namespace) -> int:
    from minires.parallel import world

    ranks = world()
    mine = arguments.backend if own_backend(arguments.backend) else None
    with computing_on(mine):
        return _train_on(ranks, arguments)


def _train_on(ranks: Communicator, arguments: argparse.Namespace) -> int:
    from minires.parallel import together
    from minires.training import Interrupted, train
    from minires.training.progress import Silent, on_stderr

    config = together(ranks, lambda: _config(arguments))
    speaks = ranks.rank == 0
    shown = on_stderr() if speaks and not arguments.quiet else contextlib.nullcontext([Silent()])
    if speaks and not arguments.quiet:
        length = f"epochs {config.epochs:g}" if config.epochs is not None else f"iterations {config.iterations:,}"
        among = f", {ranks.size} ranks" if ranks.size > 1 else ""
        say(f"{config.network} on {config.data}: {length}, seed {config.seed}{among}", error=True)
    try:
        with shown as (report,):
            result = train(
                config, arguments.out, resume=arguments.resume, download=arguments.download, report=report, ranks=ranks
            )
    except Interrupted as stop:
        if speaks:
            say(f"minires: {stop}", error=True)
        return 130
    if speaks:
        _print(result, arguments.json)
    return 0


def _config(arguments: argparse.Namespace) -> Config:
    from dataclasses import replace

    from minires.training import Config, resume_config

    given = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    given |= {"backend": None} if own_backend(arguments.backend) else {}
    if arguments.resume is None:
        return Config.make(**given)
    for name in given:
        if name not in _MAY_CHANGE:
            flag = "NETWORK" if name == "network" else "--" + name.replace("_", "-")
            raise UsageError(f"{flag} cannot be given with --resume: the run goes on with its own settings")
    if "epochs" in given or "iterations" in given:
        given = {"epochs": None, "iterations": None, **given}
    if Path(arguments.resume).is_file():
        checkpoint(arguments.resume, "--resume")  # says what a file is that is none
    try:
        return replace(resume_config(arguments.resume), **given)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        print_json(_result(result))
        return
    for name, path in (
        ("history", result.folder.history),
        ("curves", result.folder.curves),
        ("configuration", result.folder.config),
        ("checkpoint", result.checkpoint),
        ("best", result.best),
    ):
        if path is not None:
            say(f"{name:14} {path}", indent=None)
    say(f"test accuracy {100 - result.test_error:.2f} %  (error {result.test_error:.2f} %)")


def _result(result: Result) -> dict[str, Any]:
    last = result.rows[-1]
    return {
        "network": result.config.network,
        "data": result.config.data,
        "seed": result.config.seed,
        "parameters": result.parameters,
        "iterations": last.iteration,
        "epochs": last.epoch,
        "seconds": last.seconds,
        "training_loss": last.training_loss,
        "training_error": last.training_error,
        "test_error": result.test_error,
        "test_accuracy": 100 - result.test_error,
        "run": str(result.folder.path),
        "history": str(result.folder.history),
        "curves": str(result.folder.curves),
        "config": str(result.folder.config),
        "checkpoint": str(result.checkpoint),
        "best": None if result.best is None else str(result.best),
    }


def _milestones(text: str) -> tuple[float, ...]:
    try:
        return tuple(int(part) if part.strip().isdigit() else float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be iterations such as 32000,48000 or fractions such as 0.5,0.75, got {text!r}"
        ) from None


def _warmup(text: str) -> str | int:
    return int(text) if text.isdigit() else text
