"""What may go wrong around a run: one clear error, the last good checkpoint kept, nothing half left, and a way on."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from usage import error_line

from minires.cli import main
from minires.training import (
    Config,
    Interrupted,
    Row,
    RunFolderError,
    evaluate_run,
    find_checkpoint,
    history,
    load_checkpoint,
    restore,
    resume_config,
    run,
    train,
)
from minires.training import checkpoint as checkpoints
from minires.training.progress import Silent
from training.disk import Disk, Record, full_from
from training.kills import differences

TINY = {"width": 1, "iterations": 6, "log_every": 2, "eval_every": 3, "workers": 0}
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def tiny(**settings):
    return Config.make(**{**TINY, "checkpoint_every": 2, **settings})


def names(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


WORDS = ["--width", "1", "--iterations", "6", "--log-every", "2", "--eval-every", "3", "--workers", "0", "--quiet"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tiny(), tmp_path_factory.mktemp("whole") / "run")


# Before the first checkpoint


class StopAt(Silent):
    def __init__(self, at):
        self.at = at

    def iteration(self, done, *rest):
        if done == self.at:
            raise KeyboardInterrupt


def test_a_run_killed_before_its_first_checkpoint_begins_anew_with_its_own_settings(whole, tmp_path, capsys):
    out = tmp_path / "run"
    config = tiny(checkpoint_every=6, seed=0, lr=0.1)
    with pytest.raises(KeyboardInterrupt):  # as a kill: nothing is saved
        train(config, out, report=StopAt(5))
    assert names(out) == ["checkpoints", "config.json", "curves.png", "history.csv"]
    assert [row.iteration for row in history.read(out / "history.csv")] == [2, 3, 4]
    assert resume_config(out) == replace(config, backend=whole.config.backend)
    rows, report = [], Silent()
    report.start = lambda done, total: rows.append((done, (out / "history.csv").exists()))
    assert main(["train", "--resume", str(out), "--lr", "0.2"]) == 2
    assert "--lr cannot be given with --resume" in capsys.readouterr().err
    train(resume_config(out), resume=out, report=report)
    assert rows == [(0, False)]  # the history is cut back to what the run goes on from
    train(config, tmp_path / "whole")
    assert list(differences(tmp_path / "whole", out)) == []


def test_history_is_cut_back_to_the_checkpoint(tmp_path):
    config = tiny(checkpoint_every=3)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=StopAt(5))
    assert [row.iteration for row in history.read(tmp_path / "run" / "history.csv")] == [2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        train(config, resume=tmp_path / "run", report=StopAt(4))
    assert [row.iteration for row in history.read(tmp_path / "run" / "history.csv")] == [2, 3]


def test_what_stopped_before_its_first_iteration_tells_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minires.training.interrupt.StopRequest.requested", True)
    out = tmp_path / "run"
    assert main(["train", *WORDS, "--out", str(out)]) == 130
    assert capsys.readouterr().err.endswith(f"go on with: minires train --resume {out}\n")
    monkeypatch.undo()
    assert main(["train", "--resume", str(out), "--quiet"]) == 0


@pytest.mark.parametrize("text", ["{", '{"danger": 1}', "[]", "\udcff"])
def test_a_broken_configuration_is_exit_4(tmp_path, capsys, text):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert main(["train", "--resume", str(tmp_path)]) == 4
    assert f"{tmp_path / 'config.json'} is not the configuration of a run" in capsys.readouterr().err


def test_going_on_elsewhere_takes_the_checkpoint_along(whole, tmp_path):
    """So that a kill there loses nothing either."""
    start = load_checkpoint(whole.checkpoint)
    config = replace(start.config, iterations=9, checkpoint_every=9)
    source = checkpoints.save(replace(start, config=config), tmp_path / "source")
    with pytest.raises(KeyboardInterrupt):
        train(resume_config(source), tmp_path / "run", resume=source, report=StopAt(7))
    assert load_checkpoint(find_checkpoint(tmp_path / "run")).iteration == 6


# The best one


def test_the_best_checkpoint_stays_and_has_a_name(tmp_path, monkeypatch, capsys):
    errors = iter([50.0, 40.0, 30.0, 30.0, 45.0, 60.0, *[70.0] * 100])
    monkeypatch.setattr("minires.training.loop._Run._test_error", lambda self: next(errors))
    out = tmp_path / "run"
    config = tiny(iterations=7, eval_every=1, checkpoint_every=100, keep_best=True)
    result = train(config, out)
    assert [file.name for file in sorted(result.folder.checkpoints.glob("*.json"))] == [
        "iteration-00000003.json",  # the earliest of the lowest, though no checkpoint was due there
        "iteration-00000007.json",
    ]
    assert result.best == find_checkpoint(out / "best") == find_checkpoint(out / "checkpoints" / "best")
    assert load_checkpoint(out / "checkpoints" / "iteration-00000003.json").iteration == 3
    monkeypatch.undo()
    assert restore(out / "best").checkpoint.iteration == 3
    assert evaluate_run(out / "best")[0].path == result.best
    assert main(["evaluate", str(out / "best")]) == 0
    assert str(result.best) in capsys.readouterr().out
    assert main(["train", "--resume", str(out / "best"), "--out", str(tmp_path / "on"), "--quiet"]) == 0
    assert load_checkpoint(find_checkpoint(tmp_path / "on")).iteration == 7
    assert main(["train", "--resume", str(out / "best"), "--quiet"]) == 0  # in its own folder
    assert load_checkpoint(find_checkpoint(out)).iteration == 7


def test_predict_takes_the_best_one(tmp_path):
    train(tiny(keep_best=True), tmp_path / "run")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--weights", str(tmp_path / "run" / "best")]) == 0


def rows_of(*errors):
    return tuple(Row(i, i / 10, 0.1, 1.0, 50.0, error, 1.0, float(i)) for i, error in enumerate(errors, 1))


def test_which_ones_are_kept(whole, tmp_path):
    """Whichever of the kept ones a run goes on from, the best one up to there is kept too."""
    start = load_checkpoint(whole.checkpoint)

    def save(folder, *errors, **options):
        state = replace(start, iteration=len(errors), rows=rows_of(*errors))
        checkpoints.save(state, folder, **options)
        return [int(file.stem[-3:]) for file in sorted(folder.glob("*.json"))]

    course = (20.0, 30.0, None, 10.0, 15.0, 40.0)
    kept = [save(tmp_path, *course[:n], keep=2, keep_best=True) for n in range(1, 7)]
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [4, 5], [4, 5, 6]]
    # From iteration 5 on another course: what is left of the old one does not count.
    assert save(tmp_path, 20.0, 30.0, None, 10.0, 15.0, 5.0, keep=1, keep_best=True) == [6]
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoints.find(tmp_path / "best").stem.endswith("6")
    # Without it, and without a measured error, the newest alone.
    assert save(tmp_path / "b", 20.0) == [1]
    assert save(tmp_path / "b", 20.0, 30.0) == [2]
    with pytest.raises(FileNotFoundError, match=r"that of iteration 1, which was not kept \(train with --keep-best\)"):
        checkpoints.find(tmp_path / "b" / "best")
    assert save(tmp_path / "c", None, None, keep_best=True) == [2]
    with pytest.raises(FileNotFoundError, match="no test error was measured yet"):
        checkpoints.find(tmp_path / "c" / "best")


def test_a_run_that_was_taken_on_from_elsewhere_ends_well_without_the_best_one(tmp_path, monkeypatch):
    """The lowest error was measured where this run's folder never was."""
    errors = {2: 50.0, 4: 70.0, 6: 60.0}
    monkeypatch.setattr("minires.training.loop._Run._test_error", lambda self: errors[self.iteration])
    train(tiny(eval_every=2, iterations=4, checkpoint_every=4, keep_best=True), tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").glob("iteration-00000004*"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "alone")
    config = replace(resume_config(tmp_path / "alone"), iterations=6)
    result = train(config, tmp_path / "on", resume=tmp_path / "alone")
    assert result.rows[-1].iteration == 6
    assert result.best is None


def test_killed_between_the_last_checkpoint_and_the_removal_of_the_old_one(tmp_path):
    train(tiny(keep=2), tmp_path / "run")
    expected = names(tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").glob("iteration-00000004*"):
        shutil.copy(file, str(file).replace("iteration-00000004", "iteration-00000002"))
    assert names(tmp_path / "run") != expected
    train(resume_config(tmp_path / "run"), resume=tmp_path / "run")
    assert names(tmp_path / "run") == expected


def test_a_folder_called_best_is_a_folder(tmp_path):
    result = train(tiny(), tmp_path / "best")
    assert find_checkpoint(tmp_path / "best") == result.checkpoint


# Full disks and folders that cannot be written


@pytest.fixture(scope="module")
def operations(whole, tmp_path_factory):
    """What saving a second checkpoint does to files."""
    folder = tmp_path_factory.mktemp("record")
    start = load_checkpoint(whole.checkpoint)
    checkpoints.save(replace(start, seconds=1.0), folder)
    with Record(folder) as record:
        checkpoints.save(later(start), folder)
    return record.operations


def later(start):
    row = replace(start.rows[-1], iteration=start.iteration + 1)
    model = {name: array + 1 for name, array in start.model.items()}
    return replace(start, iteration=row.iteration, rows=(*start.rows, row), model=model)


def test_a_disk_that_is_full_from_any_operation_on(whole, operations, tmp_path):
    """Every write, name and removal of a save in turn; removals make room and so are tried only once."""
    start = load_checkpoint(whole.checkpoint)
    complete = next(i for i, o in enumerate(operations) if o.kind == "rename" and o.target.endswith(".json"))
    kinds = [operation.kind for operation in operations]
    assert (kinds.count("write"), kinds.count("rename"), kinds.count("unlink")) == (4, 2, 2)
    for number in range(len(operations) - 1):  # the last one marks the return of the save
        folder = tmp_path / str(number)
        checkpoints.save(start, folder)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with Disk(folder, full_from(number, NO_SPACE)), pytest.raises(OSError, match="No space left") as caught:
            checkpoints.save(later(start), folder)
        if number <= complete:
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
            assert str(folder) in str(caught.value)
        else:
            assert load_checkpoint(find_checkpoint(folder)).iteration == start.iteration + 1
            assert not list(folder.glob(".*"))
        checkpoints.save(later(start), folder)  # with room again
        assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("what", ["iteration-00000004.json", "iteration-00000004", "history.csv", "curves.png", ""])
def test_a_full_disk_amid_a_run_says_what_is_kept_and_how_to_go_on(whole, tmp_path, capsys, what):
    out = tmp_path / "run"

    def full(operation):
        late = any((out / "checkpoints").glob("*.json"))
        if late and operation.kind == "write" and f".{what}" in operation.path:
            raise NO_SPACE

    with Disk(out, full):
        assert main(["train", *WORDS, "--checkpoint-every", "2", "--out", str(out)]) == 1
    stdout, message = capsys.readouterr()
    assert stdout == ""
    (line,) = message.splitlines()
    last = 6 if what == "curves.png" else 2
    for words in (what, "No space left on device", f"iteration-0000000{last}.json", f"minires train --resume {out}"):
        assert words in line
    assert not [name for name in names(out) if Path(name).name.startswith(".")]
    assert load_checkpoint(find_checkpoint(out)).iteration == last
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert list(differences(whole.folder.path, out)) == []


def test_room_for_two_checkpoints_is_asked_for_first(tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    result = train(tiny(width=8), tmp_path / "made")
    size = next(result.folder.checkpoints.glob("*.safetensors")).stat().st_size
    message = {}
    for free in (0, int(1.5 * size), 3 * size):
        monkeypatch.setattr(run.shutil, "disk_usage", lambda path, free=free: usage(free, 0, free))
        out = tmp_path / str(free)
        code = main(["train", "--width", "8", "--iterations", "1", "--workers", "0", "--quiet", "--out", str(out)])
        message[free] = capsys.readouterr().err
        assert code == (0 if free > 2 * size else 1)
        assert out.exists() == (code == 0)  # no leftovers
        if code:
            numbers = [int(word.replace(",", "")) for word in message[free].split() if word.replace(",", "").isdigit()]
            checkpoints, needed, left = numbers
            assert (checkpoints, left) == (2, free)
            assert 1.8 * size < needed < 2 * size  # all but the names of the arrays
            assert str(out) in message[free]
    # One that is there already needs room for one more.
    for free, fits in ((int(0.5 * size), False), (int(1.5 * size), True)):
        monkeypatch.setattr(run.shutil, "disk_usage", lambda path, free=free: usage(free, 0, free))
        before = names(tmp_path / "made")
        if fits:
            train(result.config, resume=tmp_path / "made")
        else:
            with pytest.raises(RunFolderError, match="the next checkpoint of this run take"):
                train(result.config, resume=tmp_path / "made")
        assert names(tmp_path / "made") == before


CALL = "import sys; from minires.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_limit_of_the_system_amid_a_run(tmp_path):
    """Files may have 64 kB: the tensors are larger."""
    out = tmp_path / "run"
    words = ["train", "--width", "8", "--iterations", "2", "--workers", "0", "--quiet", "--out", str(out)]
    ended = subprocess.run(
        [sys.executable, "-c", CALL, *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    for message in ("File too large", "iteration-00000002", "no checkpoint was written yet", f"--resume {out}"):
        assert message in line
    assert not [name for name in names(out) if "iteration" in name or ".tmp" in name]
    assert main(["train", "--resume", str(out), "--quiet"]) == 0


# The other 100 kB are gone once the room was found sufficient.
FILLED = """
import os, sys
from minires.cli import main
from minires.training import RunFolder
place, *words = sys.argv[1:]
demand = RunFolder._demand_room
def demand_and_fill(*args):
    demand(*args)
    with open(place + "/ballast", "wb") as file:
        file.write(bytes(100 << 10))
RunFolder._demand_room = demand_and_fill
code = main(words)
print(*sorted(os.listdir(place + "/run/checkpoints")))
sys.exit(code)
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 400 kB, and a run whose checkpoint takes 170 kB: soon there is room for one, not for two."""
    mounted = 'mount -t tmpfs -o size=400k tmpfs "$0" && exec "$@"'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system forbids mounting a file system")
    run = ["train", "--width", "4", "--iterations", "4", "--checkpoint-every", "1", "--workers", "0", "--quiet"]
    command = [sys.executable, "-c", FILLED, str(tmp_path), *run, "--out", str(tmp_path / "run")]
    ended = subprocess.run([*alone, *command], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert "No space left on device" in line
    first, second = ended.stdout.split()
    assert (first[:18], second) == ("iteration-00000001", "iteration-00000001.json")


def test_a_folder_that_cannot_be_written(whole, tmp_path, monkeypatch, capsys):
    shutil.copytree(whole.folder.path, tmp_path / "run")
    before = names(tmp_path / "run")

    def read_only(operation):
        raise OSError(errno.EROFS, "Read-only file system")

    with Disk(tmp_path / "run", read_only):
        assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 1
        assert main(["train", "--out", str(tmp_path / "run"), "--quiet"]) == 1
    message = f"error: nothing can be written in {tmp_path / 'run'}: Read-only file system\n"
    assert capsys.readouterr().err == 2 * message
    assert names(tmp_path / "run") == before
    with Disk(tmp_path / "run", lambda operation: None if ".lock" in operation.path else read_only(operation)):
        assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 1
    assert capsys.readouterr().err == message
    assert names(tmp_path / "run") == before


def test_a_path_below_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    assert main(["train", *WORDS, "--out", str(path)]) == 2
    line = error_line(capsys.readouterr().err)
    assert line == f"error: --out must be a folder, new or empty; none can be made at {path}: Not a directory"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has format version 2; this minires reads 1"),
        ({"config": {"network": "resnet32", "epochs": 1, "width": 1}}, "does not fit resnet32"),
        ({"config": {"network": "resnet20", "epochs": 1, "width": 2}}, "does not fit resnet20"),
        ({"config": {"network": "resnet21", "epochs": 1}}, "unknown network 'resnet21'"),
    ],
)
def test_a_checkpoint_of_another_network_or_version(whole, tmp_path, capsys, change, message):
    out = tmp_path / "run"
    shutil.copytree(whole.folder.path, out)
    path = find_checkpoint(out)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    def content():
        return {name: (out / name).read_bytes() for name in names(out) if (out / name).is_file()}

    before = content()
    assert main(["train", "--resume", str(out), "--quiet"]) == 4
    assert message in error_line(capsys.readouterr().err)
    assert content() == before


def test_interrupted_runs_keep_their_best_one(tmp_path, monkeypatch):
    errors = {2: 50.0, 4: 70.0, 6: 60.0}
    monkeypatch.setattr("minires.training.loop._Run._test_error", lambda self: errors[self.iteration])
    config = tiny(eval_every=2, checkpoint_every=1, keep_best=True)
    report = Silent()
    report.iteration = lambda done, *_: os.kill(os.getpid(), 2) if done == 5 else None
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", report=report)
    assert [load_checkpoint(p).iteration for p in sorted((tmp_path / "run" / "checkpoints").glob("*.json"))] == [2, 5]
    result = train(config, resume=tmp_path / "run")
    assert [load_checkpoint(p).iteration for p in sorted(result.folder.checkpoints.glob("*.json"))] == [2, 6]
    assert load_checkpoint(result.best).iteration == 2
    # Gone on with elsewhere, the best one comes along, and a better one of a later course counts.
    errors[6] = 40.0
    newest = replace(load_checkpoint(result.checkpoint), config=replace(config, backend=result.config.backend))
    older = replace(newest, iteration=4, rows=tuple(row for row in newest.rows if row.iteration <= 4))
    source = tmp_path / "source"
    checkpoints.save(load_checkpoint(result.best), source)
    elsewhere = train(older.config, tmp_path / "on", resume=checkpoints.save(older, source, keep=2))
    assert load_checkpoint(elsewhere.best).iteration == 6
    errors[6] = 55.0
    elsewhere = train(older.config, tmp_path / "on2", resume=source)
    assert load_checkpoint(elsewhere.best).iteration == 2
    np.testing.assert_array_equal(
        restore(tmp_path / "on2" / "best").model.state_dict()["fc.bias"],
        restore(result.best).model.state_dict()["fc.bias"],
    )
