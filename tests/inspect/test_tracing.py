"""Traces: events, times, pages, timelines, graphs, and the command."""

from __future__ import annotations

import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from usage import error_line

import minires as mr
import minires.functional as F
from minires import cli
from minires.inspect.tracing import Trace, notebook, pictures, tracer
from minires.inspect.tracing.tracer import Tracer


@pytest.fixture
def subject(rng):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    return model, rng.standard_normal((2, 3, 8, 8)).astype(np.float32), np.array([1, 2])


def content_of(trace):
    """The JSON in the page."""
    text = re.search(r'<script type="application/json" id="traces">(.*?)</script>', trace.page(), re.S)[1]
    return json.loads(text)


def test_events_go_to_the_loss_and_back(subject):
    model, x, labels = subject
    trace = mr.inspect.trace(model, x, labels)
    half = len(trace.events) // 2
    assert [e.phase for e in trace.events] == ["forward"] * half + ["backward"] * half
    assert [e.number for e in trace.events] == [*range(half), *range(half)[::-1]]
    assert trace.events[half - 1].operation == "CrossEntropy"
    assert trace.events[0].module == "conv1"
    assert trace.loss == pytest.approx(trace.events[half - 1].results[0].statistics.mean)
    assert trace.events[0].macs == 2 * 8 * 8 * 4 * 27
    assert sum(e.params for e in trace.events) == sum(p.size for p in model.parameters())


