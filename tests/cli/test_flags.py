"""Every flag of every command with malformed values: one line that names the flag, a documented exit code, no file.

The parsers list the commands, flags and positional arguments, so that a new flag is tested at once.  If a command
accepts the value, the test stops it before the network computes.  `pytest -m slow tests/cli` tries every word.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shutil
import signal
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from minires import cli
from minires.autograd import Function
from minires.cli import ALIASES, COMMANDS, main, parser_of
from minires.cli.paper import ITEMS
from minires.cli.parser import FORMER_FLAGS, Whole
from minires.context import context
from minires.inspect.summary import _Counter
from minires.training import Config

# Valid positional arguments of each command, and flags that make it quick.  {run}, {weights}, {picture} and {new} are
# replaced by paths.
BASE = {
    "train": ["--iterations=1", "--width=1", "--workers=0", "--quiet"],
    "evaluate": ["{run}", "--workers=0"],
    "predict": ["{picture}", "--weights={weights}", "--workers=0"],
    "models": [],
    "summary": ["resnet20"],
    "draw": ["resnet20", "--out={new}"],
    "step": ["resnet20"],
    "trace": ["resnet20", "--out={new}"],
    "verify": ["resnet20"],
    "lockstep": ["resnet20", "--out={new}"],
    "gradcheck": ["relu", "--cases=1"],
    "exercise": ["relu_backward"],
    "paper": [],
    **{f"paper {item}": ["--out={new}"] for item in ITEMS},
    "kernels": [],
    "kernels step": ["gemm_04_registers"],
    "kernels check": ["{kernel}", "--as=gemm"],
    "kernels profile": ["{kernel}"],
    "bench": ["--quick"],
    "weights": ["{weights}"],
    "convert": ["{weights}", "{new}.safetensors"],
    "export": ["resnet20", "--width=1", "--out={new}"],
    "doctor": [],
}
CALLED = {
    "name": "unknown exercise",
    "file": "no kernel can be read",
    "kernel": "no kernel can be read",
    "networks": "unknown network",
    "network": "unknown network",
    "compare": "unknown network",
    "data": "unknown data set",
}
CODES = {1, 2, 3, 4}
NO_NUMBER = "nonsense"
FEW = ("", "-1", "nan", NO_NUMBER, "\x1b[31m", "{folder}", "{binary}", "x" * 5000)
WORDS = (
    *FEW,
    *(" ", "0", "1.5", "inf", "-inf", "1e400", "99999999999999999999999", "0x10", "1_0", "１", "1,2,x"),
    *("résumé☃", "a\nb", "%s", "{folder}/missing", "{binary}/below"),
    *("/dev/null/x", "-" * 3, ",", "=", "None", "--json", "\udcff"),
)


SECONDS = 10  # most seconds of a command line without computation


class Late(BaseException):
    """The command has neither refused its arguments nor begun to compute in time."""


class Began(BaseException):
    """The network begins to compute: the command has accepted every argument."""


@functools.cache
def parsers():
    """Command -> parser; "paper ITEM" -> parser of the item."""
    found = {command: parser_of(command) for command in COMMANDS}
    groups = [(c, a) for c in found for a in found[c]._actions if isinstance(a, argparse._SubParsersAction)]
    return found | {f"{command} {item}": parser for command, items in groups for item, parser in items.choices.items()}


def flags():
    """(command, action) of every flag and positional argument."""
    for command, parser in parsers().items():
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            flag = max(action.option_strings, key=len) if action.option_strings else ""
            yield pytest.param(command, action, id=f"{command} {flag or action.metavar or action.dest}")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    (root / "folder").mkdir()
    (root / "binary").write_bytes(bytes(range(256)) * 8)
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(root / "picture.png")
    assert main(["train", *BASE["train"], "--out", str(root / "run")]) == 0
    assert main(["convert", str(root / "run"), str(root / "weights.safetensors")]) == 0
    shutil.copy(Path(__file__).parents[1] / "kernels" / "tile.cu", root / "kernel.cu")
    names = {
        "kernel": "kernel.cu",
        "folder": "folder",
        "binary": "binary",
        "run": "run",
        "weights": "weights.safetensors",
    }
    return {name: str(root / file) for name, file in (names | {"picture": "picture.png"}).items()}


@pytest.fixture
def call(places, tmp_path, monkeypatch, capfd):
    """Runs a command line in an empty folder: exit code (None: it began to compute), stderr, files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    forward = Function.__call__

    def begin(node, *inputs):
        if any(isinstance(observer, _Counter) for observer in context.observers):  # the layer table computes no network
            return forward(node, *inputs)
        raise Began

    def begin_process(*arguments, **options):
        raise Began

    def late(number, frame):
        raise Late

    monkeypatch.setattr(Function, "__call__", begin)
    monkeypatch.setattr(subprocess, "Popen", begin_process)
    monkeypatch.setattr("minires.cli.paper._reproduce", begin_process)

    def call(*words):
        new = tmp_path / "new"
        words = [re.sub(r"\{(\w+)\}", lambda name: ({"new": str(new)} | places)[name[1]], word) for word in words]
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            code = main(words)
        except Began:
            code = None
        except Late:
            code = f"still at work after {SECONDS} s"
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        err = capfd.readouterr().err
        left = sorted(tmp_path.iterdir())
        return code, err, left

    before = signal.signal(signal.SIGALRM, late)
    yield call
    signal.signal(signal.SIGALRM, before)


