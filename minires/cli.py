"""The command line: `minires COMMAND ...`.  Every command is a call into one of the rooms of the package.

Results go to stdout, progress and errors to stderr.  Exit codes: 0 done, 1 a check or a run failed, 2 wrong usage,
3 a backend is missing, 4 an unsafe or broken file, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minires._checks import suggest

if TYPE_CHECKING:
    from rich.console import Console

    from minires.training import Result


class UsageError(Exception):
    """The command line asks for something that cannot be; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    argv   the words after `minires`; None: those of this process
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × gets a ?, not a traceback
    try:
        arguments = _parse(list(sys.argv[1:] if argv is None else argv))
        code: int = arguments.command(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("minires: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `minires models | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        failure = _exit_code(error)
        if failure is None:
            raise
        print(f"minires: {_one_line(error)}", file=sys.stderr)
        return failure


def _exit_code(error: Exception) -> int | None:
    """The code of an error that a user can cause; None for a bug, which deserves its traceback."""
    from minires import BackendUnavailable
    from minires.data import DataError, DataFileError
    from minires.training import CheckpointError, ConfigError, Diverged

    if isinstance(error, (UsageError, ConfigError)):
        return 2
    if isinstance(error, BackendUnavailable):
        return 3
    if isinstance(error, (CheckpointError, DataFileError)):
        return 4
    if isinstance(error, (DataError, Diverged, MemoryError, OSError)):  # CuPy's OutOfMemoryError is a MemoryError
        return 1
    return None


def _one_line(error: Exception) -> str:
    """The message on one line; a setting of the configuration is called by the name of its flag."""
    text = " ".join(str(error).split())
    return re.sub(r"^([a-z]+(?:_[a-z]+)*)(?= must )", lambda word: "--" + word[0].replace("_", "-"), text)


# -- train


def _train(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from minires.training import Config, Interrupted, load_checkpoint, train
    from minires.training.progress import Silent, for_stderr

    given = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    if arguments.resume is None:
        config = Config.make(**given)
    else:
        for name in given:
            if name not in _MAY_CHANGE:
                flag = "NETWORK" if name == "network" else "--" + name.replace("_", "-")
                raise UsageError(f"{flag} cannot be given with --resume: the run goes on with its own settings")
        config = replace(load_checkpoint(_checkpoint(arguments.resume)).config, **given)
    report = Silent() if arguments.quiet else for_stderr()
    if not arguments.quiet:
        length = f"epochs {config.epochs:g}" if config.epochs is not None else f"iterations {config.iterations:,}"
        print(f"{config.network} on {config.data}: {length}, seed {config.seed}", file=sys.stderr)
    try:
        result = train(config, arguments.out, resume=arguments.resume, download=arguments.download, report=report)
    except Interrupted as stop:
        how = "nothing to resume"
        if stop.checkpoint is not None:
            how = f"go on with: minires train --resume {stop.checkpoint.parent.parent}"
        print(f"minires: {stop}; {how}", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(_result(result), indent=2))
        return 0
    for name, path in (
        ("history", result.folder.history),
        ("curves", result.folder.curves),
        ("configuration", result.folder.config),
        ("checkpoint", result.checkpoint),
    ):
        print(f"{name:14} {path}")
    print(f"test accuracy {100 - result.test_error:.2f} %  (error {result.test_error:.2f} %)")
    return 0


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
    }


# -- evaluate


def _evaluate(arguments: argparse.Namespace) -> int:
    from minires.training import evaluate_run

    path = _checkpoint(arguments.run)
    settings = ("data", "data_dir", "batch_size", "backend", "threads", "workers")
    given = {name: getattr(arguments, name) for name in settings if getattr(arguments, name) is not None}
    trained, evaluation = evaluate_run(path, split=arguments.split, download=arguments.download, **given)
    config, classes = trained.checkpoint.config, trained.checkpoint.classes
    told = {
        "network": config.network,
        "data": config.data,
        "split": arguments.split,
        "checkpoint": str(path),
        "iteration": trained.checkpoint.iteration,
        "images": evaluation.images,
        "top1_error": evaluation.error,
        "top5_error": evaluation.top5_error,
        "classes": list(classes),
        "confusion": evaluation.confusion.tolist(),
    }
    if arguments.json:
        print(json.dumps(told))
        return 0
    _console().print(_confusion_table(evaluation.confusion, classes))
    print(f"{config.network} on {config.data} ({arguments.split}): {evaluation.images:,} images, {path}")
    if evaluation.top5_error is not None:
        print(f"top-5 error   {evaluation.top5_error:.2f} %")
    print(f"top-1 error   {evaluation.error:.2f} %")
    return 0


def _confusion_table(confusion: Any, classes: Sequence[str]) -> Any:
    """The whole matrix for up to 20 classes, the most frequent mistakes for more."""
    from rich.table import Table

    if len(classes) > 20:
        table = Table("label", "taken for", "images", title="most frequent mistakes")
        wrong = confusion.copy()
        wrong.flat[:: len(classes) + 1] = 0
        for index in wrong.ravel().argsort()[::-1][:20]:
            label, predicted = divmod(int(index), len(classes))
            if wrong[label, predicted]:
                table.add_row(classes[label], classes[predicted], f"{wrong[label, predicted]:,}")
        return table
    table = Table(title="confusion: rows are labels, columns predictions")
    table.add_column("")
    for name in classes:
        table.add_column(name, justify="right")
    for row, (name, counts) in enumerate(zip(classes, confusion.tolist(), strict=True)):
        cells = [
            f"[bold]{count:,}[/]" if row == i else f"{count:,}" if count else "·" for i, count in enumerate(counts)
        ]
        table.add_row(name, *cells)
    return table


# -- models, summary


def _models(arguments: argparse.Namespace) -> int:
    from minires import models
    from minires.inspect import summary

    counted = {name: summary(models.create(name), models.input_shape(name)) for name in models.names()}
    if arguments.json:
        told = [
            {"network": name, "input": list(s.input_shape), "parameters": s.params, "macs": s.macs}
            for name, s in counted.items()
        ]
        print(json.dumps(told, indent=2))
        return 0
    from rich.table import Table

    table = Table("network", "input")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    for name, s in counted.items():
        table.add_row(name, "×".join(map(str, s.input_shape)), f"{s.params:,}", f"{s.macs:,}")
    _console().print(table)
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minires import models
    from minires.inspect import summary

    name = arguments.network
    _known_network(name)
    shape = models.input_shape(name) if arguments.input is None else arguments.input
    chosen = {"shortcut": arguments.shortcut, "width": arguments.width, "num_classes": arguments.classes}
    chosen |= {"stride_in": arguments.stride_in}
    options = {option: value for option, value in chosen.items() if value is not None}
    try:
        counted = summary(models.create(name, in_channels=shape[0], **options), shape)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).replace("num_classes", "--classes")) from None
    if arguments.json:
        told = {"network": name, "input": list(shape), "options": options, "parameters": counted.params}
        told |= {"macs": counted.macs, "activation_bytes": counted.activation_bytes}
        print(json.dumps({**told, "rows": [asdict(row) for row in counted.rows]}, indent=2))
    else:
        _console().print(counted)
    return 0


