"""The paper's page: everything is in its place, lines are exact, verdicts follow from what was computed."""

from __future__ import annotations

import csv
import html
import inspect
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from usage import error_line

import minires as mr
from minires import ops
from minires.inspect.sources import HOME, formulas, reference_functions
from minires.paper import gradients, items, published
from minires.paper.page import claims, derivations, outline, page, rendering
from minires.paper.page.claims import CLAIMS
from minires.paper.page.diagrams import diagram
from minires.paper.page.evidence import Evidence, Result
from minires.paper.page.rendering import find

OPERATIONS = [getattr(ops, name) for name in ops.__all__]


@pytest.fixture(scope="module")
def shown():
    """(the evidence, the page); gradients of one depth, as the deeper networks take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "DEPTHS", (20,))
        found = Evidence()
        yield found, page(found)


def blocks(kind):
    """Every block of the outline of a class."""
    for section in outline.SECTIONS:
        for part in section.parts:
            yield from (block for block in (*part.left, *part.right) if isinstance(block, kind))


class Page(HTMLParser):
    """The page's ids, its attributes that could load something, and the text of each numbered line."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.loads, self.tags, self.lines, self.open = [], [], set(), {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "data", "action", "poster")]
        self.loads += [found["href"]] if "href" in found and tag != "a" else []
        if tag == "span" and found.get("class") == "line" and "id" in found:
            self.open = found["id"]
            self.lines[self.open] = ""

    def handle_data(self, data):
        if self.open:
            self.lines[self.open] += data
            if data.endswith("\n"):
                self.open = None


@pytest.fixture(scope="module")
def parsed(shown):
    return Page(shown[1])


def test_sections_equations_figures_and_tables_are_in_their_place(parsed):
    wanted = [f"section-{s.number}" for s in outline.SECTIONS]
    wanted += ["equation-1", "equation-2"]
    wanted += [f"figure-{n}" for n in range(1, 8)] + [f"table-{n}" for n in range(1, 15)]
    assert sorted(set(parsed.ids)) == sorted(parsed.ids)
    assert set(wanted) <= set(parsed.ids)
    numbers = [s.number for s in outline.SECTIONS]
    assert numbers == ["0", "1", "2", *(f"3.{i}" for i in range(1, 5)), "4.1", "4.2", "4.3", "A", "B", "C"]
    order = [parsed.ids.index(name) for name in (*wanted[-14:],)]
    assert order[:5] == sorted(order[:5])  # tables 1 to 5 follow one another in section 4.1


def test_lines_are_those_of_the_files(parsed):
    files = {}
    assert len(parsed.lines) > 500
    for anchor, text in parsed.lines.items():
        file, _, number = anchor.rpartition("-")
        lines = files.setdefault(file, (HOME / file).read_text(encoding="utf-8").split("\n"))
        assert text.removeprefix(number).strip() == lines[int(number) - 1].strip(), anchor


def test_every_target_and_operation_has_its_anchors(parsed):
    things = [find(target) for block in blocks(outline.Code) for target in block.targets]
    for block in blocks(outline.Operation):
        cls = getattr(ops, block.name)
        assert f"operation-{block.name}" in parsed.ids
        things += [
            cls.forward,
            cls.backward,
            *reference_functions(cls, "forward"),
            *reference_functions(cls, "backward"),
        ]
    for thing in things:
        lines, first = inspect.getsourcelines(inspect.unwrap(thing))
        file = Path(inspect.getfile(thing)).relative_to(HOME).as_posix()
        assert {f"{file}-{number}" for number in range(first, first + len(lines))} <= set(parsed.ids), thing


def test_forward_is_above_backward(shown):
    for block in blocks(outline.Operation):
        box = shown[1].split(f'id="operation-{block.name}"')[1]
        assert box.index("forward-code") < box.index("backward-code")


def test_the_page_loads_nothing(shown, parsed):
    text = shown[1]
    assert len(text.encode()) < 10 * 2**20
    assert all(value.startswith("data:") for value in parsed.loads)
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|https?://", re.sub(r"data:[^\"]*", "", text))


