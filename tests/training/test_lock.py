"""One run at a time in a folder: between processes, threads and after kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from minires.cli import main
from minires.training import Config, ConfigError, RunFolder, RunFolderError, resume_config, train
from minires.training.lock import locked
from minires.training.progress import Silent

fcntl = pytest.importorskip("fcntl")

CONFIG = Config.make(width=1, iterations=2, workers=0)
HOLD = """
import sys, time
from pathlib import Path
from minires.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder's lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_another_process_is_named_and_nothing_is_touched(holder, tmp_path):
    with pytest.raises(RunFolderError, match=f"is in use: process {holder.pid} trains in it") as caught:
        train(CONFIG, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert files(tmp_path) == [".lock"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(holder, tmp_path, number):
    holder.send_signal(number)
    holder.wait()
    assert files(tmp_path) == [".lock"]  # what is left means nothing
    train(CONFIG, tmp_path)
    assert ".lock" not in files(tmp_path)


@pytest.mark.parametrize("words", [("--out", "{run}"), ("--resume", "{run}"), ("--resume", "{run}/checkpoints")])
def test_the_command_line_says_so_in_one_line_and_exit_1(tmp_path, capsys, words):
    run = tmp_path / "run"
    train(CONFIG, run)
    before = {file: (run / file).stat().st_mtime_ns for file in files(run)}
    with locked(run):
        assert main(["train", "--quiet", *(word.format(run=run) for word in words)]) == 1
    message = capsys.readouterr().err
    assert message == f"error: {run} is in use: this very process ({os.getpid()}) trains in it\n"
    assert {file: (run / file).stat().st_mtime_ns for file in files(run)} == before


def test_resuming_into_a_folder_that_is_in_use(tmp_path):
    train(CONFIG, tmp_path / "run")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(RunFolderError, match="out is in use"):
        train(CONFIG, tmp_path / "out", resume=tmp_path / "run")
    with locked(tmp_path / "run"):  # which is only read
        train(CONFIG, tmp_path / "out", resume=tmp_path / "run")


def test_two_threads_of_one_process(tmp_path):
    """The second comes while the first is amid its run, which does not notice."""
    refused = []

    def train_too():
        with pytest.raises(RunFolderError, match="this very process") as caught:
            train(CONFIG, resume=tmp_path / "run")
        refused.append(caught.value)

    def in_a_thread(*_):
        thread = threading.Thread(target=train_too)
        thread.start()
        thread.join()

    report = Silent()
    report.iteration = in_a_thread
    train(CONFIG, tmp_path / "run", report=report)
    assert len(refused) == 2


def test_a_forked_child_does_not_keep_it(tmp_path):
    reading, writing = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:  # lives on after its parent has left the folder
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with locked(tmp_path):
        pass
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_a_forked_child_that_leaves_the_block_does_not_free_it(tmp_path):
    block = locked(tmp_path)
    block.__enter__()
    child = os.fork()
    if child == 0:
        try:
            block.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()
    with pytest.raises(RunFolderError), locked(tmp_path):
        pass
    block.__exit__(None, None, None)
    with locked(tmp_path):
        pass


def test_programs_that_a_run_starts_do_not_keep_it(tmp_path):
    with locked(tmp_path):
        process = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with locked(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


def test_who_waits_at_the_end_of_another_gets_a_lock_of_its_own(tmp_path, monkeypatch):
    """The owner ends, and removes the file, between the other's opening it and locking it."""
    first = locked(tmp_path)
    first.__enter__()
    real = fcntl.flock

    def late(*args):
        monkeypatch.undo()
        first.__exit__(None, None, None)
        real(*args)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())
        with pytest.raises(RunFolderError), locked(tmp_path):
            pass
    assert files(tmp_path) == []


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def unsupported(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(RunFolderError, match=r"cannot be locked: Operation not supported"), locked(tmp_path):
        pass


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", ".config.json.123.tmp")])
def test_what_was_killed_before_its_first_file_may_be_claimed_again(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("12345\n")
    with pytest.raises(FileNotFoundError, match=f"holds no run.*minires train --out {tmp_path}$"):
        resume_config(tmp_path)
    train(CONFIG, tmp_path)
    assert not set(left) & set(files(tmp_path))


@pytest.mark.parametrize("file", ["mine.txt", ".hidden", "config.json", "checkpoints/iteration-00000001.json"])
def test_a_folder_with_anything_of_its_own_is_not(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    (tmp_path / ".lock").write_text("12345\n")
    with pytest.raises(ConfigError, match="not empty"), RunFolder.claim(tmp_path, CONFIG):
        pass
    assert (tmp_path / file).exists()
