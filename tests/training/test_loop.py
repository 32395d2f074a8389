"""Training runs: what they write, that they repeat bit for bit, and that they go on where they stopped."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

import minires as mr
from minires import nn
from minires.data import DataError, Loader, Transform, pixel_mean
from minires.training import (
    CheckpointError,
    Config,
    ConfigError,
    Diverged,
    Interrupted,
    RunFolder,
    evaluate,
    evaluate_run,
    history,
    load_checkpoint,
    loop,
    restore,
    train,
)
from minires.training import checkpoint as checkpoints
from minires.training.batches import images, training_loader
from minires.training.interrupt import StopRequest
from minires.training.network import make_model
from minires.training.progress import Silent
from training.rows import timeless

# 12 batches an epoch; a narrow network makes one of them a matter of milliseconds.
SMALL = {"width": 2, "workers": 0, "batch_size": 128, "lr": 0.05}


def small(**settings):
    return Config.make(**{"iterations": 20, "eval_every": 8, "log_every": 3, **SMALL, **settings})


def same_state(one, other):
    """Two runs ended alike, bit for bit."""
    same_checkpoint(load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint))


def same_checkpoint(one, other):
    assert (one.iteration, one.random_state, one.schedule) == (other.iteration, other.random_state, other.schedule)
    for first, second in ((one.model, other.model), (one.velocity, other.velocity)):
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert timeless(one.rows) == timeless(other.rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run that kept a checkpoint of every fifth iteration: 5 and 10 lie amid an epoch of 12."""
    out = tmp_path_factory.mktemp("whole")
    return train(small(checkpoint_every=5, keep=100), out)


def test_run_folder(whole):
    folder = whole.folder
    assert {file.name for file in folder.path.iterdir()} == {"config.json", "history.csv", "curves.png", "checkpoints"}
    assert Config.from_json(json.loads(folder.config.read_text())) == whole.config
    assert history.read(folder.history) == list(whole.rows)
    with Image.open(folder.curves) as image:
        assert image.format == "PNG"
    assert [f.name for f in sorted(folder.checkpoints.glob("*.json"))] == [
        f"iteration-{i:08d}.json" for i in (5, 10, 15, 20)
    ]


def test_rows(whole):
    assert [row.iteration for row in whole.rows] == [3, 6, 8, 9, 12, 15, 16, 18, 20]
    assert [row.iteration for row in whole.rows if row.test_error is not None] == [8, 16, 20]
    assert [row.epoch for row in whole.rows] == [row.iteration / 12 for row in whole.rows]
    images = (1433 - 11 * 128) + 2 * 128  # since iteration 9: the twelfth batch is what is left of the epoch
    assert round(whole.rows[4].training_error * images / 100, 9).is_integer()
    lrs = {row.iteration: row.lr for row in whole.rows}
    assert lrs[9] == pytest.approx(0.05)  # of the tenth update: milestones are at 10 and 15
    assert lrs[12] == pytest.approx(0.005)
    assert lrs[15] == pytest.approx(0.005)
    assert lrs[20] == pytest.approx(0.0005)
    for row in whole.rows:
        assert row.images_per_second > 0
        assert 0 <= row.training_error <= 100
        assert row.training_loss > 0
    assert [row.seconds for row in whole.rows] == sorted(row.seconds for row in whole.rows)
    assert whole.test_error == whole.rows[-1].test_error


def test_it_learns(tmp_path):
    result = train(small(iterations=48, width=4, lr=0.1, eval_every=100), tmp_path / "run")
    assert result.rows[0].training_error > 60
    assert result.rows[-1].training_error < 50
    assert result.test_error < 50  # chance is 90


def test_the_recorded_error_is_that_of_the_saved_network(whole):
    trained, evaluation = evaluate_run(whole.folder.path)
    assert evaluation.error == whole.test_error
    assert evaluation.images == 364
    assert evaluation.confusion.sum() == 364
    assert trained.checkpoint.iteration == 20


