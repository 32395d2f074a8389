"""Run folders that mean harm: links planted at the names that a run writes, and files of strangers.

A run folder is as safe as a weight file: nothing in it is executed, what is read is bounded by the size of the files,
and every refusal is one error that names the file.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from usage import error_line

from minires import _atomic
from minires.cli import main
from minires.training import Config, ConfigError, RunFolderError, find_checkpoint, history, train
from minires.training import checkpoint as checkpoints
from training.disk import Record

CONFIG = Config.make(width=1, iterations=4, log_every=2, eval_every=2, checkpoint_every=2, workers=0)


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# -- links


def test_every_name_that_a_run_writes_is_recorded(tmp_path):
    with Record(tmp_path / "run") as record:
        train(CONFIG, tmp_path / "run")
    created = {operation.path for operation in record.operations if operation.kind == "create"}
    renamed = {operation.target for operation in record.operations if operation.kind == "rename"}
    assert created - {".lock"} == {
        str(_atomic.temporary(tmp_path / "run" / name).relative_to(tmp_path / "run")) for name in renamed
    }  # all but the lock goes through the one door
    assert {"config.json", "history.csv", "curves.png"} < renamed


def test_no_write_follows_a_link(tmp_path):
    """Links to a file that must stay as it is, at every name that a run writes, temporary ones included."""
    run, half, precious = tmp_path / "run", tmp_path / "half", tmp_path / "precious"
    with Record(run) as record:
        train(replace(CONFIG, keep=2), run)
    names = {o.path for o in record.operations if o.kind == "create"} - {".lock"}
    names |= {o.target for o in record.operations if o.kind == "rename"}
    first = {name for name in names if "iteration-00000002" in Path(name).name}
    (half / "checkpoints").mkdir(parents=True)
    precious.write_bytes(b"precious")
    for name in names:
        if name in first and (run / name).exists():
            shutil.copy(run / name, half / name)
        else:
            (half / name).symlink_to(precious)
    train(replace(CONFIG, keep=2), resume=half / "checkpoints" / "iteration-00000002.json")
    assert precious.read_bytes() == b"precious"
    assert not [file for file in half.rglob("*") if file.is_symlink()]
    assert set(content(half)) == set(content(run))


def test_a_link_that_is_planted_amid_a_run(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    for name in (tmp_path / "x", _atomic.temporary(tmp_path / "x")):
        name.symlink_to(tmp_path / "precious")
    _atomic.write_bytes(tmp_path / "x", b"new")
    assert content(tmp_path) == {"precious": b"precious", "x": b"new"}
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("plant", ["link", "hard link", "dangling link", "fifo", "socket", "folder"])
@pytest.mark.parametrize("how", ["--resume", "--out"])
def test_a_lock_that_is_not_one(tmp_path, capsys, plant, how):
    run, precious = tmp_path / "run", tmp_path / "precious"
    precious.write_bytes(b"precious")
    train(CONFIG, run) if how == "--resume" else run.mkdir()
    lock = run / ".lock"
    if plant == "hard link":
        os.link(precious, lock)
    elif plant == "fifo":
        os.mkfifo(lock)
    elif plant == "socket":
        here = os.getcwd()
        os.chdir(run)  # a socket's name may have a hundred letters
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(".lock")
        os.chdir(here)
    elif plant == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(precious if plant == "link" else tmp_path / "new")
    before = content(run)
    words = ["--width", "1", "--iterations", "1", "--workers", "0"] if how == "--out" else []
    assert main(["train", how, str(run), *words, "--quiet"]) == 1
    line = error_line(capsys.readouterr().err)
    assert str(lock) in line or plant == "folder"
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "new").exists()
    assert content(run) == before


def test_a_folder_of_checkpoints_that_is_a_link(tmp_path):
    """Old checkpoints are removed there, so it must be the run's own."""
    train(CONFIG, tmp_path / "run")
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "iteration-00000009-01234567.safetensors").write_text("precious")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="checkpoints is a link; replace it by a folder"):
        train(CONFIG, resume=tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="is a link"):
        train(CONFIG, tmp_path / "out")
    assert content(tmp_path / "elsewhere") == before


# -- strangers


def change(**values):
    def harm(path):
        fields = json.loads(path.read_text())
        for name, value in values.items():
            *outer, last = name.split("__")
            place = fields
            for key in outer:
                place = place[key]
            place[last] = value
        path.write_text(json.dumps(fields))

    return harm


def replaced_by(make):
    def harm(path):
        path.unlink()
        make(path)

    return harm


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