# -- the paper


def _draw(arguments: argparse.Namespace) -> int:
    from minires.paper import drawing

    drawings = [_drawing(name, arguments) for name in arguments.networks]
    stem = Path(arguments.out or "-".join(arguments.networks))
    for kind in ("svg", "png"):
        print(_write(stem.parent / f"{stem.name}.{kind}", drawing.picture(drawings, kind)))
    return 0


def _drawing(name: str, arguments: argparse.Namespace) -> Any:
    from minires import models
    from minires.paper import drawing

    _known_network(name)
    chosen = {"shortcut": arguments.shortcut, "stride_in": arguments.stride_in, "width": arguments.width}
    options = {option: value for option, value in chosen.items() if value is not None}
    options = {option: value for option, value in options.items() if option in models.options(name)}
    try:
        return drawing.named(name, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _paper(arguments: argparse.Namespace) -> int:
    if arguments.item is None:
        for name, (told, _) in _PAPER.items():
            print(f"{name:10} {told}")
        return 0
    if arguments.item not in _PAPER:
        raise UsageError(f"unknown item {arguments.item!r}; known are {', '.join(_PAPER)}."
                         f"{suggest(arguments.item, _PAPER)}")  # fmt: skip
    make: Any = _PAPER[arguments.item][1]
    return int(make(arguments, Path(arguments.out or ".")))


def _paper_table1(arguments: argparse.Namespace, out: Path) -> int:
    from minires import models
    from minires.paper import table1

    given = {"shortcut": arguments.shortcut, "stride_in": arguments.stride_in}
    columns = []
    for name in table1.NETWORKS:
        options = {k: v for k, v in given.items() if v is not None and k in models.options(name)}
        try:
            columns.append(table1.column(name, arguments.time, **options))
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from None
    head, lines = table1.rows(columns)
    _print_table(head, lines, title=f"Table 1; multiply-adds: {table1.CONVENTION}")
    print(_write_csv(out / "table1.csv", head, lines))
    for kind in ("svg", "png"):
        print(_write(out / f"table1.{kind}", table1.picture(columns, kind)))
    return 0


def _paper_table6(arguments: argparse.Namespace, out: Path) -> int:
    from minires.paper import table6

    head, lines = table6.rows([Path(run) for run in arguments.runs])
    _print_table(head, lines, title="Table 6: test error at the last iteration, on cifar10")
    print(_write_csv(out / "table6.csv", head, lines))
    return 1 if any("not reproduced" in line for line in lines) else 0


def _paper_figure3(arguments: argparse.Namespace, out: Path) -> int:
    from minires.paper import drawing, published

    drawings = [drawing.named("vgg19"), drawing.named("plain34"), drawing.named("resnet34", shortcut="A")]
    lines = [[d.title, f"{d.macs:,}", f"{published.FIGURE_3_FLOPS[d.title]} ×10⁹"] for d in drawings]
    head = ["network", "multiply-adds", "the paper's FLOPs"]
    _print_table(head, lines, title="Figure 3")
    print(_write_csv(out / "figure3.csv", head, lines))
    for kind in ("svg", "png"):
        print(_write(out / f"figure3.{kind}", drawing.picture(drawings, kind)))
    return 0


def _paper_figure1(arguments: argparse.Namespace, out: Path) -> int:
    from minires.paper import figure1
    from minires.training.progress import for_stderr

    if arguments.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {arguments.seeds}")
    try:
        plan = figure1.plan(arguments.data, quick=arguments.quick, residual=arguments.residual)
    except ValueError as error:
        raise UsageError(str(error)) from None
    curves = []
    for seed in range(arguments.seeds):
        for network in plan.networks:
            print(f"{network}, seed {seed}: {plan.iterations:,} iterations", file=sys.stderr)
            curves.append(figure1.run(plan, network, seed, out / "figure1", arguments.data_dir, for_stderr()))
    head = ["network", "seed", "training error", "test error"]
    lines = [[c.network, str(c.seed), f"{c.training_error:.2f} %", f"{c.test_error:.2f} %"] for c in curves]
    _print_table(head, lines, title=f"{plan.title}: errors at iteration {plan.iterations:,}")
    points = [
        [c.network, str(c.seed), str(row.iteration), repr(row.training_error), "" if e is None else repr(e)]
        for c in curves
        for row in c.rows
        for e in [row.test_error]
    ]
    print(_write_csv(out / "figure1.csv", ["network", "seed", "iteration", "training error", "test error"], points))
    print(_write(out / "figure1.png", figure1.picture(plan, curves)))
    failed = False
    for told, holds in figure1.verdict(plan, curves):
        print(f"{'holds' if holds else 'FAILS'}: {told}")
        failed |= not holds
    return 1 if failed else 0


def _paper_gradients(arguments: argparse.Namespace, out: Path) -> int:
    from minires.paper import gradients

    try:
        cases = [
            gradients.measure(residual, batch_norm, depth, seed=arguments.seed or 0, steps=arguments.steps)
            for batch_norm in (True, False)
            for residual in (False, True)
            for depth in gradients.DEPTHS
        ]
    except ValueError as error:
        raise UsageError(str(error)) from None
    head = ["network", "second convolution", "last convolution"]
    lines = [[case.name, f"{case.norms[1]:.2g}", f"{case.norms[-1]:.2g}"] for case in cases]
    if arguments.steps:
        head.append(f"median turn after {arguments.steps} steps")
        for line, case in zip(lines, cases, strict=True):
            line.append(f"{sorted(case.turned)[len(case.turned) // 2]:.1f}°")
    _print_table(head, lines, title="norm of the weights' gradient at initialisation")
    print(gradients.WARNING)
    layers = [[case.name, str(i + 1), repr(norm)] for case in cases for i, norm in enumerate(case.norms)]
    print(_write_csv(out / "gradients.csv", ["network", "convolution", "gradient norm"], layers))
    print(_write(out / "gradients.png", gradients.picture(cases)))
    return 0


_PAPER = {
    "table1": ("the architectures for ImageNet, our multiply-adds beside the printed FLOPs", _paper_table1),
    "table6": ("the CIFAR-10 networks: parameters, and the errors of finished runs (--runs)", _paper_table6),
    "figure3": ("VGG-19, the plain and the residual network of 34 layers, side by side", _paper_figure3),
    "figure1": (
        "plain-20 and plain-56 trained side by side (--residual: and their residual kin, Figure 6)",
        _paper_figure1,
    ),
    "gradients": ("gradient norms over depth: plain and residual, with and without batch norm", _paper_gradients),
}


def _known_network(name: str) -> None:
    from minires import models

    if name not in models.names():
        raise UsageError(
            f"unknown network {name!r}; known are {', '.join(models.names())}.{suggest(name, models.names())}"
        )


def _print_table(head: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, title=title, show_lines=any("\n" in cell for line in lines for cell in line))
    for line in lines:
        table.add_row(*map(escape, line))
    _console().print(table)


def _write(path: Path, content: bytes) -> Path:
    from minires.training.atomic import write_bytes

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def _write_csv(path: Path, head: Sequence[str], lines: Sequence[Sequence[str]]) -> Path:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([head, *([cell.replace("\n", "; ") for cell in line] for line in lines)])
    return _write(path, out.getvalue().encode())


# -- kernels


def _kernels(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minires.backends.kernels.catalogue import RUNGS

    if arguments.json:
        print(json.dumps([asdict(rung) for rung in RUNGS], indent=2))
        return 0
    from rich.table import Table

    table = Table("kernel", "computes", "needs", "what it adds")
    for i, rung in enumerate(RUNGS):
        last = i + 1 == len(RUNGS) or RUNGS[i + 1].kind != rung.kind
        table.add_row(rung.name, rung.kind, f"sm_{rung.needs.replace('.', '')}" if rung.needs else "", rung.adds)
        table.rows[-1].end_section = last and rung.kind in ("gemm", "conv2d")
    _console().print(table)
    return 0


# -- doctor


def _doctor(arguments: argparse.Namespace) -> int:
    told = {
        "versions": _versions(),
        "processor": _processor(),
        "backends": _backends(),
        "data": _data_found(arguments.data_dir),
    }
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, title="what is here, and what is missing")
    for section, facts in told.items():
        for i, (name, fact) in enumerate(facts.items()):
            table.add_row(section if i == 0 else "", name, escape(str(fact)), end_section=i == len(facts) - 1)
    _console().print(table)
    return 0


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import minires

    versions = {"minires": minires.__version__, "python": platform.python_version()}
    for name in ("numpy", "safetensors", "pillow", "matplotlib", "rich", "threadpoolctl"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def _processor() -> dict[str, str]:
    import platform
    import shutil

    import numpy as np
    from threadpoolctl import threadpool_info

    import minires

    np.dot(np.ones(2), np.ones(2))  # NumPy's BLAS is loaded by now
    facts = {"machine": f"{platform.system()} {platform.machine()}", "threads": str(minires.get_num_threads())}
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    told = [f"{pool['internal_api']} {pool['version'] or ''}, {pool['num_threads']} threads" for pool in pools]
    facts["BLAS"] = "; ".join(told) or "none that threadpoolctl knows"
    compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    paths = (shutil.which(name) for name in compilers if name)
    facts["C++ compiler"] = next(filter(None, paths), "none: compiled backends cannot be built")
    facts["CUDA compiler"] = shutil.which("nvcc") or "none"
    facts["GPU"] = _gpu()
    return facts


def _gpu() -> str:
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (extras cuda12x, cuda13x)"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
        return f"{', '.join(names)}; CuPy {cupy.__version__}"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__}, no usable device: {error}"


def _backends() -> dict[str, str]:
    from minires import backends

    return {name: reason or "available" for name, reason in backends.available().items()}


def _data_found(data_dir: str | None) -> dict[str, str]:
    from minires import data

    return {name: str(data.find(name, data_dir) or "not found") for name in data.names()}


# -- the words


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def _checkpoint(path: str) -> Path:
    from minires.training import find_checkpoint

    try:
        return find_checkpoint(Path(path))
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None


def _image_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be channels, height and width such as 3x224x224, got {text!r}")
    return int(match[1]), int(match[2]), int(match[3])


def _milestones(text: str) -> tuple[float, ...]:
    try:
        return tuple(int(part) if part.strip().isdigit() else float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be iterations such as 32000,48000 or fractions such as 0.5,0.75, got {text!r}"
        ) from None


def _warmup(text: str) -> str | int:
    return int(text) if text.isdigit() else text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


# What may differ when a run goes on; everything else is the run's own.
_MAY_CHANGE = ("data_dir", "backend", "threads", "workers")
_SETTINGS = (
    *("network", "data", "data_dir", "size", "shortcut", "stride_in", "width", "dtype", "epochs", "iterations"),
    *("batch_size", "lr", "momentum", "weight_decay", "nesterov", "schedule", "milestones", "lr_factor"),
    *("warmup", "warmup_lr", "label_smoothing", "augment", "seed", "log_every", "eval_every"),
    *("checkpoint_every", "keep", "backend", "threads", "workers"),
)


def _parse(argv: list[str]) -> argparse.Namespace:
    from minires import __version__

    parser = _Parser(
        prog="minires",
        description="Residual networks from scratch: train them, look into them.",
        epilog="Exit codes: 0 done, 1 a check or a run failed, 2 wrong usage, 3 a backend is missing, "
        "4 an unsafe or broken file, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    parsers = {
        "train": _add_train(commands),
        "evaluate": _add_evaluate(commands),
        "models": _add_models(commands),
        "summary": _add_summary(commands),
        "draw": _add_draw(commands),
        "paper": _add_paper(commands),
        "kernels": _add_kernels(commands),
        "doctor": _add_doctor(commands),
    }
    if not argv:
        raise UsageError(f"a command is missing; known are {', '.join(parsers)}; minires --help says more")
    word = argv[0]
    if word not in parsers and word not in parser._option_string_actions:
        raise UsageError(f"unknown command {word!r}; known are {', '.join(parsers)}.{suggest(word, parsers)}")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = parsers[word]._option_string_actions
        raise UsageError(f"unknown argument {unknown[0]!r} of minires {word}.{suggest(unknown[0], flags)}")
    return arguments


def _add_train(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a network",
        description="Train a network (resnet20 on digits unless told otherwise) and write its history, learning "
        "curves, configuration and checkpoint into a run folder.  What is not given here follows the paper's recipe "
        "and the data set's.  Ctrl-C saves; --resume goes on to the very same weights.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_train)
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="see `minires models` (default: resnet20)")
    _add_data(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--out", metavar="DIR", help="run folder, new or empty (default: runs/NETWORK-DATA-NUMBER)")
    run.add_argument(
        "--resume", metavar="RUN", help="go on from a run folder's newest checkpoint, or a checkpoint file"
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
    length = parser.add_argument_group("the length").add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=float, metavar="N", help="passes through the training set (default: the data's)"
    )
    length.add_argument("--iterations", type=int, metavar="N", help="updates")
    descent = parser.add_argument_group("the descent")
    descent.add_argument("--batch-size", type=int, metavar="N", help="images an update (default: 128; folder: 256)")
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
    _add_machine(parser)
    return parser


def _add_evaluate(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="errors and confusion matrix of a trained network",
        description="Top-1 and top-5 error and the confusion matrix of a run's newest checkpoint, or of a checkpoint.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    _add_data(parser)
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default: test")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the run's")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_machine(parser)
    return parser


def _add_models(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="the networks, with parameters and multiply-adds",
        description="The networks of the paper, counted as the paper counts: one multiply-add is 1; convolutions, "
        "projections and linear layers count.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_models)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _add_summary(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "summary",
        help="a network, layer by layer",
        description="Output shape, parameters, multiply-adds and activation bytes of every operation.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_summary)
    parser.add_argument("network", metavar="NETWORK", help="see `minires models`")
    parser.add_argument("--input", type=_image_shape, metavar="CxHxW", help="e.g. 3x224x224 (default: the paper's)")
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs of the last layer")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _add_draw(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "draw",
        help="networks drawn as in Figure 3",
        description="Draws networks side by side from the models themselves: one box a weight layer, shortcuts solid, "
        "or dotted where dimensions increase; as SVG and PNG.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_draw)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="see `minires models`")
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--out", metavar="STEM", help="files STEM.svg and STEM.png (default: the networks' names)")
    return parser


def _add_paper(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "paper",
        help="what can be reproduced of the paper; without an item, the list",
        description="Prints a table or figure, ours beside the paper's, and writes its CSV and picture.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_paper)
    parser.add_argument("item", nargs="?", metavar="ITEM", help=", ".join(_PAPER))
    parser.add_argument("--out", metavar="DIR", help="where the files go (default: here)")
    parser.add_argument("--time", action="store_true", help="table1: measure a forward pass of each network")
    parser.add_argument("--shortcut", metavar="A|B|C", help="table1: default B")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="table1: of the bottlenecks, default 1x1")
    parser.add_argument("--data", default="fashion-mnist", metavar="NAME", help="figure1: fashion-mnist or cifar10")
    parser.add_argument("--data-dir", metavar="DIR", help="figure1: look for the data here first")
    parser.add_argument("--quick", action="store_true", help="figure1: 300 iterations instead of 2,000")
    parser.add_argument("--residual", action="store_true", help="figure1: ResNet-20 and ResNet-56 too")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="figure1: runs of each network")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="table6: finished runs on cifar10")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="gradients: follow the weights' turn")
    parser.add_argument("--seed", type=int, metavar="N", help="gradients: default 0")
    return parser


def _add_kernels(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "kernels",
        help="the hand-written CUDA kernels, rung by rung",
        description="Every kernel that a call can pick by name (with mr.backend('cuda', gemm=..., conv2d=...)), each "
        "with what it adds to the one before.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_kernels)
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    return parser


def _add_doctor(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="what is here and what is missing",
        description="Versions, backends, threads, BLAS, compilers, GPU, and the data sets found.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_doctor)
    parser.add_argument("--data-dir", metavar="DIR", help="look for data here first")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the data")
    group.add_argument("--data", metavar="NAME", help="digits, fashion-mnist, cifar10 or folder")
    group.add_argument("--data-dir", metavar="DIR", help="look here first, then in $MINIRES_DATA and the usual places")
    group.add_argument("--download", action="store_true", help="fetch the data if they are missing")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the machine")
    group.add_argument("--backend", metavar="NAME", help="what computes (default: $MINIRES_BACKEND, else reference)")
    group.add_argument("--threads", type=int, metavar="N", help="of the CPU backends, BLAS included (default: all)")
    group.add_argument("--workers", type=int, metavar="N", help="threads that prepare batches (default: 2)")


if __name__ == "__main__":
    sys.exit(main())