def test_same_seed_same_bits_and_another_seed_others(whole, tmp_path):
    again = train(small(checkpoint_every=5, keep=100), tmp_path / "again")
    same_state(whole, again)
    other = train(small(seed=1), tmp_path / "other")
    first, second = (load_checkpoint(r.checkpoint).model["conv1.weight"] for r in (whole, other))
    assert (first != second).any()


def test_workers_and_checkpoints_change_nothing(whole, tmp_path):
    same_state(whole, train(small(workers=2, checkpoint_every=7), tmp_path / "run"))


@pytest.mark.parametrize("iteration", [5, 10, 15, 20])
def test_going_on_ends_in_the_same_bits(whole, tmp_path, iteration):
    checkpoint = whole.folder.checkpoints / f"iteration-{iteration:08d}.json"
    resumed = train(load_checkpoint(checkpoint).config, tmp_path / "on", resume=checkpoint)
    same_state(whole, resumed)
    assert timeless(history.read(resumed.folder.history)) == timeless(whole.rows)
    with Image.open(resumed.folder.curves) as image:
        assert image.format == "PNG"


def test_seconds_go_on_too(whole, tmp_path):
    found = load_checkpoint(whole.folder.checkpoints / "iteration-00000015.json")
    assert found.seconds > 0
    checkpoints.save(replace(found, seconds=1e6), tmp_path / "checkpoints")
    resumed = train(found.config, tmp_path / "on", resume=tmp_path)
    assert all(row.seconds > 1e6 for row in resumed.rows if row.iteration > 15)


def test_throughput_is_that_since_the_previous_row(tmp_path, monkeypatch):
    """By a clock that goes a second further each time it is read: twice in an update."""
    clock = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    rows = train(small(iterations=14, eval_every=100, log_every=2), tmp_path / "run").rows
    assert [row.images_per_second for row in rows] == [128] * 5 + [(128 + 1433 - 11 * 128) / 2, 128]


def test_seed_and_augment_decide_the_batches():
    config = small(seed=3)
    dataset = images(config, "train")
    mean = pixel_mean(dataset)

    def first(config):
        return next(training_loader(config, dataset, mean).iterate())[0]

    plain = next(Loader(dataset, 128, transform=Transform(mean), seed=3, workers=0).iterate())[0]
    np.testing.assert_array_equal(first(replace(config, augment=False)), plain)
    assert not np.array_equal(first(config), plain)
    others = first(replace(config, augment=False, seed=4))
    assert {image.tobytes() for image in others} != {image.tobytes() for image in plain}


class StopAt(Silent):
    """Sends this process a signal as Ctrl-C would."""

    def __init__(self, iteration=None, images=None, number=signal.SIGINT):
        self.at, self.images, self.number = iteration, images, number

    def iteration(self, done, *rest):
        if done == self.at:
            os.kill(os.getpid(), self.number)

    def evaluating(self, done, total):
        if self.images is not None and done >= self.images:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    "stop",
    [StopAt(7), StopAt(1), StopAt(8), StopAt(20), StopAt(7, number=signal.SIGTERM), StopAt(images=200)],
    ids=["amid an interval", "first", "at an evaluation", "last", "SIGTERM", "amid an evaluation"],
)
def test_ctrl_c_saves_and_the_run_goes_on_in_its_folder(whole, tmp_path, stop):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(small(checkpoint_every=100), tmp_path / "run", report=stop)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert caught.value.checkpoint is not None
    checkpoint = load_checkpoint(caught.value.checkpoint)
    assert checkpoint.iteration == caught.value.iteration == (stop.at or 8)
    resumed = train(checkpoint.config, resume=tmp_path / "run")
    assert resumed.folder.path == tmp_path / "run"
    same_state(whole, resumed)
    assert timeless(history.read(resumed.folder.history)) == timeless(whole.rows)


