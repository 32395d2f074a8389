"""K ranks train as one process does; here the ranks are threads, and `test_mpirun` has processes."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from parallel.threads import on_ranks
from threadpoolctl import threadpool_limits

import minires as mr
from minires import nn
from minires.data import Dataset, Loader, Transform
from minires.data.augment import Augmentation
from minires.models.blocks import Bottleneck
from minires.models.resnet import ResNet
from minires.parallel import Alone, RanksDisagree, Shard, agreed, by_first, expect_same, together
from minires.parallel.communicator import Done
from minires.training import Config, ConfigError, Diverged, Interrupted, evaluation, load_checkpoint, train
from minires.training import loop as training_loop
from minires.training.microbatch import micro_batches, places
from minires.training.progress import Silent

SMALL = {"width": 4, "workers": 0, "threads": 1, "lr": 0.05, "iterations": 20, "log_every": 5, "eval_every": 20}


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setattr(mr.backends.threads, "_threads", None)
    with threadpool_limits():  # puts BLAS's threads back
        yield


def small(**settings):
    return Config.make(**{**SMALL, "sync_batch_norm": True, **settings})


def run(size, config, out, **options):
    if size == 1:
        return train(config, out, ranks=Alone(), **options)
    results = on_ranks(size, lambda ranks: train(config, out, ranks=ranks, **options))
    assert len({result.checkpoint for result in results}) == 1
    return results[0]


def distance(one, other):
    """The largest relative distance of any array of the model or of the velocities."""
    one, other = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    assert one.iteration == other.iteration
    assert one.random_state == other.random_state
    pairs = [(a, other.model[name]) for name, a in one.model.items()]
    pairs += [(a, other.velocity[name]) for name, a in one.velocity.items()]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def moved(one, other):
    """The relative distance of all weights together."""
    names = [name for name in one.model if "running" not in name]
    first, second = (np.concatenate([state.model[name].ravel() for name in names]) for state in (one, other))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def expect_same_end(first, second, tolerance):
    """All weights together within the tolerance; every array, velocities that are nearly 0 included, within 100×."""
    assert moved(load_checkpoint(first.checkpoint), load_checkpoint(second.checkpoint)) < tolerance
    assert distance(first, second) < 100 * tolerance
    same_rows(first, second, tolerance)


def pair(tmp_path, size, config):
    """The ends of a run by `size` ranks and by one process."""
    return run(size, config, tmp_path / "several"), run(1, config, tmp_path / "one")


def failures(size, error, work):
    """work(ranks) on every rank: the messages, and `agreed`, of the errors that it raises on all ranks."""

    def caught(ranks):
        with pytest.raises(error) as failure:
            work(ranks)
        return str(failure.value), agreed(failure.value)

    return on_ranks(size, caught)


@pytest.fixture
def odd():
    """`odd(rank, work)` marks the thread of a rank and calls work; `odd.here()` is true in that thread."""

    class Odd:
        thread = None

        def here(self):
            return threading.get_ident() == self.thread

        def __call__(self, rank, work):
            def marked(ranks):
                if ranks.rank == rank:
                    self.thread = threading.get_ident()
                ranks.allgather(None)  # every rank waits for the mark
                return work(ranks)

            return marked

    return Odd()


def same_rows(one, other, rtol):
    assert len(one.rows) == len(other.rows)
    for first, second in zip(one.rows, other.rows, strict=True):
        assert (first.iteration, first.lr, first.test_error) == (second.iteration, second.lr, second.test_error)
        assert first.training_error == second.training_error
        assert first.training_loss == pytest.approx(second.training_loss, rel=rtol)


# Batches of 101 do not divide by 2 or 3, and the last of an epoch has 19 images.
@pytest.mark.parametrize(("network", "size"), [("resnet20", 2), ("plain20", 3)])
def test_twenty_steps_in_float64(tmp_path, network, size):
    config = small(network=network, dtype="float64", batch_size=101, label_smoothing=0.1, warmup=5)
    expect_same_end(*pair(tmp_path, size, config), 1e-12)


class Smooth(nn.Module):
    """Without ReLU: its kinks amplify rounding, so that 20 steps of one process on two backends differ by 1e-3 in
    float32."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.pool, self.flatten, self.fc = nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8, 10)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return self.fc(self.flatten(self.pool(x)))