def test_the_derivations_cover_every_operation_of_the_page_and_of_the_networks(shown):
    on_page = {block.name for block in blocks(outline.Operation)}
    ran = {e.operation for trace in (shown[0].basic, shown[0].bottleneck, shown[0].stem) for e in trace.events}
    assert ran <= on_page
    for name in on_page:
        assert 5 <= len(derivations.steps(name)) <= 10, name
        assert formulas(getattr(ops, name))[1], name
    assert set(derivations.STEPS) <= set(ops.__all__)


@pytest.mark.parametrize("cls", OPERATIONS, ids=lambda cls: cls.__name__)
def test_every_docstring_has_the_formula_of_each_gradient(cls):
    document = inspect.getdoc(cls)
    for name in list(inspect.signature(cls.forward).parameters)[1:]:
        assert re.search(rf"∂{name}(_i)?\b", document), name
    assert re.search(r"^y\b|^y_i|^y\[", document)


def test_every_claim_is_on_the_page_once_with_its_verdict(shown):
    found, text = shown
    named = [name for block in blocks(outline.Judged) for name in block.names]
    assert sorted(named) == sorted(claim.name for claim in CLAIMS)
    for claim in CLAIMS:
        verdict = claim.verdict(found)
        assert verdict.status == ("not run" if claim.judge is None else verdict.status)
        box = text.split(f'id="claim-{claim.name}"')[1].split('<div class="claim"')[0]
        assert f">{verdict.status}<" in box
        assert html.escape(verdict.found) in box
        assert all(html.escape(command) in box for command in claim.commands)
    statuses = [claim.verdict(found).status for claim in CLAIMS]
    assert "fails" not in statuses
    assert {claim.name for claim in CLAIMS if claim.verdict(found).status == "not run"} == {
        *("degradation", "plain-34", "responses"),  # these need training runs
        *("options-error", "errors", "cifar-errors", "overfitting", "detection"),
    }


def test_commands_are_commands(call):
    commands = {command for claim in CLAIMS for command in claim.commands}
    for command in commands:
        program, *words = command.split()
        assert program == "minires"
        code, out, _ = call(*words, "--help")
        assert code == 0, command
        for flag in [word for word in words if word.startswith("--")]:
            assert flag in out, command


def test_the_debuggers_places_exist():
    for name, (network, place) in outline.PLACES.items():
        assert hasattr(ops, name)
        paths = [path for path, _ in mr.models.create(network.split()[0]).named_modules()]
        assert place == "" or place in paths
    assert set(outline.PLACES) == {block.name for block in blocks(outline.Operation)}


STOP = re.compile(r"debugger: <code>minires (step [^<]*)</code>(?:, then <code>c</code> until stop (\d+))?")


@pytest.mark.parametrize("name", ["Add", "Conv2d", "MaxPool2d", "Slice", "Pad"])
def test_the_debugger_stops_at_the_recorded_call(shown, call, monkeypatch, name):
    """The card of the stop has the statistics of the page's arrays."""
    body = rendering._Body(shown[0])
    _, events = body.recorded(name)
    assert [event.phase for event in events] == ["forward", "backward"]
    for event in events:
        ((command, nth),) = STOP.findall(body.stop(name, event.phase))
        monkeypatch.setenv("PYTHONBREAKPOINT", "0")
        code, out, _ = call(*shlex.split(html.unescape(command)), "--times", nth or "1")
        assert code == 0
        heads = list(re.finditer(r"^(\w+)\(.*\) of (\S+), (\w+)$", out, re.M))
        assert heads[-1].groups() == (name, event.module, event.phase)
        assert len(heads) == int(nth or 1)
        assert str(event.arrays[0].statistics) in out[heads[-1].start() :]


def test_the_claims_commands_show_their_claims(call):
    """The numbers of the verdict stand in the output of the claim's commands."""
    found = Evidence()
    for name in ("free-identity", "equal-stages", "below-vgg", "options"):
        claim = claims.BY_NAME[name]
        out = "".join(call(*command.split()[1:])[1] for command in claim.commands)
        numbers = re.findall(r"\d[\d,]{6,}\d", claim.verdict(found).found)
        assert numbers
        assert all(number in out for number in numbers), name


