"""Table 6: the residual networks for CIFAR-10, and the errors of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minires import models
from minires.inspect import summary
from minires.paper import published
from minires.training import find_checkpoint, load_checkpoint


def rows(runs: Sequence[Path] = ()) -> tuple[list[str], list[list[str]]]:
    """Head and lines: layers, parameters and test error beside the paper's.

    runs   run folders; finished runs on cifar10 contribute the test error at the last iteration

    Raises what `minires.training.load_checkpoint` raises.
    """
    errors: dict[str, list[float]] = {}
    for run in runs:
        checkpoint = load_checkpoint(find_checkpoint(run))
        config, last = checkpoint.config, checkpoint.rows[-1]
        done = last.iteration == config.total_iterations(round(last.iteration / last.epoch))
        if config.data == "cifar10" and done and last.test_error is not None:
            errors.setdefault(config.network, []).append(last.test_error)
    head = ["network", "layers", "parameters", "the paper's", "test error", "the paper's"]
    lines = []
    for name, million in published.CIFAR_PARAMETERS.items():
        counted = summary(models.create(name), models.input_shape(name))
        ours = ", ".join(f"{error:.2f} %" for error in errors.get(name, [])) or "not reproduced"
        printed = f"{published.CIFAR_ERRORS[name]} %"
        if name in published.CIFAR_ERROR_OF_5_RUNS:
            mean, deviation = published.CIFAR_ERROR_OF_5_RUNS[name]
            printed += f" ({mean} ± {deviation})"
        lines.append([name, name.removeprefix("resnet"), f"{counted.params:,}", f"{million} M", ours, printed])
    return head, lines