@pytest.mark.parametrize("size", [2, 3])
def test_twenty_steps_in_float32(tmp_path, monkeypatch, size):
    monkeypatch.setattr(mr.models, "create", lambda *args, **options: Smooth())
    config = small(batch_size=101, width=None)
    several, one = pair(tmp_path, size, config)
    assert moved(load_checkpoint(several.checkpoint), load_checkpoint(one.checkpoint)) < 1e-5
    same_rows(several, one, 1e-5)


def test_steps_from_the_same_weights_in_float32(tmp_path):
    """Of twenty steps the first, one between and the last, each from the weights of one process."""
    config = small(batch_size=32, schedule="constant", lr=0.01, checkpoint_every=1, keep=30)
    one = run(1, config, tmp_path / "one")
    for step in (1, 8, 20):
        end = one.folder.checkpoints / f"iteration-{step:08d}.json"
        start = one.folder.checkpoints / f"iteration-{step - 1:08d}.json" if step > 1 else None
        several = run(3, replace(config, iterations=step), tmp_path / str(step), resume=start)
        assert moved(load_checkpoint(several.checkpoint), load_checkpoint(end)) < 1e-5


def test_bottlenecks(tmp_path, monkeypatch):
    def create(name, num_classes, in_channels, **options):
        return ResNet(Bottleneck, (1, 1, 1), stem="cifar", width=4, num_classes=num_classes, in_channels=in_channels)

    monkeypatch.setattr(mr.models, "create", create)
    config = small(dtype="float64", batch_size=101)
    expect_same_end(*pair(tmp_path, 3, config), 1e-12)


def test_micro_batches_are_the_same_ones(tmp_path):
    """Of every part of a batch each rank has its share: batch norm sees the parts of one process."""
    config = small(dtype="float64", batch_size=101, micro_batch=30, iterations=8, eval_every=8)
    several, one = pair(tmp_path, 3, config)
    expect_same_end(several, one, 1e-12)
    whole = run(1, replace(config, micro_batch=None), tmp_path / "whole")
    assert distance(whole, one) > 1e-3  # it is not for nothing


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.hidden, self.dropout = nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5)
        self.again, self.fc = nn.Dropout(0.3), nn.Linear(32, 10)

    def forward(self, x):
        x = self.dropout(mr.functional.relu(self.hidden(self.flatten(x))))
        return self.fc(self.again(x))


def test_dropout_draws_what_one_process_would_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.models, "create", lambda *args, **options: Dropping())
    config = small(dtype="float64", batch_size=101, micro_batch=60, iterations=8, width=None, eval_every=8)
    expect_same_end(*pair(tmp_path, 3, config), 1e-12)


def test_a_warmup_ends_by_the_error_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.optim.Warmup, "window", 4)
    config = small(
        dtype="float64", batch_size=101, warmup="error", warmup_lr=0.05, lr=0.1, iterations=24, milestones=(0.9,),
        log_every=1, eval_every=24,
    )  # fmt: skip
    several, one = pair(tmp_path, 2, config)
    assert {row.lr for row in one.rows} > {0.05, 0.1}  # it did end
    same_rows(several, one, 1e-10)


def test_resuming_with_other_numbers_of_ranks(tmp_path):
    config = small(dtype="float64", batch_size=101, checkpoint_every=3, keep=10, iterations=10, eval_every=10)
    whole = run(1, config, tmp_path / "whole")
    parted = None
    for size, until in ((2, 3), (1, 6), (3, 10)):
        start = None if parted is None else parted.checkpoint
        parted = run(size, config, tmp_path / str(size), resume=start)
        found = parted.folder.checkpoints / f"iteration-{until:08d}.json"
        parted = replace(parted, checkpoint=found)
    expect_same_end(parted, whole, 1e-12)


