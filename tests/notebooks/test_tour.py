"""The same lines in a notebook and at Python's prompt: the outputs and their length."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs a client of notebooks: pip install 'minires[notebook]'")
nbformat = pytest.importorskip("nbformat", reason="needs notebooks: pip install 'minires[notebook]'")
pytest.importorskip("ipykernel", reason="needs a kernel: pip install 'minires[notebook]'")
pexpect = pytest.importorskip("pexpect", reason="needs a terminal that a program types into; IPython brings it")

TOUR = Path(__file__).with_name("tour.py")


def cells():
    """(is it code, source without the debugger's answers, the answers) of each cell."""
    for head, text in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", TOUR.read_text(encoding="utf-8"), flags=re.M):
        if "markdown" in head:
            yield False, re.sub("^# ?", "", text, flags=re.M).strip(), []
        else:
            answers = re.findall("^# ipdb> (.*)", text, flags=re.M)
            yield True, re.sub("^# ipdb> .*\n?", "", text, flags=re.M).strip(), answers


def as_notebook():
    """The notebook, with the debugger's answers in the cells' metadata."""
    notebook = nbformat.v4.new_notebook()
    for code, source, answers in cells():
        cell = nbformat.v4.new_code_cell(source) if code else nbformat.v4.new_markdown_cell(source)
        cell.metadata["answers"] = answers
        notebook.cells.append(cell)
    return notebook


class Client(nbclient.NotebookClient):
    """Runs a notebook and answers the debugger."""

    async def async_start_new_kernel_client(self):
        client = await super().async_start_new_kernel_client()
        client.allow_stdin = True
        return client

    async def async_execute_cell(self, cell, *arguments, **named):
        answering = asyncio.ensure_future(self._answer(list(cell.metadata.get("answers", ()))))
        try:
            return await super().async_execute_cell(cell, *arguments, **named)
        finally:
            answering.cancel()

    async def _answer(self, answers):
        for answer in answers:
            await self.kc.get_stdin_msg()
            self.kc.input(answer)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The outputs of each code cell, by the last line of its source."""
    notebook, folder = as_notebook(), tmp_path_factory.mktemp("tour")
    Client(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    nbformat.write(notebook, folder / "tour.ipynb")
    assert not any(path.name == "minires-traces" for path in folder.iterdir())
    return {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def result(ran, line):
    """The data of a cell's only output."""
    (output,) = ran[line]
    assert output.output_type == "execute_result"
    return output.data


def test_no_output_is_long_but_the_page(ran):
    for line, outputs in ran.items():
        for output in outputs:
            data = output.get("data", {"text/plain": output.get("text", "")})
            limits = {"text/plain": 15_000, "text/html": 700_000 if "trace" in line else 35_000, "image/png": 40_000}
            for kind, text in data.items():
                assert len(text) < limits[kind], (line, kind, len(text))


def test_the_summary_is_one_table(ran):
    data = result(ran, "mr.summary(model, (3, 32, 32))")
    assert ElementTree.fromstring(data["text/html"]).tag == "table"
    assert data["text/html"].count("<table") == 1


def test_the_trace_is_a_frame(ran):
    data = result(ran, 'mr.inspect.trace(model, x, labels, title="resnet20")')
    assert data["text/html"].count('<iframe sandbox="allow-scripts"') == 1
    assert data["text/plain"].startswith("<trace of resnet20: 74 operations forward, 74 backward, loss ")


def test_both_debuggers_stopped(ran):
    text = "".join(output.text for output in ran["    shape = model(x).shape"] if output.name == "stdout")
    assert "of layer2.0.conv1, forward" in text
    assert "(2, 4, 16, 16)" in text
    assert result(ran, "shape")["text/plain"] == "(2, 10)"
    assert (
        "(2, 3, 16, 16)" in ran["F.cross_entropy(small(mr.tensor(x, requires_grad=True)), labels).backward()"][-1].text
    )


def test_arrays_and_pictures(ran):
    assert result(ran, "weight.grad.shape")["text/plain"] == "(4, 3, 3, 3)"
    (output,) = ran["picture = plt.imshow(x[0, 0])"]
    assert "image/png" in output.data


def test_own_parts_and_results(ran):
    assert "(conv): Conv2d(3, 4, " in result(ran, "small")["text/plain"]
    assert result(ran, "Counting.calls")["text/plain"] == "19"
    for line in ('mr.training.restore("run")', 'mr.weights.load("run")'):
        text = result(ran, line)["text/plain"]
        assert "resnet20" in text
        assert len(text.splitlines()) <= 5


def test_the_same_lines_at_the_prompt(tmp_path):
    """Python's own prompt: text alone, and pdb in place of IPython's debugger."""
    typed = []
    for code, source, answers in cells():
        if code:
            lines = source.splitlines()
            for statement in ast.parse(source).body:
                first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
                block = [line for line in lines[first - 1 : statement.end_lineno] if line.strip()]
                typed += [*block, ""] if len(block) > 1 else block
            typed += answers
    (tmp_path / "inputrc").write_text("set enable-bracketed-paste off\n")
    environment = os.environ | {"MPLBACKEND": "agg", "TERM": "vt100", "INPUTRC": "inputrc", "PYTHON_BASIC_REPL": "1"}
    terminal = {"dimensions": (50, 160), "echo": False, "encoding": "utf-8"}
    shown = []
    with pexpect.spawn(sys.executable, ["-q"], cwd=tmp_path, env=environment, **terminal) as prompt:
        for line in [*typed, "print('the end')"]:
            prompt.expect_exact([">>> ", "... ", "(Pdb) "], timeout=120)
            shown.append(prompt.before)
            prompt.sendline(line)
        prompt.expect_exact(">>> ", timeout=120)
    text = "".join([*shown, prompt.before]).replace("\r\n", "\n")
    assert "Error" not in text
    assert len(text) < 30_000
    assert "│ layer3.2.conv2" in text  # the layer table
    assert "<trace of resnet20: 74 operations forward" in text
    assert re.search(r"conv2d\.py\(\d+\)forward\(\)", text)
    assert "\n(2, 4, 16, 16)\n" in text
    assert "\n19\n" in text
    assert text.endswith("the end\n")
