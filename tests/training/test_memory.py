import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minires as mr
from minires import cli
from minires.inspect import PeakMemory, peak_memory
from minires.training import Config, ConfigError, memory, train, update
from minires.training.batches import evaluation_loader, images
from minires.training.network import make_model

MIB = 2**20
BACKENDS = pytest.mark.parametrize(
    "backend", [name for name in ("reference", "native") if not mr.backends.available()[name]]
)


def config(**settings):
    return Config.make(**{"width": 8, "batch_size": 128, "iterations": 2, "workers": 0, **settings})


@pytest.fixture
def only(monkeypatch):
    """Makes so many bytes all that is free."""
    return lambda size: monkeypatch.setattr(memory, "available", lambda processes=1: size // processes)


@BACKENDS
def test_a_run_that_does_not_fit_is_refused_with_a_micro_batch_that_does(tmp_path, only, backend):
    only(5 * MIB)
    with pytest.raises(ConfigError, match=r"needs about 1?\d MiB .* 128 images.* 5 MiB are free") as caught:
        train(config(backend=backend), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # refused before anything is made
    fits = int(str(caught.value).partition("--micro-batch ")[2].split()[0])
    assert 8 < fits < 128
    assert train(config(backend=backend, micro_batch=fits), tmp_path / "run").rows[-1].iteration == 2
    with pytest.raises(ConfigError, match=r"--micro-batch \d+ fits"):
        train(config(backend=backend, micro_batch=min(128, 2 * fits)), tmp_path / "more")


def test_mebibytes(tmp_path, only):
    only(100 * MIB)
    with pytest.raises(ConfigError, match=r"100 MiB are free"):
        train(config(backend="reference", width=16, batch_size=1433), tmp_path / "run")


def test_each_of_several_processes_has_its_share_of_the_machine(only):
    only(4 * MIB)
    run = config(backend="reference", batch_size=129)
    with mr.backend("reference"):
        model, layers = make_model(run, 10, (1, 8, 8))
        with pytest.raises(ConfigError, match=r"65 images at a time, and 2 MiB are free for each of 2 processes"):
            memory.check_memory(run, model, layers, 129, SimpleNamespace(size=2, local_size=2))


def test_where_not_one_image_fits(tmp_path, only):
    only(MIB // 2)
    with pytest.raises(ConfigError, match="not even one image fits"):
        train(config(backend="reference"), tmp_path / "run")


def test_the_command_line_says_it_in_one_line(tmp_path, only, capsys):
    only(10 * MIB)
    words = ["train", "--iterations", "2", "--backend", "reference", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert "--micro-batch" in err
    assert "Traceback" not in err


def test_no_time_is_spent_on_measuring_what_is_far_from_the_limit(tmp_path, monkeypatch):
    def measured(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(memory, "PeakMemory", measured)
    train(config(), tmp_path / "run")


@BACKENDS
@pytest.mark.parametrize(("network", "shape", "images"), [("resnet20", (1, 8, 8), 40), ("vgg16", (3, 32, 32), 20)])
def test_the_bound_that_saves_the_measuring_is_one(backend, network, shape, images):
    with mr.backend(backend):
        model = mr.models.create(
            network, in_channels=shape[0], **({"hidden": 64, "width": 8} if network == "vgg16" else {})
        )
        layers = mr.summary(model, shape)
        peak = memory.GAPS[backend] * peak_memory(model, shape, images)
    assert peak < 2 * 4 * (images * layers.activation_bytes // 4 + 4 * layers.params)


def test_the_largest_batch_is_the_largest():
    model = mr.models.create("resnet20", width=4)
    peak = PeakMemory(model, (3, 12, 10))
    for count in (1, 2, 17, 300):
        assert peak.largest_batch(peak(count)) == count
        assert peak.largest_batch(peak(count) - 1) == count - 1


def test_out_of_memory_in_the_middle_says_where_to_go_on(tmp_path, monkeypatch, capsys):
    """What no prediction foresees: another process takes the memory."""
    calls = []

    def cross_entropy(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError("Unable to allocate 5 TiB")
        return mr.functional.cross_entropy(*args, **kwargs)

    monkeypatch.setattr(update, "F", type("F", (), {"cross_entropy": staticmethod(cross_entropy)}))
    words = ["train", "--iterations", "6", "--checkpoint-every", "2", "--batch-size", "32", "--workers", "0"]
    words += ["--no-capture"]
    assert cli.main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "iteration 3: no memory is left (Unable to allocate 5 TiB)" in err
    assert "fewer than 32 images at a time" in err
    assert "iteration-00000002.json" in err


def test_control_groups_of_both_versions(tmp_path):
    own = tmp_path / "cgroup"

    def group(folder, limit, usage, cache, names, name="inactive_file"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{name} {cache}\n")

    second = ("memory.max", "memory.current")
    group(tmp_path / "v2", "max", 10, 0, second)
    group(tmp_path / "v2" / "slice", 1000, 300, 100, second)
    group(tmp_path / "v2" / "slice" / "job", "max", 200, 0, second)
    own.write_text("0::/slice/job\n")
    assert list(memory._control_groups(tmp_path / "v2", own)) == [800]
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "v1" / "memory", 500, 100, 50, first, "total_inactive_file")
    own.write_text("8:pids:/x\n4:memory:/known/to/the/host\n0::/\n")
    assert list(memory._control_groups(tmp_path / "v1", own)) == [450]
    assert list(memory._control_groups(tmp_path / "none", own)) == []
    assert list(memory._control_groups(tmp_path, tmp_path / "nothing")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_the_process_own_limit_counts(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**40, 2**40))
    left = min(memory._limits())
    assert 0 < left < 2**40
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    assert abs(2**40 - taken - left) < 64 * MIB
    assert 0 < memory.available() <= left


def test_evaluation_takes_no_more_images_at_a_time_than_training():
    dataset = images(config(), "test")
    mean = np.zeros((8, 8, 1), np.float32)
    assert evaluation_loader(config(micro_batch=30), dataset, mean).batch_size == 30


def test_processes_share_the_machine_but_not_their_own_limits(monkeypatch):
    monkeypatch.setattr(memory, "_control_groups", lambda: iter([800]))
    monkeypatch.setattr(memory, "_limits", lambda: iter([300]))
    assert (memory.available(), memory.available(4)) == (300, 200)
    monkeypatch.setattr(memory, "_control_groups", lambda: iter(()))
    monkeypatch.setattr(memory, "_limits", lambda: iter(()))
    assert memory.available() > MIB  # where nothing limits it there is the machine


def test_no_more_images_count_than_there_are(tmp_path, only):
    """Digits has 1,433 training images: a batch size beyond them predicts the same peak."""
    only(20 * MIB)
    needed = []
    for size in (1433, 10**8):
        with pytest.raises(ConfigError, match="1433 images at a time") as caught:
            train(config(backend="reference", batch_size=size), tmp_path / "run")
        needed.append(int(str(caught.value).partition("needs about ")[2].split()[0]))
    assert needed[0] == pytest.approx(needed[1], rel=0.1)  # the peak of few images is measured
    assert train(config(backend="reference", width=1, batch_size=10**8, micro_batch=100), tmp_path / "run")


def test_batches_that_alone_exceed_the_memory(tmp_path, only):
    only(MIB)  # four prepared batches of 1,433 images take 1.4 MiB
    with pytest.raises(ConfigError, match="batches of 1433 images take 1 MiB; a smaller --batch-size fits"):
        train(config(backend="reference", width=1, batch_size=10**8, micro_batch=1000), tmp_path / "run")
