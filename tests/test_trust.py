"""The table of trust in tests/README.md: its tests and commands exist, and CI runs them when the table states."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from minires import cli

ROOT = Path(__file__).parent.parent
WHEN = ("every change", "long", "by hand")
SCRIPTS = {"every change": ".ci/run", "long": ".ci/long"}


def rows() -> list[tuple[str, list[str], str]]:
    """(claim, evidence, when) of each row"""
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| claim \| evidence \| when \|\n\|[- |]+\n((?:\|.*\n)+)", text, flags=re.M)
    found = []
    for line in table.splitlines():
        claim, evidence, when = (cell.strip() for cell in line.strip("|").split(" | "))
        found.append((claim, re.findall(r"`([^`]+)`", evidence), when))
    return found


def functions_of(path: Path) -> dict[str, list[str]]:
    """The test functions of a file -> their decorators, without importing it"""
    functions = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef))
    return {node.name: [ast.unparse(d) for d in node.decorator_list] for node in functions}


def commands_of(script: str) -> str:
    """A script of CI with the marked blocks of the READMEs that it runs"""
    text = (ROOT / script).read_text(encoding="utf-8")
    loops = " ".join(re.findall(r"for part in ([\w -]+); do python3 .ci/readme.py", text)).split()
    named = [*loops, *re.findall(r"python3 .ci/readme.py ([\w-]+)", text)]
    readmes = "\n".join((ROOT / room / "README.md").read_text(encoding="utf-8") for room in (".", "minires", "csrc"))
    blocks = dict(re.findall(r"^<!-- ([\w-]+) -->\n```sh\n(.*?)^```", readmes, flags=re.M | re.S))
    return "\n".join([text, *(blocks[name] for name in named if name in blocks)])


def complaint(evidence: str, when: str) -> str:
    """What is wrong with a piece of evidence; "" if nothing is"""
    if evidence.startswith("tests/"):
        path, _, name = evidence.partition("::")
        if not (ROOT / path).exists():
            return f"{path} is missing"
        found = functions_of(ROOT / path)
        if not any(test.startswith("test_") for test in found) or (name and name not in found):
            return f"{path} has no test {name}"
        slow = any(re.search(r"mark\.(slow|mpi)\b", decorator) for decorator in found.get(name, ()))
        return f"{name} is not run at every change" if slow and when == "every change" else ""
    words = shlex.split(evidence)
    if words[0] == "minires" and (words[1] not in cli.COMMANDS or not cli.parser_of(words[1]).understand(words[2:])):
        return f"{evidence} is no command"
    if words[:2] == ["python", "-m"] and not any(
        (ROOT / words[2].replace(".", "/")).with_suffix(end).exists() for end in ("", ".py")
    ):
        return f"{words[2]} is no module"
    if words[0].startswith(".ci/") and not (ROOT / words[0]).exists():
        return f"{words[0]} is missing"
    script = SCRIPTS.get(when)
    if script is not None and evidence != script and evidence not in commands_of(script):
        return f"{script} does not run {evidence}"
    return ""


@pytest.mark.parametrize(("claim", "evidence", "when"), rows(), ids=[claim for claim, _, _ in rows()])
def test_each_claim_has_evidence_that_exists(claim, evidence, when):
    assert when in WHEN
    assert evidence
    assert not [found for found in (complaint(piece, when) for piece in evidence) if found]


@pytest.mark.parametrize(
    ("evidence", "when"),
    [
        ("tests/none.py::test_x", "long"),
        ("tests/test_trust.py::test_none", "every change"),
        ("tests/training/test_kills.py::test_fifty_kills", "every change"),
        ("minires prove", "by hand"),
        ("python -m tests.none", "by hand"),
        ("minires verify resnet50", "every change"),
        (".ci/none", "long"),
    ],
)
def test_missing_evidence_is_found(evidence, when):
    assert complaint(evidence, when)
