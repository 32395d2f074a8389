"""The learning curves, drawn as in the paper's Figures 1 and 6: thin training error, bold test error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from minires._atomic import write_bytes
from minires._plotting import encoded
from minires.training.history import Row


def draw(histories: Mapping[str, Sequence[Row]], path: Path, title: str = "") -> None:
    """Writes a PNG of training error (thin, dashed) and test error (bold) in percent against iterations.

    histories   label -> rows; each network has one colour
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    highest = 0.0
    for number, (label, rows) in enumerate(histories.items()):
        colour = f"C{number}"
        training = [(row.iteration, row.training_error) for row in rows]
        test = [(row.iteration, row.test_error) for row in rows if row.test_error is not None]
        axes.plot(*_columns(training), "--", color=colour, linewidth=1, label=f"{label}, training")
        mark = "o" if len(test) < 2 else ""
        axes.plot(*_columns(test), linestyle="-", marker=mark, color=colour, linewidth=2.5, label=f"{label}, test")
        # The first errors, near chance, would press the rest of the curves flat.
        points = [*training, *test]
        end = max((iteration for iteration, _ in points), default=0)
        highest = max([highest, *(error for iteration, error in points if iteration >= end / 5)])
    axes.set(xlabel="iterations", ylabel="error (%)", ylim=(0, min(100.0, max(5.0, 1.25 * highest))), title=title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    write_bytes(path, encoded(figure))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
