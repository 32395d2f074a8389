"""Files are checked in a process of their own: whatever they do is a verdict."""

from __future__ import annotations

import json
import sys
import time

import pytest

from minires.cli import main
from minires.exercises import grading, process
from minires.exercises.child import GRADING
from minires.exercises.kernels import KERNELS
from minires.exercises.tasks import EXERCISES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits need POSIX")

RIGHT = "return grad_output * (x > 0)"
HEAD = "def relu_backward(grad_output, x):\n    "
FILES = {
    # what the file does: its text, the verdict, words of the message
    "right": (HEAD + RIGHT, "passed", "why it works"),
    "wrong": (HEAD + "return grad_output * (x >= 0)", "wrong", "gradient passes at 0"),
    "loop": (HEAD + "while True: pass", "no-answer", "no answer after 2 s, in geometry 1 of 9, x 1"),
    "loop at import": ("while True: pass", "no-answer", "while the file was loaded"),
    "exit": (HEAD + "exit()", "exited", "exit()"),
    "exit at import": ("import sys; sys.exit(0)", "exited", "cannot be loaded"),
    "os._exit": ("import os\n" + HEAD + "os._exit(0)", "exited", "exit code 0, in geometry 1"),
    "crash": ("import ctypes\n" + HEAD + "ctypes.string_at(0)", "crashed", "SIGSEGV"),
    "memory": ("import numpy as np\n" + HEAD + "return np.ones(50 * 2**27)", "memory", "50.0 GiB"),
    "input changed": (HEAD + "grad_output *= x > 0\n    return grad_output", "changed-input", "grad_output"),
    "stdin": (HEAD + "return input()", "raised", "EOFError"),
    "syntax": (HEAD + "return (", "not-loaded", "was never closed"),
    "import": ("import nonexistent", "not-loaded", "No module named 'nonexistent'"),
    "no function": ("def relu_backwards(g, x): pass", "not-loaded", "Did you mean 'relu_backwards'?"),
    "signature": ("def relu_backward(x): pass", "not-loaded", "must be relu_backward(grad_output, x)"),
    "nothing returned": (HEAD + "pass", "wrong", "returned None"),
    "threads and children": (
        "import subprocess, sys, threading, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n" + HEAD + RIGHT,
        "passed",
        "tried",
    ),
    "solution imported": (
        "from minires.exercises.solutions import relu_backward",
        "not-loaded",
        "minires.exercises.solutions",
    ),
    "catalogue": (
        "from minires import exercises\n"
        + HEAD
        + "return exercises.checking.get('relu_backward').solution(grad_output, x)",
        "raised",
        "has no attribute 'checking'",
    ),
    "self-check": (
        f"import minires as mr\n{HEAD}{RIGHT}\nassert mr.exercises.check('relu_backward', relu_backward)",
        "passed",
        "tried",
    ),
    "processor time": (
        f"import resource\nassert 60 < resource.getrlimit(resource.RLIMIT_CPU)[1] < 1e6\n{HEAD}{RIGHT}",
        "passed",
        "tried",
    ),
    "forged records": (
        "import glob, json, os, sys\n"
        "folder = next(a for a in open('/proc/self/cmdline').read().split(chr(0)) if 'minires-exercise' in a)\n"
        "open(folder + '/loaded.json', 'w').write(json.dumps({'callable': True}))\n"
        "for n in range(9):\n"
        "    os.mkfifo(f'{folder}/{n}.json')\n"
        "    os.symlink('/dev/zero', f'{folder}/{n}.npz')\n"
        "os._exit(0)",
        "exited",
        "exit code 0",
    ),
    "pickles": (
        "import json, numpy as np, os\n"
        "folder = next(a for a in open('/proc/self/cmdline').read().split(chr(0)) if 'minires-exercise' in a)\n"
        "class Evil:\n"
        "    def __reduce__(self): return (open, (folder + '/unpickled', 'w'))\n"
        "open(folder + '/loaded.json', 'w').write(json.dumps({'callable': True}))\n"
        "for n in range(9):\n"
        "    np.savez(f'{folder}/{n}.npz', **{'0': np.array([Evil()], dtype=object)})\n"
        "    fields = {'raised': '', 'kind': '', 'changed': [], 'complaints': {}}\n"
        "    open(f'{folder}/{n}.json', 'w').write(json.dumps(fields))\n"
        "os._exit(0)",
        "exited",
        "exit code 0",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_is_a_verdict(tmp_path, what):
    text, verdict, words = FILES[what]
    file = tmp_path / "solution.py"
    file.write_text(text + "\n")
    seconds = 2 if "loop" in what else 60
    result = process.check_file("relu_backward", file, seconds=seconds)
    assert result.verdict == verdict, result
    assert words in result.message
    assert result.passed == (verdict == "passed")
    assert "minires/exercises" not in result.message


@pytest.mark.parametrize("name", ["he_init", "residual_block", "sgd_momentum", "conv2d_backward"])
def test_every_kind_of_argument_reaches_the_process(tmp_path, name):
    file = tmp_path / f"{name}.py"
    file.write_text(EXERCISES[name].solution_text())
    begun = time.monotonic()
    result = process.check_file(name, file, seconds=60)
    assert result.passed, result
    assert time.monotonic() - begun < 60


def test_a_version_can_be_checked_while_graders_are_graded(tmp_path, monkeypatch):
    file = tmp_path / "relu_backward.py"
    file.write_text(grading.version_text("relu_backward", "mask inverted"))
    assert process.check_file("relu_backward", file).verdict == "not-loaded"
    monkeypatch.setenv(GRADING, "1")
    assert process.check_file("relu_backward", file).misconception == "mask inverted"


def test_a_random_seed_is_printed_and_repeats_the_check(tmp_path, capsys):
    file = tmp_path / "relu_backward.py"
    file.write_text(HEAD + "return grad_output * (x >= 0)")
    assert main(["exercise", "relu_backward", str(file), "--seed", "random", "--json"]) == 1
    first = json.loads(capsys.readouterr().out)
    assert main(["exercise", "relu_backward", str(file), "--seed", str(first["seed"])]) == 1
    out, err = capsys.readouterr()
    assert f"seed: {first['seed']}" in err
    assert out.strip() == first["message"].strip()


def test_start_solution_hint_and_check(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "relu_backward", "--start", "work"]) == 0
    file = tmp_path / "work" / "relu_backward.py"
    assert str(file.relative_to(tmp_path)) in capsys.readouterr().out
    assert file.read_text() == EXERCISES["relu_backward"].start()
    assert main(["exercise", "relu_backward", "--start", "work"]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["exercise", "relu_backward", str(file), "--json"]) == 1
    fields = json.loads(capsys.readouterr().out)
    assert (fields["passed"], fields["verdict"], fields["misconception"]) == (False, "raised", None)
    assert "still to be written" in fields["question"]
    file.write_text("print('seen')\n" + HEAD + "return -grad_output * (x > 0)\n")
    assert main(["exercise", "relu_backward", str(file), "--hint"]) == 1
    out, err = capsys.readouterr()
    assert "printed: seen" in err
    assert out.index("smallest failing") < out.index("came") < out.index("misconception") < out.index("question")
    assert out.index("question") < out.index("hint") < out.index("right  ")
    assert main(["exercise", "relu_backward", "--solution"]) == 0
    file.write_text(capsys.readouterr().out)
    assert main(["exercise", "relu_backward", str(file)]) == 0
    assert "relu_backward: passed" in capsys.readouterr().out


def test_the_list(capsys):
    assert main(["exercise", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == [*EXERCISES, *KERNELS]
    assert main(["exercise"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in EXERCISES)
    assert main(["exercise", "conv2d_backward"]) == 0
    assert "def conv2d_backward(grad_output, x, w, stride, padding):" in capsys.readouterr().out
    assert main(["exercise", "--hint"]) == 2
    assert main(["exercise", "conv2d_backward", "missing.py"]) == 2