def spelled(command, action, value):
    """The whole command line with this value."""
    base = BASE[command]
    if action.nargs == 0:
        return [*command.split(), *base, f"{max(action.option_strings, key=len)}{value}"]
    if action.option_strings:
        flag = max(action.option_strings, key=len)
        if action.nargs in (None, "?"):
            given = [f"{flag}={value}"]  # with =, because a value may begin with a dash
        else:
            given = [flag, *[value] * (action.nargs if isinstance(action.nargs, int) else 1)]
        return [*command.split(), *without(base, action), *given]
    words = [word for word in base if not word.startswith("-")]
    place = [a for a in parsers()[command]._actions if not a.option_strings].index(action)
    words[place : place + 1] = [value]
    flags = [word for word in base if word.startswith("-")]
    return [command, *words] if action.nargs == argparse.PARSER else [*command.split(), *flags, "--", *words]


def without(base, action):
    """The base without this flag and without the flags that exclude it."""
    beside = {"--epochs": "--iterations"}
    dropped = set(action.option_strings) | {beside.get(flag) for flag in action.option_strings}
    return [word for word in base if word.partition("=")[0] not in dropped]


@pytest.mark.parametrize("words", [FEW, pytest.param(WORDS, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize(("command", "action"), list(flags()))
def test_a_malformed_value_is_one_line_that_names_the_flag(command, action, words, call, places):
    if command == "export":
        pytest.importorskip("onnx")
    wrong = []
    for value in ["=1", "=", "=no"] if action.nargs == 0 else words:  # values for a flag that takes none
        code, err, left = call(*spelled(command, action, value))
        if code in (None, 0):
            if action.nargs == 0 or (
                value == NO_NUMBER and (isinstance(action.type, Whole) or action.type in (int, float) or action.choices)
            ):
                wrong.append((value, code, "was accepted"))
            for path in left:
                remove(path)
            continue
        lines = [line for line in err.splitlines() if line.strip() and not line.startswith("resnet20 on digits")]
        shown = re.sub(r"\{(\w+)\}", lambda name: places.get(name[1], name[0]), value)
        names = [*action.option_strings, str(action.metavar), f"--{action.dest.replace('_', '-')}", action.dest]
        names += [CALLED[action.dest]] if action.dest in CALLED else []
        if not action.option_strings or code != 2:  # the error may name the value instead
            names += [
                shown[:60],
                str(Path(shown))[:60],
                ascii(shown)[1:60],
                " ".join(shown.split()),
                "".join(c if c.isprintable() else "?" for c in shown),
            ]
        if value.startswith("-") and action.nargs not in (None, "?"):
            names.append(value)  # argparse takes the value for a flag
        names = [name for name in names if name]
        several = code == 4 and action.dest == "images"  # a line for the picture, and a line for all pictures
        if code not in CODES:
            wrong.append((value[:80], code, err[:300]))
        elif code == 2 and (lines[1][:15], lines[2][:12]) != ("usage: minires ", "try minires "):
            wrong.append((value[:80], code, f"no usage line: {err[:600]}"))
        elif len(lines) != 1 + several + 2 * (code == 2) or not lines[0].startswith("error: ") or len(err) > 1500:
            wrong.append((value[:80], code, f"not one line: {err[:600]}"))
        elif not any(name in err for name in names):
            wrong.append((value[:80], code, f"names none of {names[:4]}: {err[:300]}"))
        elif code == 2 and any(path.is_file() or any(p.is_file() for p in path.rglob("*")) for path in left):
            wrong.append((value[:80], code, f"leaves {left}"))
        for path in left:
            remove(path)
    assert not wrong, "\n".join(map(str, wrong))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_every_command_has_a_base():
    assert set(BASE) == set(parsers())


def test_every_flag_has_a_short_help_text():
    for command, parser in parsers().items():
        for action in parser._actions:
            text = action.help if not isinstance(action, argparse._SubParsersAction) else "items"
            assert text, (command, action.dest)
            assert not re.match(r"(of|what|these|default)\b", text), (command, action.dest, text)
            assert max(len(sentence.split()) for sentence in re.split(r"[.;:] ", text)) <= 25, (command, text)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_examples_that_parse(command):
    parser = parser_of(command)
    examples = re.findall(r"^  minires (.*)$", parser.epilog, flags=re.M)
    assert len(examples) == 2
    for name, *words in map(str.split, examples):
        assert name == command
        assert callable(parser.understand(words).command)


def test_former_names_of_flags_are_hidden_aliases():
    tested = set()
    for command, parser in parsers().items():
        for old, new in FORMER_FLAGS.items():
            if new in parser.flags() and old not in parser.flags():
                assert parser._renamed(old) == new
                assert parser._renamed(f"{old}=--x") == f"{new}=--x"
                assert f"{old} " not in parser.format_help()
                tested.add((command.partition(" ")[0], old))
    batch = {"summary", "step", "trace", "lockstep", "verify", "export", "bench"}
    assert {(command, "--batch") for command in batch} <= tested
    assert {("predict", "--model"), ("bench", "--networks"), ("export", "--onnx"), ("summary", "--classes")} <= tested
    assert ("predict", "--classes") not in tested
    assert parser_of("export").understand(["resnet20", "--onnx", "x", "--classes=3"]).num_classes == 3


def test_former_and_other_names_of_commands():
    assert ALIASES == {"debug": "step", "compare": "lockstep"}
    for alias, command in ALIASES.items():
        assert main([alias, "--help"]) == main([command, "--help"]) == 0


def test_the_flags_of_train_are_the_settings():
    settings = {field.name for field in fields(Config)}
    others = {"help", "out", "resume", "json", "quiet", "download"}
    assert {action.dest for action in parsers()["train"]._actions} == settings | others


def test_no_file_of_the_command_line_imports_inside_a_function():
    """Except optional packages, which load when they are needed: a command's file is itself loaded on demand."""
    optional = {"cupy", "mpi4py", "minires.verify"}  # torch_networks needs torch
    for path in Path(cli.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    names = [node.module] if isinstance(node, ast.ImportFrom) else []
                    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                    assert set(names) <= optional, (path.name, function.name, names)