def test_a_second_ctrl_c_takes_effect_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class WithDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.hidden, self.dropout = nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.dropout(mr.functional.relu(self.hidden(self.flatten(x)))))


def test_dropout_draws_the_same_masks_after_resuming(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.models, "create", lambda *args, **options: WithDropout())
    shapes = {name: array.shape for name, array in WithDropout().state_dict().items()}
    monkeypatch.setattr(mr.models, "shapes", lambda *args, **options: shapes)
    one = train(small(), tmp_path / "one")
    with pytest.raises(Interrupted):
        train(small(), tmp_path / "two", report=StopAt(7))
    mr.manual_seed(99)  # whatever happened in between
    same_state(one, train(small(), resume=tmp_path / "two"))


def test_warmup_until_error_and_its_resumption(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.optim.Warmup, "window", 4)
    config = small(warmup="error", warmup_lr=0.05, lr=0.1, width=4, iterations=24, milestones=(0.9,), log_every=1)
    one = train(config, tmp_path / "one")
    lrs = [row.lr for row in one.rows]
    assert lrs[0] == 0.05
    assert 0.1 in lrs  # it did end
    change = lrs.index(0.1)
    for stop in (change - 2, change + 1):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(Interrupted):
            train(config, out, report=StopAt(stop))
        same_state(one, train(config, resume=out))


def test_other_settings_run_too(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.backends.threads, "_threads", None)
    config = small(
        shortcut="B", dtype="float64", nesterov=True, schedule="constant", label_smoothing=0.1, augment=False,
        weight_decay=0.0, warmup=3, warmup_lr=0.001, threads=1, iterations=6,
    )  # fmt: skip
    with threadpool_limits():  # puts BLAS's threads back
        result = train(config, tmp_path / "run")
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.model["conv1.weight"].dtype == np.float64
    assert "layer2.0.downsample.0.weight" in checkpoint.model
    assert [row.lr for row in result.rows] == [0.001, 0.05]


