"""Figures 1, 4 and 7: runs, resumption, verdict, pictures and the page of everything, on a few iterations."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.rows import timeless

from minires import cli, data, models
from minires.data import Dataset
from minires.paper import experiment, figure1, figure4, figure7, items
from minires.paper.experiment import Claim, Curve
from minires.training import evaluate, history
from minires.training.progress import Silent

ROW = history.Row(300, 1.0, 0.02, 1.0, 40.0, 50.0, 100.0, 1.0)


@pytest.fixture
def small(monkeypatch):
    """300 + 100 images in place of Fashion-MNIST."""

    def load(name, split="train", data_dir=None, download=False, size=None, *folder_options):
        n = 300 if split == "train" else 100
        rng = np.random.default_rng(n)  # the same images every time
        images = rng.integers(0, 256, (n, size or 28, size or 28, 1)).astype(np.uint8)
        return Dataset(name, split, images, np.arange(n) % 10, tuple("abcdefghij"))

    monkeypatch.setattr(data, "load", load)


def shortened(plan):
    """The plan with four iterations, without loader threads."""
    small = {"eval_every": 2, "workers": 0, "width": 4, "batch_size": 16}
    return replace(plan, iterations=4, settings={**plan.settings, **small})


def test_a_curve_is_a_run_that_is_found_again(small, tmp_path):
    plan = figure1.plan(quick=True, residual=True)
    assert plan.networks == ("plain20", "plain56", "resnet20", "resnet56")
    short = shortened(plan)
    first = experiment.run(short, "plain20", 0, tmp_path, None, Silent())
    folder = tmp_path / "plain20-4-0"
    written = (folder / "history.csv").stat().st_mtime_ns
    again = experiment.run(short, "plain20", 0, tmp_path, None, Silent())
    assert again.rows == first.rows
    assert (folder / "history.csv").stat().st_mtime_ns == written
    assert 0 <= first.training_error <= 100
    assert first.rows[-1].iteration == 4
    shutil.rmtree(folder / "checkpoints")  # as a kill before the first one leaves it
    assert timeless(experiment.run(short, "plain20", 0, tmp_path, None, Silent()).rows) == timeless(first.rows)


def test_figure_4_of_a_folder(tmp_path, monkeypatch):
    """The training error is that of every n-th image, so no class is missing."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in "abc":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
                picture.save(tmp_path / split / name / f"{i}.png")
    monkeypatch.setattr(experiment, "SAMPLE", 7)
    plan = shortened(figure4.plan("folder", quick=True))
    plan = replace(plan, settings={**plan.settings, "size": 32, "batch_size": 4})
    evaluated = []
    monkeypatch.setattr(experiment, "evaluate", lambda *given: evaluated.append(evaluate(*given)) or evaluated[0])
    curve = experiment.run(plan, "resnet18", 0, tmp_path / "out", str(tmp_path), Silent())
    assert curve.training_error == evaluated[0].error
    assert evaluated[0].confusion.sum(axis=1).tolist() == [2, 2, 2]  # of 18 images every third


def test_all_curves_with_all_seeds(small, tmp_path):
    short = replace(shortened(figure1.plan(quick=True)), networks=("plain20", "resnet20"))
    curves = experiment.run_all(short, 2, tmp_path, jobs=1)
    assert [(c.network, c.seed) for c in curves] == [("plain20", 0), ("resnet20", 0), ("plain20", 1), ("resnet20", 1)]
    assert curves[0].rows[-1].training_loss != curves[2].rows[-1].training_loss


def test_the_deepest_networks_start_first(monkeypatch):
    started = []
    monkeypatch.setattr(experiment, "run", lambda plan, network, seed, *others: started.append((network, seed)))
    experiment.run_all(figure1.plan(), 2, Path(), jobs=1)
    assert started == [("plain56", 0), ("plain20", 0), ("plain56", 1), ("plain20", 1)]


def curves(**errors):
    return [Curve(name, 0, (ROW,), error, error + 1, Path()) for name, error in errors.items()]


def test_the_verdict():
    plan = figure1.plan(quick=True, residual=True)
    good = experiment.verdict(plan, curves(plain20=34.0, plain56=63.0, resnet20=28.0, resnet56=29.0))
    assert [holds for _, holds in good] == [True, True, True]
    bad = experiment.verdict(plan, curves(plain20=34.0, plain56=48.0, resnet20=33.0, resnet56=29.9))
    assert [holds for _, holds in bad] == [False, False, False]
    standard = figure1.plan(residual=True)
    found = experiment.verdict(standard, curves(plain20=20.0, plain56=28.1, resnet20=17.0, resnet56=10.0))
    assert [holds for _, holds in found] == [True, True, True]  # better than ResNet-20 is never too far
    assert len(experiment.verdict(figure1.plan(), curves(plain20=20.0, plain56=30.0))) == 1


def test_nan_fails_the_verdict():
    plan = figure1.plan(quick=True)
    assert [holds for _, holds in experiment.verdict(plan, curves(plain20=30.0, plain56=float("nan")))] == [False]