@pytest.mark.parametrize("synchronised", [False, True])
def test_another_number_of_ranks_is_noted_where_it_changes_the_weights(tmp_path, synchronised):
    config = small(sync_batch_norm=synchronised, batch_size=100, checkpoint_every=2, keep=10, iterations=4)
    start = run(2, config, tmp_path / "two").folder.checkpoints / "iteration-00000002.json"
    assert load_checkpoint(start).ranks == 2
    for size in (1, 2, 3):
        report, notes = Silent(), []
        report.note = notes.append
        run(size, config, tmp_path / f"on-{size}", resume=start, report=report)
        expected = f"ranks {size} instead of 2: without sync_batch_norm a rank normalises another part of each batch"
        assert [note.startswith(expected) for note in notes] == [True] * (size != 2 and not synchronised)


def test_without_synchronising_each_rank_has_its_own_statistics_and_rank_0s_are_kept(tmp_path):
    config = small(
        sync_batch_norm=False, dtype="float64", batch_size=100, checkpoint_every=3, iterations=8, eval_every=4
    )
    two, one = pair(tmp_path, 2, config)
    assert distance(two, one) > 1e-4
    again = run(2, replace(config, checkpoint_every=8), tmp_path / "again")
    assert distance(again, two) == 0  # how often they are taken changes nothing


def test_without_batch_norm_there_is_nothing_to_synchronise(tmp_path, monkeypatch):
    monkeypatch.setattr(mr.models, "create", lambda *args, **options: Dropping())
    config = small(sync_batch_norm=False, dtype="float64", batch_size=101, iterations=5, width=None, eval_every=5)
    assert distance(*pair(tmp_path, 2, config)) < 1e-12


def test_only_rank_0_writes_and_reports(tmp_path, monkeypatch):
    reports, rows = [Silent(), Silent()], [[], []]
    for report, own in zip(reports, rows, strict=True):
        report.row = own.append
    written = []
    real = training_loop.checkpoints.save
    monkeypatch.setattr(training_loop.checkpoints, "save", lambda *given: written.append(1) or real(*given))
    config = small(iterations=10, eval_every=10, checkpoint_every=5)
    on_ranks(2, lambda ranks: train(config, tmp_path / "run", ranks=ranks, report=reports[ranks.rank]))
    assert len(written) == 2
    assert [len(own) for own in rows] == [2, 0]


@pytest.mark.parametrize("who", [0, 1])
def test_one_rank_is_asked_to_stop_and_all_do(tmp_path, monkeypatch, who):
    stopped = []

    class Asked(training_loop.StopRequest):
        """A signal arrives at one rank only."""

        def __enter__(self):
            self.looks = 0
            return super().__enter__()

        @property
        def requested(self):
            self.looks += 1
            return self.looks > 7 and self.rank == who

    def work(ranks):
        Request = type("Request", (Asked,), {"rank": ranks.rank})
        requests[threading.get_ident()] = Request
        try:
            train(config, tmp_path / "run", ranks=ranks)
        except Interrupted as stop:
            stopped.append((stop.iteration, stop.checkpoint))

    requests, config = {}, small(dtype="float64", batch_size=101, iterations=10, eval_every=10)
    monkeypatch.setattr(training_loop, "StopRequest", lambda *more: requests[threading.get_ident()]())
    on_ranks(2, work)
    assert len(stopped) == 2
    assert stopped[0] == stopped[1]
    assert stopped[0][0] == 7
    monkeypatch.undo()
    if who == 1:
        expect_same_end(run(3, config, None, resume=tmp_path / "run"), run(1, config, tmp_path / "whole"), 1e-12)


def test_sigusr1_asks_several_ranks_to_stop_and_not_one(tmp_path):
    """`test_mpirun` tests several ranks: signals come to the main thread."""
    found = []
    before = signal.getsignal(signal.SIGUSR1)
    report = Silent()
    report.iteration = lambda *_: found.append(signal.getsignal(signal.SIGUSR1))
    train(small(iterations=1, eval_every=1), tmp_path / "run", report=report)
    assert found == [before]
    with training_loop.StopRequest(signal.SIGUSR1) as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.requested
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_run_that_diverges_on_one_rank_ends_on_all_and_names_it(tmp_path):
    config = small(lr=1e30, iterations=200)
    one, other = failures(2, Diverged, lambda ranks: train(config, tmp_path / "run", ranks=ranks))
    assert one == other
    assert "the first bad layer is" in one[0]
    assert one[1] is not None