def test_a_norm_of_the_diagram_stands_at_its_own_arrow(shown):
    """F's part on F's arrow, the shortcut's part at the shortcut, their sum beside x."""
    recorded = shown[0].basic
    text = html.unescape(diagram(recorded, "layer1.1"))
    joined = next(e for e in recorded.events if e.joins and e.module == "layer1.0.relu")
    through, along = sorted(joined.joins, key=lambda join: join.source == recorded_add(recorded))
    y = {label: float(at) for at, label in re.findall(r'<text x="[\d.]+" y="([\d.]+)"[^>]*>([^<]*)<', text)}
    assert f"‖g‖ = {through.view.statistics.norm:.3g}" in y
    assert f"‖g‖ = {along.view.statistics.norm:.3g}" in y
    assert y[f"sum at x: ‖g‖ = {joined.arrays[0].statistics.norm:.3g}"] < y[f"‖g‖ = {through.view.statistics.norm:.3g}"]


def recorded_add(recorded):
    return next(e.number for e in recorded.events if e.operation == "Add" and e.module == "layer1.1")


def test_exercises_exist():
    named = {name for names in outline.EXERCISES.values() for name in names}
    assert named <= set(mr.exercises.names())


# -- wrong evidence gives another verdict


def verdict(name, found=None):
    return claims.BY_NAME[name].verdict(found or Evidence())


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("flops", "minires.paper.published.FLOPS", published.FLOPS | {"resnet50": 4.1}),
        ("parameters", "minires.paper.published.CIFAR_PARAMETERS", published.CIFAR_PARAMETERS | {"resnet56": 0.86}),
        ("layers", "minires.paper.published.CIFAR_PARAMETERS", {"resnet18": 11.7}),
        ("he-init", "minires.nn.init.he_normal", lambda shape: np.random.default_rng(0).normal(0, 0.03, shape)),
        ("projection-cost", "minires.paper.page.claims.conv1x1", lambda c, o: mr.nn.Conv2d(c, 2 * o, 1, bias=False)),
        ("bottleneck-cost", "minires.paper.page.claims.Bottleneck", lambda c, w: mr.models.Bottleneck(c, 2 * w)),
    ],
)
def test_another_number_fails_the_claim(monkeypatch, name, place, value):
    assert verdict(name).status == "holds"
    monkeypatch.setattr(place, value)
    assert verdict(name).status == "fails"


def test_a_scaled_shortcut_fails_its_claims(monkeypatch):
    sound = ops.Add.backward
    monkeypatch.setattr(ops.Add, "backward", lambda node, g: (sound(node, g)[0], 0.5 * sound(node, g)[1]))
    assert verdict("gradient-path").status == "fails"
    monkeypatch.setattr(ops.ReLU, "forward", lambda node, x: 0.5 * x)
    assert verdict("construction").status == "fails"


def test_small_gradients_near_the_input_fail_the_claim():
    found = Evidence()
    head, lines = ["network", "second", "last"], [["plain-20, with batch norm", "0.01", "0.3"]]
    found.computed["gradients"] = Result("gradients", "", head, lines, [], True, "made")
    assert verdict("no-vanishing", found).status == "fails"
    found.computed["gradients"] = Result("gradients", "", head, [], [], True, "made")
    assert verdict("no-vanishing", found).status == "fails"


def trained(notes, lines=(), name="figure1", title="An analogue of Figure 1"):
    found = Evidence()
    found.read[name] = Result(name, title, ["network"], lines, notes, True, "made")
    return found


def test_figures_of_training_runs_decide_by_their_notes():
    assert verdict("degradation", trained(["holds: a", "a remark"])) == claims.Verdict("holds", "holds: a", True)
    assert verdict("degradation", trained(["holds: a", "FAILS: b"])).status == "fails"
    assert verdict("degradation", trained(["a remark"])).status == "fails"
    assert not verdict("degradation", trained(["holds: a"], title="Figure 1 on CIFAR-10")).analogue


def test_responses_decide_only_if_the_networks_were_trained():
    means = {"plain20": 1.0, "plain56": 1.0, "resnet20": 0.5, "resnet56": 0.3}

    def figure7(changed, note):
        lines = [[name, "19", str(mean), "0", "2"] for name, mean in (means | changed).items()]
        return trained([note], lines, "figure7", "Figure 7")

    note = "trained on fashion-mnist; the paper's on CIFAR-10"
    assert verdict("responses", figure7({}, note)).status == "holds"
    assert verdict("responses", figure7({}, note)).analogue
    assert verdict("responses", figure7({"resnet56": 0.6}, note)).status == "fails"
    assert verdict("responses", figure7({"resnet56": float("nan")}, note)).status == "fails"
    assert verdict("responses", figure7({}, "At initialisation")).status == "not run"