HARM = {
    "deep": lambda path: path.write_text("[" * 1_000_000),
    "deep inside": change(schedule=json.loads("[" * 900 + "]" * 900)),
    "large": sparse,
    "many digits": lambda path: path.write_text('{"format": ' + "9" * 10_000 + "}"),
    "wide": change(config__width=1000),
    "wider": change(config__width=2**31 - 1),
    "widest": change(config__width=10**300),
    "narrow": change(config__width=-1),
    "many classes": change(classes=["x"] * 100_000),
    "classes of numbers": change(classes=[1] * 10),
    "classes in a word": change(classes="0123456789"),
    "large images": change(input_shape=[1, 2**31 - 1, 2**31 - 1]),
    "no images": change(input_shape=[1, 0, 8]),
    "negative images": change(input_shape=[1, -8, -8]),
    "channels": change(input_shape=[2**31, 8, 8]),
    "size of the tensors": change(tensors__bytes=2**62),
    "negative size of the tensors": change(tensors__bytes=-1),
    "no size of the tensors": change(tensors__bytes="many"),
    "tensors elsewhere": change(tensors__file="/dev/zero"),
    "rows without end": change(history=[[10**400] * 8]),
    "rows of NaN": change(history=[[4, 1, 1, float("nan"), 1, 1, 1, 1]]),
    "negative rows": change(history=[[-4, 1, 1, 1, 1, 1, 1, 1]]),
    "random state": change(random_state={"bit_generator": "PCG64", "state": {"state": 10**400, "inc": -1}}),
    "digests": change(data=["x"]),
    "fifo": replaced_by(os.mkfifo),
    "device": replaced_by(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(CONFIG, tmp_path_factory.mktemp("finished") / "run").folder.path


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("harm", HARM)
def test_a_checkpoint_of_a_stranger(run, capsys, harm):
    HARM[harm](find_checkpoint(run))
    for words in (["evaluate", str(run)], ["train", "--resume", str(run), "--quiet"]):
        assert main(words) == 4
        line = error_line(capsys.readouterr().err)
        assert len(line) < 1000
        assert str(run) in line


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), sparse])
def test_the_tensors_of_a_stranger(run, capsys, make):
    (tensors,) = (run / "checkpoints").glob("*.safetensors")
    replaced_by(make)(tensors)
    assert main(["evaluate", str(run)]) == 4
    assert str(tensors) in capsys.readouterr().err


def test_shapes_are_compared_before_memory_is_taken(run):
    """The network that the JSON names takes a gigabyte; the process may have half of one more."""
    change(config__width=600)(find_checkpoint(run))
    # The peak is read from /proc: getrusage's is that of the process before exec, this big one, if it was higher.
    script = "import sys; from pathlib import Path; from minires.cli import main; code = main(sys.argv[1:]); "
    script += "print(code, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", script, "evaluate", str(run)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    code, peak = ended.stdout.split()
    assert code == "4", ended.stderr
    assert "does not fit resnet20" in ended.stderr
    assert int(peak) < 500_000  # KiB, of which the program itself takes a fifth


def test_weights_that_exceed_the_memory_are_refused_before_the_network_is_made(tmp_path, capsys):
    words = ["train", "--width", "20000", "--iterations", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "a smaller network or --width fits" in capsys.readouterr().err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 << 20


@pytest.mark.parametrize("make", [sparse, os.mkfifo])
def test_a_history_without_end(run, make):
    """A resumed run writes it again without reading it; `history.read` has a limit."""
    replaced_by(make)(run / "history.csv")
    with pytest.raises((OSError, ValueError), match=r"at most|is a FIFO"):
        history.read(run / "history.csv")
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    assert [row.iteration for row in history.read(run / "history.csv")] == [2, 4]


def test_a_configuration_without_end(tmp_path, capsys):
    sparse(tmp_path / "config.json")
    assert main(["train", "--resume", str(tmp_path)]) == 4
    assert "at most 33,554,432 are read" in capsys.readouterr().err


def test_a_history_that_no_checkpoint_could_hold_is_refused_at_the_beginning(tmp_path):
    with pytest.raises(ConfigError, match="a history of 200,001 rows exceeds the 150,000 that a checkpoint holds"):
        train(replace(CONFIG, iterations=200_000, log_every=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    largest = history.Row(2**40, *[-1.2345678901234567e-300] * 7)
    text = json.dumps([-value for value in vars(largest).values()])
    assert checkpoints.MOST_ROWS * (len(text) + 2) + 21_841 * 100 < checkpoints.LARGEST_JSON