def test_outputs_that_are_bad_on_the_test_images_end_the_run_on_all_ranks(tmp_path, monkeypatch, odd):
    """One rank's share of the images is enough; the other ranks raise its error too, with its name."""
    real = evaluation.predict

    def predict(model, x):
        logits = real(model, x)
        if odd.here():
            raise Diverged("the network's outputs are not finite")
        return logits

    monkeypatch.setattr(evaluation, "predict", predict)
    config = small(iterations=2, eval_every=2)
    one, other = failures(2, Diverged, odd(1, lambda ranks: train(config, tmp_path / "run", ranks=ranks)))
    assert one == other
    assert one[0].startswith("iteration 2, learning rate")
    assert one[1] == "rank 1"


# -- invalid settings are refused before the run begins, on every rank


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (3, {"batch_size": 2}, "batch_size must be at least 3, an image a rank, got 2"),
        # 1433 images: the last batch of 179 has 1433 − 8·179 = 1, which joins; of 286, 3
        (4, {"batch_size": 286}, "batch_size must leave no batch with fewer images than the 4 ranks, got 3 images"),
        (4, {"batch_size": 100, "micro_batch": 3}, "fewer images than the 4 ranks, got 2 images .a part of a batch of"),
    ],
)
def test_too_few_images(tmp_path, size, settings, message):
    found = failures(size, ConfigError, lambda ranks: train(small(**settings), tmp_path / "run", ranks=ranks))
    assert [name for _, name in found] == [""] * size
    assert re.search(message, found[0][0])
    assert not (tmp_path / "run").exists()


def test_a_rank_with_one_value_a_channel(tmp_path, monkeypatch):
    class Pixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.flatten = nn.Conv2d(1, 10, 8), nn.BatchNorm2d(10), nn.Flatten()

        def forward(self, x):
            return self.flatten(self.bn(self.conv(x)))

    monkeypatch.setattr(mr.models, "create", lambda *args, **options: Pixel())
    config = small(width=None, batch_size=4, iterations=2, eval_every=2)  # the last batch has 1 more
    run(4, config, tmp_path / "synchronised")
    with pytest.raises(ConfigError, match="sync_batch_norm must be on for 4 ranks with a batch of 4 images"):
        run(4, replace(config, sync_batch_norm=False), tmp_path / "apart")


def test_ranks_that_begin_from_other_weights(tmp_path, monkeypatch, odd):
    real = training_loop.make_model

    def changed(*given):
        model, layers = real(*given)
        if odd.here():
            model.fc.bias.data[0] = 1e-30
        return model, layers

    monkeypatch.setattr(training_loop, "make_model", changed)
    with pytest.raises(RanksDisagree, match=r"the weights at the start of rank 1 are not those of rank 0"):
        on_ranks(3, odd(1, lambda ranks: train(small(), tmp_path / "run", ranks=ranks)))


def test_ranks_that_drift_apart_are_found_at_the_next_checkpoint(tmp_path, monkeypatch, odd):
    """Planted: one rank's step is a bit different."""
    real = mr.optim.SGD.step

    def step(self):
        real(self)
        if odd.here():
            self.params[3].data.ravel()[0] *= 1 + 1e-6

    monkeypatch.setattr(mr.optim.SGD, "step", step)
    config = small(checkpoint_every=4)
    with pytest.raises(RanksDisagree, match=r"after iteration 4 the weights of rank 2 are not those of rank 0"):
        on_ranks(3, odd(2, lambda ranks: train(config, tmp_path / "run", ranks=ranks)))
    assert not list((tmp_path / "run").glob("checkpoints/*"))


# -- agreement


