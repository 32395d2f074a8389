"""README tells the truth: its Python is run, its tables and file names exist, its commands are known."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
from pathlib import Path

import pytest
import safetensors.numpy

import minires as mr
from minires import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_give_what_they_show(monkeypatch):
    """One session from the first block to the last; breakpoints print their card and go on."""
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)
    if mr.backends.available()["emulated"]:
        blocks = [block for block in blocks if "emulated" not in block]
    flags = doctest.ELLIPSIS
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", "README.md", 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner(optionflags=flags).run(session, out=complaints.append)
    assert result.attempted > 10
    assert result.failed == 0, "".join(complaints)


@pytest.mark.parametrize("command", ["models", "kernels"])
def test_the_listed_models_and_kernels_are_the_real_ones(capsys, command):
    assert cli.main([command]) == 0
    assert capsys.readouterr().out.strip() in TEXT


def commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", commands())
def test_commands_are_run_by_ci(line):
    """Those of the marked blocks as they stand; the others by name, the benchmark with fewer repeats.

    Two of the blocks are run by tests instead: `step` in tests/backends/test_stepping.py, `torchvision` below.
    """
    marks = "train|mpi|test|activate|tour|step|trace|verify|planted|weights|torchvision"
    marked = re.findall(rf"<!-- (?:{marks}) -->\n```sh\n(.*?)^```", TEXT, flags=re.M | re.S)
    scripts = "".join((ROOT / ".ci" / name).read_text(encoding="utf-8") for name in ("run", "long"))
    assert line in "\n".join(marked) or f".venv/bin/{line}" in scripts


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("minires ")])
def test_minires_commands_parse(line):
    arguments, _ = cli._parse(shlex.split(line)[1:])
    assert callable(arguments.command)


def test_weights_of_torchvision(capsys, monkeypatch, tmp_path):
    """The command as it stands; the file holds a narrow network, and tells as little about its stride."""
    (line,) = re.findall(r"<!-- torchvision -->\n```sh\n(.*)\n```", TEXT)
    model = mr.models.create("resnet50", width=2)
    safetensors.numpy.save_file(model.state_dict(), tmp_path / "resnet50-0676ba61.pth")  # read by what is in it
    shutil.copy(ROOT / "tests" / "prediction" / "data" / "cat.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    command = shlex.split(line)[1:]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("resnet50, 1,000 classes")
    assert cli.main(command[: command.index("--stride-in")]) == 2
    assert "--stride-in" in capsys.readouterr().err


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for path in re.findall(r"`(minires/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path
