"""The five READMEs: their Python runs, CI runs their commands, their tables are current and their links resolve."""

from __future__ import annotations

import doctest
import functools
import re
import shlex
import shutil
from pathlib import Path

import pytest
import safetensors.numpy

import minires as mr
from minires import cli

ROOT = Path(__file__).parent.parent
ROOMS = ("minires", "csrc", "benchmarks", "tests")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *(f"{r}/README.md" for r in ROOMS))}
LARGEST = 12_000  # bytes of README.md


def code(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands() -> list[str]:
    return [line for text in TEXTS.values() for block in code("sh", text) for line in block.splitlines()]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= LARGEST


def test_the_first_two_blocks_train_and_test():
    """Both start from a fresh clone."""
    train, test = re.findall(r"^```\w*\n(.*?)^```", TEXTS["README.md"], flags=re.M | re.S)[:2]
    for block, last in ((train, ".venv/bin/minires train\n"), (test, ".venv/bin/pytest -q -n auto\n")):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert block.endswith(last)


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if code("python", text)])
def test_python_blocks_give_what_they_show(monkeypatch, name):
    """One session a file, from its first block to its last; breakpoints print their card and go on."""
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    blocks = code("python", TEXTS[name])
    if mr.backends.available()["emulated"]:
        blocks = [block for block in blocks if "emulated" not in block]
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, name, 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=complaints.append)
    assert result.attempted >= 5
    assert result.failed == 0, "".join(complaints)


@pytest.mark.parametrize(("command", "name"), [("models", "minires/README.md"), ("kernels", "csrc/README.md")])
def test_the_listed_models_and_kernels_are_the_real_ones(capsys, command, name):
    assert cli.main([command]) == 0
    assert capsys.readouterr().out.strip() in TEXTS[name]


SCRIPTS = "".join((ROOT / ".ci" / name).read_text(encoding="utf-8") for name in ("run", "long"))
MARKED = re.findall(r"^<!-- ([\w-]+) -->\n```sh\n(.*?)^```", "\n".join(TEXTS.values()), flags=re.M | re.S)
ELSEWHERE = {"step", "own-step", "torchvision"}  # run by tests/backends/test_stepping.py, and below


def test_ci_runs_every_marked_block():
    loops = " ".join(re.findall(r"for part in ([\w -]+); do python3 .ci/readme.py \$part", SCRIPTS)).split()
    run = [*loops, *re.findall(r"python3 .ci/readme.py ([\w-]+)", SCRIPTS), *ELSEWHERE]
    assert sorted(run) == sorted(name for name, _ in MARKED)


@pytest.mark.parametrize("line", commands())
def test_commands_are_run_by_ci(line):
    """Those of the marked blocks as they stand; the others by name, the benchmark with fewer repeats."""
    assert line in "\n".join(block for _, block in MARKED) or f".venv/bin/{line}" in SCRIPTS


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("minires ")])
def test_minires_commands_parse(line):
    _, command, *words = shlex.split(line)
    assert callable(cli.parser_of(command).understand(words).command)


INLINE = {line for text in TEXTS.values() for line in re.findall(r"`(minires [a-z]+ [^`]*--[^`]*)`", text)}


@pytest.mark.parametrize("line", sorted(INLINE))
def test_commands_within_sentences_have_their_flags(capsys, line):
    words = line.split()[1:]
    assert cli.main([*words[: 2 if words[0] == "paper" else 1], "--help"]) == 0
    assert set(re.findall(r" (--[a-z-]+)", line)) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_weights_of_torchvision(capsys, monkeypatch, tmp_path):
    """The command as it stands; the file holds a narrow network, and no stride either."""
    (line,) = re.findall(r"<!-- torchvision -->\n```sh\n(.*)\n```", TEXTS["minires/README.md"])
    model = mr.models.create("resnet50", width=2)
    safetensors.numpy.save_file(model.state_dict(), tmp_path / "resnet50-0676ba61.pth")  # read by what is in it
    shutil.copy(ROOT / "tests" / "prediction" / "data" / "cat.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    command = shlex.split(line)[1:]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("resnet50, 1,000 classes")
    assert cli.main(command[: command.index("--stride-in")]) == 2
    assert "--stride-in" in capsys.readouterr().err


NAMES = [name for text in TEXTS.values() for name in re.findall(r"`((?:mr|F)\.[\w.]+)", text)]


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_names_exist(name):
    root, *path = name.split(".")
    functools.reduce(getattr, path, {"mr": mr, "F": mr.functional}[root])


def test_every_function_and_layer_is_in_the_index():
    operations = {f"F.{name}" for name in mr.functional.__all__}
    layers = {f"mr.nn.{name}" for name in mr.nn.__all__} | {f"mr.optim.{name}" for name in mr.optim.__all__}
    assert operations | layers <= set(NAMES) | {"mr.optim.Schedule"}, operations | layers - set(NAMES)


def test_every_environment_variable_is_listed():
    files = (ROOT / "minires").rglob("*.py")
    read = {name for file in files for name in re.findall(r'"(MINIRES_[A-Z_]+)"', file.read_text(encoding="utf-8"))}
    assert read == set(re.findall(r"`(MINIRES_[A-Z_]+)`", TEXTS["minires/README.md"]))


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(name: str, texts: dict[str, str]) -> list[str]:
    """The relative links of a document to a file or a heading that does not exist."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", texts[name]):
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        linked = texts.get(str(file.relative_to(ROOT))) if file.is_relative_to(ROOT) else None
        if not target.startswith("https://") and (
            not file.exists() or (anchor and (linked is None or anchor not in anchors(linked)))
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_what_it_links_to_is_there(name):
    assert not broken_links(name, TEXTS)
    for path in re.findall(r"`((?:minires|csrc|benchmarks|tests)/[\w/.]+)`", TEXTS[name]):
        assert (ROOT / path).exists(), path


def test_broken_links_are_found():
    text = "# A b, c\n```sh\n# no heading\n```\n[1](#a-b-c) [2](#no-heading) [3](none.py) [4](minires/README.md#none)"
    assert broken_links("README.md", TEXTS | {"README.md": text}) == [
        "#no-heading",
        "none.py",
        "minires/README.md#none",
    ]


def test_readme_leads_to_every_room():
    assert {f"{room}/README.md" for room in ROOMS} <= set(re.findall(r"\]\(([^)#\s]+)", TEXTS["README.md"]))
