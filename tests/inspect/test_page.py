"""The page in a real browser: Chromium without a window."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import cli
from minires.inspect.tracing import notebook
from minires.inspect.tracing.page import page

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'minires[browser]'")
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402  (where selenium is)

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    pytest.skip("needs Chromium and its driver: apt install chromium chromium-driver", allow_module_level=True)

PARAMETER = "layer2.0.conv2.weight"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1600,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The page's file, the trace, and the norm of a parameter's gradient from the engine."""
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    trace = mr.inspect.trace(model, x, np.array([1, 2]), title="resnet20")
    path = trace.save(tmp_path_factory.mktemp("page") / "trace.html")
    model.zero_grad()
    F.cross_entropy(model(mr.tensor(x)), np.array([1, 2])).backward()
    grad = dict(model.named_parameters())[PARAMETER].grad
    return path, trace, float(np.linalg.norm(grad.astype(np.float64)))


def opened(browser, path, fragment=""):
    browser.get("about:blank")
    browser.get(f"{path.as_uri()}{fragment}")
    return browser


def complaints(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def head(browser):
    return browser.execute_script("return document.querySelector('.card h2').textContent")


def press(browser, key):
    script = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
    browser.execute_script(script, key)


def test_the_scrubber_visits_every_node(browser, recorded):
    path, trace, _ = recorded
    opened(browser, path)
    for number, event in enumerate(trace.events):
        of = f" of {event.module}" if event.module else ""
        assert head(browser) == f"{event.operation}{of} · {event.phase}", number
        shown = browser.execute_script(
            "return [document.querySelectorAll('.op.now').length, document.querySelectorAll('.array').length,"
            " document.querySelectorAll('.source .on').length,"
            " Number(document.querySelector('input[type=range]').value)]"
        )
        views = len(event.arrays) + len(event.results) + len(event.joins)
        assert shown[:2] == [1, views]
        assert shown[2] >= 1
        assert shown[3] == number
        press(browser, "ArrowRight")
    assert complaints(browser) == []


def test_the_gradient_shown_is_the_engines(browser, recorded):
    path, trace, norm = recorded
    (event,) = (e for e in trace.events if e.phase == "backward" and any(v.leaf == PARAMETER for v in e.results))
    opened(browser, path, f"#0/backward/{event.number}")
    shown = browser.execute_script(
        "const box = document.querySelector(`.array[data-leaf='${arguments[0]}'][data-name='∂weight']`);"
        "const cells = [...box.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent));"
        "return Object.fromEntries(cells)",
        PARAMETER,
    )
    assert float(shown["norm"]) == pytest.approx(norm, rel=1e-3)  # four digits are shown


def test_the_page_explains_its_times(browser, recorded):
    path, trace, _ = recorded
    opened(browser, path)
    facts = browser.execute_script("return document.querySelector('.facts').textContent")
    assert facts.startswith(f"time (median of {trace.runs} warm runs) ")
    titles = browser.execute_script("return [...document.querySelectorAll('.chart h3')].map(h => h.textContent)")
    assert any(t.startswith(f"time of a layer (ms, median of {trace.runs} warm runs; ") for t in titles)


def test_keys_search_and_fragments(browser, recorded):
    path, _, _ = recorded
    opened(browser, path, "#layer3.1.conv2")
    assert head(browser) == "Conv2d of layer3.1.conv2 · forward"
    press(browser, "b")
    assert head(browser) == "Conv2d of layer3.1.conv2 · backward"
    assert browser.current_url.split("#")[1].startswith("0/backward/")
    press(browser, "Home")
    assert head(browser) == "Conv2d of conv1 · forward"
    press(browser, "End")
    assert head(browser) == "Conv2d of conv1 · backward"
    field = browser.find_element("css selector", ".search")
    field.send_keys("layer1.2.bn1\n")
    assert head(browser).startswith("BatchNorm of layer1.2.bn1")
    block = browser.execute_script(
        "return document.querySelector('.op.now').closest('.block').classList.contains('open')"
    )
    assert block
    assert complaints(browser) == []


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A page of convolutions with strides, both kinds of pooling, shortcuts and a classifier, and its trace."""
    mr.manual_seed(0)
    model = mr.models.create("resnet18", width=4, num_classes=10)
    x = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32), requires_grad=True)
    trace = mr.inspect.trace(model, x, np.array([1, 2]), title="resnet18")
    return trace.save(tmp_path_factory.mktemp("explained") / "trace.html"), trace


TOTAL = """
const panel = panels[0];
panel.go(arguments[0]);
const found = explanation(panel, panel.events[panel.at], arguments[1], arguments[2]);
return [found.total, found.recorded, found.terms.length, found.rule];
"""


def test_the_page_explains_as_explain_does(browser, explained):
    path, trace = explained
    opened(browser, path)
    rng, seen = np.random.default_rng(0), set()
    for at, event in enumerate(trace.events):
        call = event.call
        if event.phase == "forward":
            wanted = [("output", call.output)]
        else:
            wanted = [(f"∂{of}", grad) for of, grad in call.grads.items() if of in ("x", "other")]
        for name, array in wanted:
            index = (0, *(int(rng.integers(n)) for n in array.shape[1:]))
            which = {"output": index} if name == "output" else {"gradient": index, "of": name[1:]}
            try:
                expected = mr.inspect.explain(call, **which)
            except TypeError:  # such as CrossEntropy
                continue
            total, recorded, count, rule = browser.execute_script(TOTAL, at, name, list(index))
            assert recorded == expected.recorded, (event, name, index)
            scale = sum(abs(term.value) for term in expected.terms)
            assert abs(total - expected.total) <= 1e-12 * scale + 1e-30, (event, name, index)
            assert count == len(expected.terms)
            assert re.split("[,:;]", rule)[0] == re.split("[,:;]", expected.rule)[0]  # numbers follow
            seen.add((event.operation, event.phase))
    operations = ("Conv2d", "BatchNorm", "ReLU", "Add", "Linear", "MaxPool2d", "AdaptiveAvgPool2d")
    assert seen == {(name, phase) for name in operations for phase in ("forward", "backward")}
    assert complaints(browser) == []


def test_a_click_on_a_picture_shows_what_the_number_was_made_of(browser, explained):
    path, trace = explained
    opened(browser, path, "#layer1.0.conv1")
    image = browser.find_element("css selector", ".array[data-name=output] img")
    script = (
        "const image = arguments[0], box = image.getBoundingClientRect();"
        "const x = box.x + arguments[1] * box.width, y = box.y + arguments[2] * box.height;"
        "const place = {clientX: x, clientY: y, bubbles: true};"
        "image.dispatchEvent(new MouseEvent('mousemove', place));"
        "image.dispatchEvent(new MouseEvent('click', place)); return image.title"
    )
    title = browser.execute_script(script, image, 0.1, 0.1)  # 16×16 maps, two across: the first
    assert title.startswith("[0,0,3,3] = ")
    (event,) = (e for e in trace.events if e.module == "layer1.0.conv1" and e.phase == "forward")
    assert float(title.split(" = ")[1]) == pytest.approx(float(event.call.output[0, 0, 3, 3]), rel=1e-8)
    shown = browser.execute_script("return document.querySelector('.explain').textContent")
    assert "output[0,0,3,3] of Conv2d of layer1.0.conv1" in shown
    assert "x[0,0,2,2] · weight[0,0,0,0]" in shown
    here = browser.execute_script("return document.querySelector('.explain td.here').title")
    assert here == title
    browser.execute_script("document.querySelector('.explain td.here').nextElementSibling.click()")
    assert "output[0,0,3,4]" in browser.execute_script("return document.querySelector('.explain').textContent")
    assert complaints(browser) == []


EXPLAINED = """
const [at, name, index] = arguments, panel = panels[0];
panel.go(at);
panel.explain(name, index);
return document.querySelector(".explain").textContent;
"""


def test_an_input_is_not_explained_but_traced_to_its_operation(browser, explained):
    path, trace = explained
    opened(browser, path)
    seen = set()
    for at, event in enumerate(trace.events):
        if event.call is None or event.operation == "CrossEntropy":
            continue
        name, array = (
            ("x", event.call.inputs["x"]) if event.phase == "forward" else ("grad_output", event.call.grad_output)
        )
        if name == "grad_output" and array.ndim not in (2, 4):
            continue
        text = browser.execute_script(EXPLAINED, at, name, [0] * array.ndim)
        if name in text:
            assert "recorded" not in text, (event, name)
            seen.add((event.operation, event.phase))
    assert {
        (name, phase) for name in ("Conv2d", "BatchNorm", "ReLU", "Add") for phase in ("forward", "backward")
    } <= seen
    (at,) = (i for i, e in enumerate(trace.events) if e.module == "layer1.0.bn1" and e.phase == "forward")
    text = browser.execute_script(EXPLAINED, at, "x", [0, 0, 3, 3])
    assert text.endswith("Made by Conv2d of layer1.0.conv1, its output")
    browser.execute_script("document.querySelector('.explain p button').click()")
    assert head(browser) == "Conv2d of layer1.0.conv1 · forward"
    assert "output[0,0,3,3]" in browser.execute_script("return document.querySelector('.explain').textContent")
    (at,) = (i for i, e in enumerate(trace.events) if e.module == "layer1.0.bn1" and e.phase == "backward")
    text = browser.execute_script(EXPLAINED, at, "grad_output", [0, 0, 3, 3])
    assert text.endswith("Made by ReLU of layer1.0.relu, its ∂x")
    at = next(i for i, e in enumerate(trace.events) if e.joins)
    text = browser.execute_script(EXPLAINED, at, "grad_output", [0] * trace.events[at].call.grad_output.ndim)
    assert text.endswith("It is the sum of the gradients above.")
    assert complaints(browser) == []


def test_a_node_has_the_command_of_its_debugger(browser, tmp_path, capsys):
    path = tmp_path / "trace.html"
    assert cli.main(["trace", "resnet20", "--width", "4", "--index", "3", "--out", str(path)]) == 0
    opened(browser, path, "#layer2.0.conv1")
    command = "return document.querySelector('.command').textContent"
    begin = "debugger here: minires step resnet20 --index 3 --width 4"
    assert browser.execute_script(command) == f"{begin} --at layer2.0.conv1 --when forward"
    opened(browser, path, "#layer2.0.relu")
    press(browser, "b")
    shown = browser.execute_script(command)
    assert shown == f"{begin} --at layer2.0.relu --when backward then c once: it is stop 2 there"
    opened(browser, path, "#layer2.0")  # the skip-add; its module holds others
    assert browser.execute_script(command) == f"{begin} --at 'layer2.[0]' --when forward"
    capsys.readouterr()


def test_the_source_has_the_numpy_code_beside_it(browser, recorded):
    opened(browser, recorded[0], "#layer2.0.conv1")
    names = "return [...document.querySelectorAll('.source .file')].map(f => f.textContent)"
    reference = "the NumPy code: minires/backends/reference/conv2d.py"
    assert browser.execute_script(names) == ["minires/ops/conv2d.py", reference]
    press(browser, "b")
    assert browser.execute_script(names) == ["minires/ops/conv2d.py"] + [reference] * 3
    assert "def conv2d_backward_input(" in browser.execute_script(
        "return document.querySelector('.source').textContent"
    )


@pytest.mark.parametrize("width", [1400, 1300])
def test_gradients_that_add_up_stand_side_by_side(browser, recorded, width):
    path, trace, _ = recorded
    browser.set_window_size(width, 1000)
    try:
        for event in (e for e in trace.events if e.joins):
            opened(browser, path, f"#0/backward/{event.number}")
            tops, overflow = browser.execute_script(
                "const row = document.querySelector('.row.sum'), all = document.querySelector('.arrays');"
                "return [[...row.querySelectorAll('.array')].map(a => a.getBoundingClientRect().top),"
                " all.scrollWidth - all.clientWidth]"
            )
            assert len(tops) == 2
            assert tops[0] == tops[1]
            assert overflow <= 0
    finally:
        browser.set_window_size(1600, 1000)


def test_shortcuts_are_arcs_dotted_where_dimensions_increase(browser, recorded):
    opened(browser, recorded[0])
    dashes = browser.execute_script(
        "const arcs = [...document.querySelectorAll('.block > svg:first-of-type path')];"
        "return arcs.map(path => path.hasAttribute('stroke-dasharray'))"
    )
    assert dashes == [False, False, False, True, False, False, True, False, False]


def test_two_traces_side_by_side(browser, recorded, tmp_path):
    traces = []
    for name in ("plain20", "resnet20"):
        mr.manual_seed(0)
        model = mr.models.create(name, width=2)
        x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
        traces.append(mr.inspect.trace(model, x, np.array([1, 2]), title=name))
    path = tmp_path / "two.html"
    path.write_text(page([trace.content() for trace in traces]), encoding="utf-8")
    opened(browser, path, "#1/backward/3")

    def heads():
        return browser.execute_script("return [...document.querySelectorAll('.card h2')].map(h => h.textContent)")

    assert heads() == ["Conv2d of layer1.0.conv1 · backward"] * 2  # both panes move
    opened(browser, path, "#0/forward/0")
    assert heads() == ["Conv2d of conv1 · forward"] * 2
    add = next(event.number for event in traces[1].events if event.operation == "Add")
    opened(browser, path, f"#1/forward/{add}")
    assert heads()[1] == "Add of layer1.0 · forward"  # the plain network has no skip-add: its pane stays
    assert browser.execute_script("return document.querySelectorAll('.chart').length") == 4
    assert complaints(browser) == []


@pytest.mark.parametrize("largest", [2**21, 2**10])
def test_a_notebook_shows_the_page_in_a_frame_that_works(browser, recorded, tmp_path, monkeypatch, largest):
    """In the notebook's file, and as a file beside it; its scripts run, but cannot read the notebook."""
    _, trace, _ = recorded
    monkeypatch.setattr(notebook, "LARGEST", largest)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{trace._repr_html_()}", "utf-8")
    opened(browser, tmp_path / "notebook.html")
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    assert head(browser) == "Conv2d of conv1 · forward"
    press(browser, "ArrowRight")
    assert head(browser) == "BatchNorm of bn1 · forward"
    assert browser.execute_script("return self.origin") == "null"
    seen = browser.execute_script("try { return parent.document.title } catch (error) { return error.name }")
    assert seen == "SecurityError"
    browser.switch_to.default_content()
    assert complaints(browser) == []


def test_a_frame_that_was_hidden_is_laid_out_when_it_is_shown(browser, recorded, tmp_path):
    _, trace, _ = recorded
    hidden = f"<!doctype html><meta charset=utf-8><div style='display:none'>{trace._repr_html_()}</div>"
    (tmp_path / "hidden.html").write_text(hidden, "utf-8")
    opened(browser, tmp_path / "hidden.html")
    browser.execute_script("document.querySelector('div').style.display = 'block'")
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    arc = "return parseFloat(document.querySelector('.block > svg').style.height)"
    WebDriverWait(browser, 30).until(lambda browser: browser.execute_script(arc) > 0)  # -24 while it was hidden
    assert browser.execute_script("return document.querySelector('.source').scrollTop") > 0
    browser.switch_to.default_content()


def test_resnet50_at_224_is_small_and_loads_at_once(browser, tmp_path):
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    path = mr.inspect.trace(mr.models.create("resnet50"), x, np.array([3])).save(tmp_path / "resnet50.html")
    assert path.stat().st_size < 10 * 2**20
    opened(browser, path)
    loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded < 2000  # ms; some 150 on an idle machine
    assert complaints(browser) == []