# -- the command


def test_results_of_a_folder_are_shown_with_their_verdict(tmp_path):
    results = {"name": "figure1", "title": "An analogue", "head": ["network"], "lines": [["plain20"]]}
    results |= {"notes": ["holds: <claim>"], "reproduced": True, "files": ["elsewhere/figure1.png"]}
    (tmp_path / "figure1.json").write_text(json.dumps(results))
    (tmp_path / "figure1.png").write_bytes(b"picture")
    body = rendering._Body(Evidence(tmp_path))
    shown = body.result(outline.FIGURE_1)
    assert "holds: &lt;claim&gt;" in shown
    assert ">holds<" in shown
    assert ">an analogue only<" in shown
    assert "data:image/png;base64,cGljdHVyZQ==" in shown
    assert ">not run<" in body.result(outline.FIGURE_4)


def test_the_command_writes_the_page(call, tmp_path, monkeypatch):
    monkeypatch.setattr("minires.cli.paper.page", lambda evidence: f"<html>{evidence.read}</html>")
    code, out, _ = call("paper", "page", "--out", tmp_path / "new" / "paper.html")
    assert (code, out.strip()) == (0, str(tmp_path / "new" / "paper.html"))
    assert (tmp_path / "new" / "paper.html").read_text() == "<html>{}</html>"


def test_a_missing_result_names_its_commands_and_a_table_has_no_second_picture():
    body = rendering._Body(Evidence())
    missing = body.result(outline.FIGURE_7)
    assert "minires paper all --quick --out build" in missing
    assert "minires paper page --results build" in missing
    body.evidence.read["table1"] = Result("table1", "", ["a"], [["b"]], [], True, "made", ["data:image/png;base64,"])
    assert "<img" not in body.result(outline.TABLE_1)


def test_results_of_an_item_are_read_back(call, tmp_path, monkeypatch):
    monkeypatch.setattr(items.drawing, "picture", lambda drawings, kind: b"a picture")
    code, _, _ = call("paper", "figure3", "--out", tmp_path)
    assert code == 0
    found = Evidence(tmp_path).result("figure3")
    table = list(csv.reader((tmp_path / "figure3.csv").read_text(encoding="utf-8").splitlines()))
    assert [found.head, *found.lines] == table
    assert found.origin == "figure3.json"
    assert found.pictures == ["data:image/svg+xml;base64,YSBwaWN0dXJl"]


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 1}', '{"name": "figure3", "files": ["../../x.png"]}'])
def test_broken_results_are_an_error(call, tmp_path, text):
    (tmp_path / "figure3.json").write_text(text)
    code, _, err = call("paper", "page", "--results", tmp_path, "--out", tmp_path / "paper.html")
    assert (code, "--results: " in error_line(err), "figure3.json" in err) == (2, True, True)


def test_a_folder_without_results_is_an_error(call, tmp_path):
    code, _, err = call("paper", "page", "--results", tmp_path, "--out", tmp_path / "paper.html")
    assert (code, "holds no result" in error_line(err)) == (2, True)
    code, _, err = call("paper", "page", "--out", tmp_path)
    assert (code, "--out must be a file" in error_line(err)) == (2, True)


# -- in Chromium


@pytest.mark.parametrize("width", [1400, 800])
def test_chromium_loads_the_page_at_once(shown, tmp_path, width):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'minires[browser]'")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        (tmp_path / "paper.html").write_text(shown[1], encoding="utf-8")
        timing, times = "return performance.getEntriesByType('navigation')[0].loadEventEnd", []
        for _ in range(3):  # other programs use the processors too
            chromium.get((tmp_path / "paper.html").as_uri())
            times.append(chromium.execute_script(timing))
        assert 0 < min(times) < 2000  # ms
        assert chromium.get_log("browser") == []
        assert chromium.execute_script(
            "return performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))"
        )
        wide = chromium.execute_script("return document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0
        hidden = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert chromium.execute_script(hidden) == 0
        folded = "return [...document.querySelectorAll('details.maths')].map(d => d.open)"
        assert not any(chromium.execute_script(folded))
    finally:
        chromium.quit()