def test_the_papers_own_experiment():
    plan = figure1.plan("cifar10")
    assert plan.iterations == 64_000
    assert "Figure 1 on CIFAR-10" in plan.title
    assert "analogue" in figure1.plan().title
    with pytest.raises(ValueError, match="data must be one of 'fashion-mnist', 'cifar10'"):
        figure1.plan("digits")


def test_picture():
    plan = figure1.plan(quick=True, residual=True)
    every = curves(plain20=34.0, plain56=63.0, resnet20=28.0, resnet56=29.0)
    with Image.open(io.BytesIO(figure1.picture(plan, every))) as image:
        assert image.size == (1500, 660)


def test_wrong_usage_is_one_line(capsys):
    for words, message in (
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--data", "digits"), "--data must be one of"),
        (("--jobs", "0"), "--jobs must be at least 1"),
        (("--steps", "3"), "unknown argument '--steps' of minires paper figure1"),
        (("--out", "/dev/null/here"), "--out: nothing can be written in /dev/null/here"),
    ):
        assert cli.main(["paper", "figure1", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_claim_of_either_sign():
    claim = Claim("a", "b", most=3, either_way=True)
    assert [claim.judge({"a": 20.0, "b": b})[1] for b in (16.9, 17.1, 22.9, 23.1)] == [False, True, True, False]


def test_equal_errors_hold():
    assert Claim("a", "b", least=0).judge({"a": 20.0, "b": 20.0})[1]
    assert Claim("a", "b", most=0).judge({"a": 20.0, "b": 20.0})[1]


def test_every_seed_is_judged_by_its_own_errors():
    both = [replace(c, seed=seed) for seed, plain56 in ((0, 50.0), (1, 30.0))
            for c in curves(plain20=34.0, plain56=plain56)]  # fmt: skip
    found = experiment.verdict(figure1.plan(quick=True), both)
    assert [holds for _, holds in found] == [True, False]
    assert [claim.partition(":")[0] for claim, _ in found] == ["seed 0", "seed 1"]


@pytest.mark.parametrize(
    ("plan", "deep", "shallow"),
    [
        (figure1.plan("cifar10", residual=True), "resnet56", "resnet20"),
        (figure4.plan("folder"), "resnet34", "resnet18"),
    ],
)
def test_the_papers_claims(plan, deep, shallow):
    """The deeper plain network is worse; the deeper residual network is not."""
    plain = {deep.replace("resnet", "plain"): 9.0, shallow.replace("resnet", "plain"): 8.0}
    for residual, holds in (((5.0, 6.0), True), ((6.0, 5.0), False)):
        errors = curves(**plain, **dict(zip((deep, shallow), residual, strict=True)))
        assert [one for _, one in experiment.verdict(plan, errors)] == [True, holds]


def test_how_often_the_papers_experiments_are_measured():
    assert figure1.plan("cifar10").settings["eval_every"] == 1000
    assert figure4.plan("folder").settings["eval_every"] == 10_000
    assert figure1.plan("cifar10", quick=True).settings["eval_every"] == 100


@pytest.fixture
def drawn(monkeypatch):
    """Collects the drawn figures in place of their bytes."""
    figures = []
    for module in (experiment, figure7):
        monkeypatch.setattr(module, "encoded", lambda figure: (figures.append(figure), b"")[1])
    return figures


def lines_of(axes):
    return {line.get_label(): (line.get_linestyle(), list(line.get_ydata())) for line in axes.lines}


def test_the_panels_of_figure_1(drawn):
    errors = (10.0, 20.0, 60.0)
    rows = [replace(ROW, training_error=error, test_error=error + 1) for error in errors]
    seeds = [Curve("plain20", seed, (row,), 0.0, 0.0, Path()) for seed, row in enumerate(rows)]
    others = [replace(seed, network="plain56") for seed in seeds]
    figure1.picture(figure1.plan(), [*seeds, *others])
    left, right = drawn[0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("training error (%)", "test error (%)")
    assert lines_of(left)["plain20"] == ("-", [30.0])  # the mean of three
    assert lines_of(right)["plain56"] == ("-", [31.0])
    assert len(left.lines) == 2 * (3 + 1)


def test_the_lines_of_figure_4(drawn):
    figure4.picture(figure4.plan(), curves(plain18=25.0, plain34=43.0, resnet18=22.0, resnet34=24.0))
    left, right = drawn[0].axes
    assert lines_of(left) == {
        "plain18, training": ("--", [40.0]),
        "plain18, test": ("-", [50.0]),
        "plain34, training": ("--", [40.0]),
        "plain34, test": ("-", [50.0]),
    }
    assert [line.get_color() for line in right.lines] == ["C0", "C0", "C3", "C3"]


def test_the_lines_of_figure_7(drawn):
    responses = [figure7.Responses(name, "cifar10", (1.0, 3.0, 2.0)) for name in ("plain20", "resnet20")]
    figure7.picture(responses)
    above, below = drawn[0].axes
    assert lines_of(above) == {"plain20": ("--", [1.0, 3.0, 2.0]), "resnet20": ("-", [1.0, 3.0, 2.0])}
    assert lines_of(below)["resnet20"][1] == [3.0, 2.0, 1.0]
    assert list(above.lines[0].get_xdata()) == [1, 2, 3]


def test_the_columns_of_the_reports(monkeypatch, tmp_path):
    monkeypatch.setattr(experiment, "run_all", lambda *arguments: curves(plain20=34.0, plain56=63.0))
    report = items.reproduce_figure1(tmp_path, quick=True)
    assert report.head == ["network", "seed", "training error", "test error", "time"]
    assert report.lines[0] == ["plain20", "0", "34.00 %", "35.00 %", "1 s"]
    assert report.files["figure1.csv"].decode().splitlines()[1] == "plain20,0,300,40.0,50.0"
    monkeypatch.setattr(figure7, "of_run", lambda *arguments: figure7.Responses("plain20", "digits", (1.0, 3.0, 2.0)))
    assert items.reproduce_figure7(runs=[tmp_path]).lines == [["plain20", "3", "2.000", "1.000", "3.000"]]


# -- Figure 4


def test_figure_4_has_no_parameters_beyond_the_plain_networks():
    plan = figure4.plan(quick=True)
    assert plan.config("resnet34", 0).shortcut == "A"
    assert plan.config("plain34", 0).shortcut is None
    assert "analogue" in plan.title
    assert figure4.plan("folder").iterations == 600_000
    every = curves(plain18=25.0, plain34=43.0, resnet18=22.0, resnet34=24.0)
    assert [holds for _, holds in experiment.verdict(plan, every)] == [True, True, True]
    worse = curves(plain18=25.0, plain34=29.0, resnet18=22.0, resnet34=27.0)
    assert [holds for _, holds in experiment.verdict(plan, worse)] == [False, False, False]
    with Image.open(io.BytesIO(figure4.picture(plan, every))) as image:
        assert image.size == (1500, 660)


# -- Figure 7


def test_responses_at_initialisation_are_1():
    found = figure7.initialised("resnet20")
    assert len(found.deviations) == 19
    assert found.deviations == pytest.approx([1.0] * 19, abs=1e-2)  # eps, beside variances of small convolutions


def test_the_7x7_convolution_has_no_response_in_figure_7():
    model = models.create("resnet18", width=4)
    assert len(figure7._deviations(model, np.ones((2, 3, 32, 32), np.float32))) == 16


def test_responses_of_a_trained_network(small, tmp_path, monkeypatch):
    curve = experiment.run(shortened(figure1.plan(quick=True)), "plain20", 0, tmp_path, None, Silent())
    found = figure7.of_run(curve.path)
    assert len(found.deviations) == 19
    assert found.trained_on == "fashion-mnist"
    assert np.ptp(found.deviations) > 0.01  # running statistics of four updates are not those of these images
    report = items.reproduce_figure7(runs=[curve.path])
    assert "trained on fashion-mnist" in report.notes[0]
    assert report.files["figure7.csv"].count(b"\n") == 20
    monkeypatch.setattr(figure7, "IMAGES", 20)  # batches have 16
    monkeypatch.setattr(figure7, "_deviations", lambda model, images: (float(len(images)),))
    assert figure7.of_run(curve.path).deviations == (20.0,)


# -- all of it


def test_the_page_of_everything(small, tmp_path, monkeypatch, capsys):
    for figure in (figure1, figure4):
        whole = figure.plan
        monkeypatch.setattr(figure, "plan", lambda *a, whole=whole, **k: shortened(whole(*a, **k)))
    monkeypatch.setattr(items.gradients, "DEPTHS", (20,))
    code = cli.main(["paper", "all", "--quick", "--jobs", "1", "--out", str(tmp_path)])
    assert code == 1  # four iterations: no claim of an order holds
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    for name in ("table1.png", "figure3.png", "figure1.png", "figure4.png", "figure7.png", "gradients.png"):
        assert f"]({name})" in page
        assert (tmp_path / name).stat().st_size > 10_000
    assert "FAILS: seed 0" in page
    assert "trained on fashion-mnist" in page  # Figure 7 takes the networks of Figure 1
    assert "errors of Table 6: they need CIFAR-10" in page
    assert "FAILS" in capsys.readouterr().out


@pytest.mark.slow
def test_without_the_data_the_rest_is_reproduced(monkeypatch, tmp_path, capsys):
    def missing(*arguments, **options):
        raise data.DataError("fashion-mnist was not found")

    monkeypatch.setattr(data, "load", missing)
    monkeypatch.setattr(items.gradients, "DEPTHS", (20,))
    assert cli.main(["paper", "all", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 1
    assert "not reproduced: fashion-mnist was not found" in capsys.readouterr().out
    assert "figure4: fashion-mnist was not found" in (tmp_path / "report.md").read_text(encoding="utf-8")