def test_epochs(tmp_path):
    result = train(Config.make(epochs=1.5, **SMALL), tmp_path / "run")
    assert [row.iteration for row in result.rows] == [12, 18]


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_diverging_run_stops_with_one_line_and_keeps_the_last_good_checkpoint(tmp_path, lr):
    with pytest.raises(Diverged, match=r"not finite|loss is") as caught:
        train(small(lr=lr, checkpoint_every=1, iterations=200, weight_decay=0.5, warmup=3), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "learning rate" in str(caught.value)
    kept = restore(tmp_path / "run")
    assert str(kept.path) in str(caught.value)
    assert kept.checkpoint.iteration >= 3
    for array in kept.model.state_dict().values():
        assert np.isfinite(array).all()


def test_a_diverging_run_names_the_rate_that_moved_the_weights_last(tmp_path):
    with pytest.raises(Diverged, match=r"iteration 1, learning rate 1e\+30"):
        train(small(lr=1e30, milestones=(1,), lr_factor=1e-30), tmp_path / "run")


def test_a_full_disk_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    real = loop.checkpoints.write_bytes

    def full(path, content):
        if "00000010" in path.name:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(loop.checkpoints, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        train(small(checkpoint_every=5), tmp_path / "run")
    assert restore(tmp_path / "run").checkpoint.iteration == 5


def test_a_run_is_never_overwritten(whole, tmp_path):
    with pytest.raises(ConfigError, match="--resume"):
        train(small(), whole.folder.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="out must be a folder"):
        train(small(), tmp_path / "file")


def test_runs_are_numbered(tmp_path):
    config = small(network="plain20")
    names = []
    for _ in range(3):
        with RunFolder.claim(None, config, tmp_path / "runs") as folder:
            names.append(folder.path.name)
            folder.write_config(config)
    assert names == ["plain20-digits-1", "plain20-digits-2", "plain20-digits-3"]
    (tmp_path / "blocked").write_text("")
    with pytest.raises(ConfigError, match="blocked"), RunFolder.claim(None, config, tmp_path / "blocked"):
        pass


def test_no_run_folder_is_left_when_the_data_are_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    with pytest.raises(DataError):
        train(small(data="folder", data_dir=str(tmp_path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_the_network_cannot_take():
    with pytest.raises(ConfigError, match="vgg16 cannot be trained on digits"):
        train(Config.make(network="vgg16", width=1), "never-made")


def test_batch_norm_is_given_more_than_one_value():
    """ResNet-18 makes one pixel of 8×8: a batch of three in parts of at most two has a part of one image."""
    for name, least in (("batch_size", 2), ("micro_batch", 3)):
        make_model(small(network="resnet18", **{name: least}), 10, (1, 8, 8))
        with pytest.raises(ConfigError, match=f"{name} must be at least {least}"):
            make_model(small(network="resnet18", **{name: least - 1}), 10, (1, 8, 8))


def test_a_checkpoint_of_another_network_is_refused(whole, tmp_path):
    checkpoint = load_checkpoint(whole.checkpoint)
    foreign = replace(checkpoint, config=replace(checkpoint.config, width=4))
    path = loop.checkpoints.save(foreign, tmp_path)
    with pytest.raises(CheckpointError, match="does not fit"):
        train(foreign.config, tmp_path / "run", resume=path)
    with pytest.raises(CheckpointError, match="does not fit"):
        restore(path)


def test_other_training_images_are_noticed(whole, tmp_path):
    checkpoint = load_checkpoint(whole.checkpoint)
    path = loop.checkpoints.save(replace(checkpoint, mean=checkpoint.mean + 0.01), tmp_path)
    with pytest.raises(ConfigError, match="training images"):
        train(checkpoint.config, tmp_path / "run", resume=path)


def test_outside_of_the_main_thread(tmp_path):
    """Signals belong to the main thread; training elsewhere works without them."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(train(small(iterations=3), tmp_path / "run")))
    thread.start()
    thread.join(60)
    assert ended[0].rows[-1].iteration == 3


class Fixed(nn.Module):
    """Returns given logits."""

    def __init__(self, logits):
        super().__init__()
        self.weight = mr.tensor(np.zeros(1), requires_grad=True)
        self.logits = list(logits)

    def forward(self, x):
        assert not self.training
        rows, self.logits = self.logits[: len(x.data)], self.logits[len(x.data) :]
        return mr.tensor(np.array(rows))


def test_evaluate_counts_by_hand(rng):
    logits = rng.standard_normal((50, 7))
    labels = rng.integers(0, 7, 50)
    x = np.zeros((50, 1, 2, 2), np.float32)
    model = Fixed(logits)
    done = []
    found = evaluate(model, [(x[:30], labels[:30]), (x[30:], labels[30:])], done.append)
    assert model.training
    assert done == [30, 50]
    ranks = [sum(row > row[label]) for row, label in zip(logits, labels, strict=True)]
    assert found.images == 50
    assert found.error == pytest.approx(100 * np.mean([rank >= 1 for rank in ranks]))
    assert found.top5_error == pytest.approx(100 * np.mean([rank >= 5 for rank in ranks]))
    expected = np.zeros((7, 7), int)
    for row, label in zip(logits, labels, strict=True):
        expected[label, row.argmax()] += 1
    np.testing.assert_array_equal(found.confusion, expected)


def test_evaluate_of_few_classes_of_nothing_and_of_nan(rng):
    x, labels = np.zeros((4, 1, 2, 2), np.float32), np.zeros(4, int)
    assert evaluate(Fixed(rng.standard_normal((4, 5))), [(x, labels)]).top5_error is None
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(Fixed([]), [])
    model = Fixed(np.full((4, 5), np.nan))
    with pytest.raises(Diverged):
        evaluate(model, [(x, labels)])
    assert model.training


def wait_until(condition, process):
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ctrl_c_in_another_process_and_resuming_there(tmp_path):
    """The whole way, as a person goes it: start, Ctrl-C, resume; against the uninterrupted run."""
    common = ["train", "--width", "2", "--iterations", "100", "--lr", "0.05", "--log-every", "10", "--workers", "2"]
    common += ["--threads", "1"]

    def command(*words):
        return [sys.executable, "-m", "minires", *words]

    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    process = subprocess.Popen(command(*common, "--out", str(tmp_path / "run")), **out)
    try:
        wait_until((tmp_path / "run" / "history.csv").exists, process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert f"minires train --resume {tmp_path / 'run'}" in stderr
    assert "Traceback" not in stderr
    stopped = restore(tmp_path / "run").checkpoint.iteration
    assert 10 <= stopped < 100

    words = command("train", "--resume", str(tmp_path / "run"))
    resumed = subprocess.run(words, **out, timeout=60, check=True)
    assert "test accuracy" in resumed.stdout.splitlines()[-1]
    subprocess.run(command(*common, "--out", str(tmp_path / "whole")), **out, timeout=60, check=True)
    one, other = restore(tmp_path / "run").checkpoint, restore(tmp_path / "whole").checkpoint
    assert one.iteration == 100
    same_checkpoint(one, other)


def test_evaluation_leaves_every_module_in_its_own_mode(rng):
    model = mr.models.create("resnet20", width=2)
    model.bn1.eval()  # frozen by its owner
    evaluate(model, [(rng.standard_normal((2, 3, 8, 8), np.float32), np.array([1, 2]))])
    assert model.training
    assert model.layer1.training
    assert not model.bn1.training


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_output(rng, label):
    model = mr.models.create("resnet20", width=2)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\)"):
        evaluate(model, [(rng.standard_normal((2, 3, 8, 8), np.float32), np.array([1, label]))])


def test_labels_may_change_before_backward(rng):
    logits = mr.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    labels = np.array([0, 1, 2, 0])
    loss = mr.functional.cross_entropy(logits, labels)
    labels[...] = 1
    loss.backward()
    assert (logits.grad.argmin(axis=1) == [0, 1, 2, 0]).all()  # pulled up: the labels of the forward pass


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"iteration": 99}, CheckpointError, "the checkpoint is of iteration 99, the run ends at 20"),
        ({"classes": tuple("abcdefghij")}, ConfigError, "differ from the images at the start"),
    ],
)
def test_a_checkpoint_that_contradicts_itself(whole, tmp_path, change, error, message):
    found = load_checkpoint(whole.checkpoint)
    last = replace(found.rows[-1], iteration=change.get("iteration", found.iteration))
    checkpoints.save(replace(found, rows=(*found.rows[:-1], last), **change), tmp_path / "checkpoints")
    with pytest.raises(error, match=message):
        train(found.config, tmp_path / "new", resume=tmp_path)


def test_under_nohup_sigterm_saves_and_sigint_stays_ignored(tmp_path):
    """A script's `nohup minires train &` starts with SIGINT and SIGHUP ignored."""
    words = ["train", "--width", "1", "--iterations", "100000", "--log-every", "1", "--workers", "0", "--quiet"]
    ignored = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGHUP, "
    ignored += "signal.SIG_IGN); from minires.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", ignored, *words, "--out", str(tmp_path / "run")]
    file = tmp_path / "run" / "history.csv"

    def rows():
        return len(file.read_text().splitlines()) if file.exists() else 0

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: rows() >= 2, process)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGHUP)
            before = rows()
            wait_until(lambda: rows() >= before + 2, process)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, message = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"minires train --resume {tmp_path / 'run'}" in message
    assert load_checkpoint(next((tmp_path / "run" / "checkpoints").glob("*.json"))).iteration >= 3