def test_gradients_are_the_engines(subject):
    model, x, labels = subject
    trace = mr.inspect.trace(model, x, labels)
    shown = {v.leaf: v.statistics for e in trace.events if e.phase == "backward" for v in e.results if v.leaf}
    model.zero_grad()
    F.cross_entropy(model(mr.tensor(x)), labels).backward()
    assert set(shown) == {name for name, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        assert shown[name].norm == pytest.approx(np.linalg.norm(p.grad.astype(np.float64)), rel=1e-6), name


def test_gradients_join_where_shortcuts_do(subject):
    model, x, labels = subject
    trace = mr.inspect.trace(model, x, labels)
    forward = {e.number: e for e in trace.events if e.phase == "forward"}
    joins = [e for e in trace.events if e.joins]
    blocks = [f"layer{stage}.{block}.relu" for stage in (3, 2, 1) for block in (2, 1, 0)]
    assert [e.module for e in joins] == [*blocks[1:], "relu"]  # whatever feeds a block has two users
    for event in joins:
        sources = {forward[join.source].operation for join in event.joins}
        assert sources in ({"Add", "Conv2d"}, {"Slice", "Conv2d"})
        total = sum(join.view.statistics.mean for join in event.joins)
        assert total == pytest.approx(event.arrays[0].statistics.mean, rel=1e-3, abs=1e-9)


def test_memory_rises_to_the_loss_and_falls_to_nothing(subject):
    trace = mr.inspect.trace(*subject)
    half = len(trace.events) // 2
    alive = [e.alive for e in trace.events]
    assert alive[:half] == sorted(alive[:half])
    assert alive[half:] == sorted(alive[half:], reverse=True)
    assert alive[-1] == 0
    # The weights, which backward needs as well, are not counted; the table of layers counts alike.
    model, x, _ = subject
    assert max(alive) == pytest.approx(2 * mr.summary(model, x.shape[1:]).kept_bytes, rel=0.05)


class Clock:
    """Replaces `time` for five runs of eight readings; within a run all readings are equally spaced."""

    def __init__(self, ticks):
        now, self.calls = 0.0, [0.0]
        for number, tick in enumerate(ticks):
            self.calls += [now] * (number > 0)  # whether there is time for another run
            for _ in range(8):
                now += tick
                self.calls.append(now)

    def perf_counter(self):
        return self.calls.pop(0)


@pytest.mark.parametrize(
    ("ticks", "runs", "seconds"), [((0.009, 0.001, 0.002, 0.001, 0.05), 5, 0.002), ((1.5, 0.5, 0.5), 1, 1.5)]
)
def test_times_are_medians_of_warm_runs(rng, monkeypatch, ticks, runs, seconds):
    monkeypatch.setattr(tracer, "time", Clock(ticks))
    trace = mr.inspect.trace(mr.nn.Linear(4, 3), rng.standard_normal((2, 4)).astype(np.float32), np.array([1, 2]))
    assert trace.runs == runs  # no more than begin within ten seconds
    assert [e.seconds for e in trace.events] == pytest.approx([seconds] * 4)
    assert [e.begin for e in trace.events] == pytest.approx([2 * seconds * i for i in range(4)])
    assert content_of(trace)[0]["runs"] == runs


def test_the_runs_that_are_timed_leave_nothing_behind(rng):
    def after(look):
        mr.manual_seed(0)
        model = mr.models.create("vgg16", width=4, num_classes=4)  # with dropout
        images = mr.tensor(rng.standard_normal((2, 3, 32, 32)).astype(np.float32) * 0 + 1, requires_grad=True)
        look(model, images)
        grads = {name: p.grad for name, p in model.named_parameters()} | {"images": images.grad}
        return grads | model.state_dict() | {"draw": mr.random.uniform((3,))}

    labels = np.array([1, 2])
    expected = after(lambda model, x: F.cross_entropy(model(x), labels).backward())
    found = after(lambda model, x: mr.inspect.trace(model, x, labels))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_operations_that_differ_from_run_to_run_have_no_times(rng):
    class Moody(mr.nn.Module):
        calls = 0

        def forward(self, x):
            self.__dict__["calls"] = self.calls + 1
            return x if self.calls % 2 else F.relu(x)

    x = mr.tensor(rng.standard_normal((2, 4)), requires_grad=True)
    trace = mr.inspect.trace(Moody(), x, np.array([1, 2]))
    assert (trace.runs, {e.seconds for e in trace.events}) == (0, {0.0})


def test_backward_has_multiply_adds_of_its_own(subject):
    trace = mr.inspect.trace(*subject)
    forward, backward = (
        {e.number: e.macs for e in trace.events if e.phase == phase and e.macs} for phase in ("forward", "backward")
    )
    images = min(forward)  # no gradient of the images is wanted
    assert backward == {number: macs * (1 if number == images else 2) for number, macs in forward.items()}


def test_the_page_needs_nothing_else_and_holds_the_sources(subject):
    trace = mr.inspect.trace(*subject, title="a <script> & more")
    page = trace.page()
    assert "<title>a &lt;script> &amp; more</title>" in page
    assert not re.search(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', page)
    assert page.count("</script>") == 2
    (held,) = content_of(trace)
    source = held["sources"]["Conv2d"]
    first, last = source["backward"]
    assert source["file"] == "minires/ops/conv2d.py"
    assert source["lines"][first].strip().startswith("def backward(self, grad_output")
    assert source["lines"][last].strip() == ")"


def test_nothing_finite_is_shown_as_nothing(subject):
    model, x, _ = subject
    x[...] = 1e38
    trace = Trace("bad")
    with np.errstate(all="ignore"), Tracer(trace, {}):
        model(mr.tensor(x))
    (held,) = content_of(trace)
    assert any(view["infs"] or view["nans"] for event in held["events"] for view in event["out"])


def test_timeline_nests(subject):
    entries = json.loads(mr.inspect.trace(*subject).timeline())["traceEvents"]
    spans = [e for e in entries if e["ph"] == "X"]
    for tid in (1, 2):
        by_name = {}
        for span in (s for s in spans if s["tid"] == tid):
            by_name.setdefault(span["name"], []).append(span)
        outer, inner = by_name["layer2"][0], by_name["layer2.1.conv1"][0]
        assert outer["ts"] <= inner["ts"]
        assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1e-6
        assert len(by_name["Conv2d"]) == 19


def test_graph_has_every_node_and_edge(subject):
    trace = mr.inspect.trace(*subject)
    graph = trace.graph()
    half = len(trace.events) // 2
    assert len(re.findall(r"^ *n\d+ \[label=", graph, re.M)) == half
    edges = sum(p is not None for e in trace.events[:half] for p in e.parents)
    assert graph.count(" -> ") == edges
    assert 'subgraph "cluster_layer2.0.downsample"' in graph
    assert graph.count("{") == graph.count("}")


def test_save(subject, tmp_path):
    trace = mr.inspect.trace(*subject)
    for kind in ("html", "chrome", "dot"):
        assert trace.save(tmp_path / kind, kind).stat().st_size > 1000
    with pytest.raises(ValueError, match="format must be one of"):
        trace.save(tmp_path / "x", "pdf")
    with pytest.raises(TypeError, match="model must be a Module"):
        mr.inspect.trace(3, *subject[1:])


MAPS = [(2, 16, 5, 7), (1, 3, 40, 30), (4, 10), (1, 1, 1, 1), (2, 2048, 1, 1), (3, 5000)]
FILTERS = [(64, 3, 7, 7), (16, 1, 3, 3), (512, 512, 3, 3), (2048, 512, 1, 1), (10, 64)]


@pytest.mark.parametrize(
    ("draw", "shape"), [*((pictures.maps, shape) for shape in MAPS), *((pictures.filters, shape) for shape in FILTERS)]
)
def test_pictures_open(rng, draw, shape):
    png = draw(rng.standard_normal(shape).astype(np.float32))
    assert max(Image.open(io.BytesIO(png)).size) <= 128


def test_colours_are_of_the_sign():
    image = Image.open(io.BytesIO(pictures.maps(np.array([[[[-2.0, 0.0, 2.0, np.nan]]]])))).convert("RGB")
    blue, white, red = (image.getpixel((i, 0)) for i in range(3))
    assert blue[2] > blue[0] + 100
    assert min(white) > 240
    assert red[0] > red[2] + 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give one NETWORK"),
        (("resnet20", "--compare", "plain20", "resnet20"), "give one NETWORK"),
        (("resnet20", "--format", "pdf"), "--format must be one of"),
        (("--compare", "plain20", "resnet20", "--format", "dot"), "--format must be html with --compare, got dot"),
        (("resnet2",), "unknown network 'resnet2'"),
        (("resnet20", "--out", "."), "--out must be a file"),
        (("resnet50", "--batch-size", "4"), "--batch-size does not apply to a single picture"),
        (("resnet20", "--image", __file__, "--index", "4"), "--index does not apply to a single picture"),
        (("resnet20", "--label", "4"), "--label does not apply to the test images of digits"),
        (("resnet20", "--seed", "-1"), "--seed must be"),
        (("resnet20", "--label", "10", "--image", __file__), "cannot be decoded"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, words, message):
    assert cli.main(["trace", *words]) in (2, 4)
    err = error_line(capsys.readouterr().err)
    assert message in err


def test_the_command(capsys, tmp_path):
    page = tmp_path / "new" / "trace.html"
    words = ["trace", "resnet20", "--width", "4", "--data", "digits", "--index", "3", "--batch-size", "4"]
    assert cli.main([*words, "--out", str(page)]) == 0
    out = capsys.readouterr().out
    assert "resnet20, digits test image 3 (" in out
    assert out.endswith(f"{page}\n")
    assert page.stat().st_size > 100_000
    assert cli.main(["trace", "--compare", "plain20", "resnet20", "--width", "4", "--out", str(page)]) == 0


def test_a_trained_network(capsys, tmp_path):
    run = tmp_path / "run"
    tiny = ["--width", "4", "--iterations", "2", "--batch-size", "16", "--eval-every", "2"]
    assert cli.main(["train", "resnet20", *tiny, "--quiet", "--out", str(run)]) == 0
    out = tmp_path / "trace.html"
    assert cli.main(["trace", "resnet20", "--weights", str(run), "--index", "1", "--out", str(out)]) == 0
    assert "resnet20, digits test image 1 (" in capsys.readouterr().out
    assert "training=False" in out.read_text(encoding="utf-8")
    for words, message in (
        (("plain20", "--weights", str(run)), "holds a resnet20, not a plain20"),
        (("resnet20", "--weights", str(run), "--width", "4"), "--width cannot be given with --weights"),
        (("resnet20", "--weights", str(run), "--seed", "4"), "--seed cannot be given with --weights"),
        (("--compare", "plain20", "resnet20", "--weights", str(run)), "--weights cannot be given with --compare"),
    ):
        assert cli.main(["trace", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_picture(capsys, tmp_path, rng):
    picture = tmp_path / "picture.png"
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(picture)
    out = tmp_path / "trace.dot"
    words = ["resnet20", "--width", "2", "--image", str(picture), "--label", "3", "--format", "dot", "--out", str(out)]
    assert cli.main(["trace", *words]) == 0
    assert out.read_text().startswith('digraph "resnet20, picture.png" {')
    assert cli.main(["trace", "resnet20", "--image", str(picture), "--label", "10"]) == 2
    assert "--label must lie in [0, 10), got 10" in capsys.readouterr().err


def test_its_repr_is_a_line(subject):
    trace = mr.inspect.trace(*subject, title="resnet20")
    loss = f"{trace.loss:.4g}"
    line = f'<trace of resnet20: 74 operations forward, 74 backward, loss {loss}; save("trace.html") writes its page>'
    assert repr(trace) == line
    assert repr(trace.events[1]).startswith("<BatchNorm of bn1, forward: ")
    assert len(repr(trace.events[1].arrays[0])) < 400


def test_a_notebook_holds_the_page_itself(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = mr.inspect.trace(*subject, title="<b> & 'resnet'")
    form = r"<p>(.*)</p><iframe sandbox=\"allow-scripts\" .* srcdoc='([^']*)'></iframe>"
    found = re.fullmatch(form, trace._repr_html_(), re.S)
    assert html.unescape(found[1]) == trace.headline()
    assert html.unescape(found[2]) == trace.page()
    assert list(tmp_path.iterdir()) == []


def test_a_large_page_is_a_file_beside_the_notebook(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "LARGEST", 1000)
    trace = mr.inspect.trace(*subject, title="résnet/../20")
    shown = trace._repr_html_()
    assert trace._repr_html_() == shown
    (file,) = (tmp_path / "minires-traces").iterdir()  # once, however often it is shown
    assert re.fullmatch(r"r-snet-20-[0-9a-f]{12}\.html", file.name)
    assert file.read_text(encoding="utf-8") == trace.page()
    assert f'src="minires-traces/{file.name}"' in shown
    mr.inspect.trace(*subject, title="résnet/../20")._repr_html_()
    assert len(list(file.parent.iterdir())) == 2  # its times differ: another file


def test_a_large_page_without_a_place_is_reported(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "LARGEST", 1000)
    (tmp_path / "minires-traces").write_text("in the way")
    shown = mr.inspect.trace(*subject)._repr_html_()
    assert "minires-traces cannot be written here: File exists. Save the page elsewhere: trace.save(path)" in shown
    assert "iframe" not in shown
