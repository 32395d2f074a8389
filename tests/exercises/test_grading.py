"""`--grade-tests`: graders are graded by the wrong versions that they accept."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
from exercises.graders import GRADERS

from minires.cli import main
from minires.exercises import check, grading
from minires.exercises.tasks import EXERCISES

RELU = EXERCISES["relu_backward"]
NAMES = [one.name for one in EXERCISES["conv2d_backward"].misconceptions]


@pytest.fixture(scope="module")
def slipped():
    """Grader -> the wrong versions of conv2d_backward that it accepts."""
    return {
        grader: [name for name in NAMES if accepts(grading.version("conv2d_backward", name))]
        for grader, accepts in GRADERS.items()
    }


def test_four_graders_let_wrong_versions_pass(slipped):
    for grader, names in slipped.items():
        assert GRADERS[grader](grading.version("conv2d_backward"))
        print(f"{grader}: {len(names)} of {len(NAMES)} wrong versions slip through")
    counts = [len(names) for names in slipped.values()]
    assert counts[0] >= 3
    assert counts[-1] == max(counts) >= 12


def test_what_slips_through_is_what_the_grader_cannot_see(slipped):
    assert "stride ignored in grad_x" in slipped["stride-1-only"]
    assert "grad_output replaced by ones" in slipped["ones"]
    assert "filter in the wrong orientation" not in slipped["stride-1-only"]


def test_the_check_itself_lets_nothing_pass():
    assert not [name for name in NAMES if check("conv2d_backward", grading.version("conv2d_backward", name)).passed]


def test_the_command(tmp_path, capsys, monkeypatch):
    """A naive test of relu_backward: cotangent of ones, no x is 0."""
    few = dataclasses.replace(RELU, misconceptions=RELU.misconceptions[:3])
    monkeypatch.setitem(EXERCISES, "relu_backward", few)
    test = tmp_path / "naive.py"
    test.write_text(
        "import sys, numpy as np\n"
        "from relu_backward import relu_backward\n"
        "assert sys.argv[1].endswith('relu_backward.py')\n"
        "x = np.array([1.5, -2.0, 3.0])\n"
        "assert (relu_backward(np.ones(3), x) == [1, 0, 1]).all()\n"
    )
    command = f"{sys.executable} {test} {{}}"
    assert main(["exercise", "relu_backward", "--grade-tests", command, "--json"]) == 1
    fields = json.loads(capsys.readouterr().out)
    (one,) = fields["exercises"]
    assert one["slipped"] == ["gradient passes at 0", "half of the gradient at 0"]
    assert one["caught"] == ["mask inverted"]


def test_a_command_that_rejects_the_right_solution(capsys):
    assert main(["exercise", "relu_backward", "--grade-tests", "false {}"]) == 2
    assert "rejects the right solution of relu_backward" in capsys.readouterr().err
    assert main(["exercise", "relu_backward", "--grade-tests", "no-such-command {}"]) == 2
    assert "cannot be run" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="process groups need POSIX")
def test_a_run_that_takes_too_long_leaves_no_process(tmp_path):
    """The command's own child has ended with the command."""
    command = tmp_path / "slow.sh"
    command.write_text(f"sleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    assert not grading.grade("relu_backward", f"sh {command}", seconds=1).usable
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 10  # an orphan is a zombie (Z) until its new parent reads the exit code
    while running := child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not running


def test_a_version_is_a_file(tmp_path):
    file = Path(tmp_path / "relu_backward.py")
    file.write_text(grading.version_text("relu_backward", "mask inverted"))
    names: dict[str, object] = {}
    exec(file.read_text(), names)
    assert check("relu_backward", names["relu_backward"]).misconception == "mask inverted"