def test_an_error_of_one_rank_is_raised_on_all():
    found = failures(3, ZeroDivisionError, lambda ranks: together(ranks, lambda: 1 // (ranks.rank - 1)))
    assert [name for _, name in found] == ["rank 1"] * 3
    assert on_ranks(2, lambda ranks: together(ranks, lambda: ranks.rank)) == [0, 1]
    assert agreed(ValueError()) is None


def test_an_error_that_pickle_does_not_support_keeps_its_message():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def fail():
        raise Odd(1, 2)

    found = failures(2, RuntimeError, lambda ranks: together(ranks, fail))
    assert [message for message, _ in found] == ["Odd: 1 and 2"] * 2


def test_all_ranks_get_the_result_of_rank_0():
    made = []
    assert on_ranks(3, lambda ranks: by_first(ranks, lambda: made.append(1) or 5)) == [5] * 3
    assert made == [1]


def test_the_odd_one_out_is_named():
    def work(ranks):
        array = np.zeros(3) if ranks.rank else np.full(3, -0.0)  # equal, but not the same bits
        with pytest.raises(RanksDisagree, match=r"numbers of rank 0 are not those of rank 1"):
            expect_same(ranks, "numbers", [array])

    on_ranks(3, work)
    on_ranks(2, lambda ranks: expect_same(ranks, "numbers", [np.arange(3)]))


# -- who has which images


@pytest.mark.parametrize(("total", "size"), [(7, 2), (7, 3), (3, 3), (2, 3), (128, 5)])
def test_shards_are_a_partition(total, size):
    shards = [Shard.of(total, rank, size) for rank in range(size)]
    assert [i for shard in shards for i in range(shard.start, shard.stop)] == list(range(total))
    assert max(s.size for s in shards) - min(s.size for s in shards) <= 1


def test_places_follow_the_parts():
    ranks = [type("R", (Alone,), {"rank": rank, "size": 2})() for rank in range(2)]
    assert [(part.start, part.stop) for part in micro_batches(7, 4)] == [(0, 3), (3, 7)]
    assert [places(7, 4, rank).tolist() for rank in ranks] == [[0, 3, 4], [1, 2, 5, 6]]
    assert places(7, None, Alone()).tolist() == list(range(7))


def test_every_rank_prepares_its_images_as_they_are_in_the_whole_batch(rng):
    images = rng.integers(0, 256, (23, 8, 9, 3)).astype(np.uint8)
    dataset = Dataset("d", "train", images, np.arange(23), tuple(map(str, range(23))))
    transform = Transform(None, Augmentation(pad=2, flip=True, colour=0.1, rotate=20, zoom=0.2, shift=1.5))
    whole = Loader(dataset, 10, transform=transform, seed=3, workers=0).iterate()
    shares = [
        Loader(dataset, 10, transform=transform, seed=3, workers=0, share=lambda N, r=r: np.arange(r, N, 2)).iterate()
        for r in range(2)
    ]
    for _ in range(5):
        x, labels = next(whole)
        for r, share in enumerate(shares):
            mine, own = next(share)
            np.testing.assert_array_equal(mine, x[r::2])
            np.testing.assert_array_equal(own, labels[r::2])


def test_images_of_every_batch(rng):
    dataset = Dataset("d", "train", np.zeros((21, 2, 2, 1), np.uint8), np.zeros(21, np.int64), ("a",))
    loader = Loader(dataset, 5, workers=0)
    batches = loader.iterate()
    assert [loader.images_of(i) for i in range(9)] == [len(next(batches)[1]) for i in range(9)]
    assert {loader.images_of(i) for i in range(9)} == {5, 6}


def test_alone():
    alone, array = Alone(), np.arange(3.0)
    alone.allreduce(array)
    alone.iallreduce(array).wait()
    alone.broadcast(array)
    Done().poll()
    np.testing.assert_array_equal(array, [0, 1, 2])
    assert alone.allgather(5) == [5]
    with pytest.raises(SystemExit) as stop:
        alone.abort(3)
    assert stop.value.code == 3
