"""Stopping in the frame of an operation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import cli

SCRIPT = """
import numpy as np, minires as mr, minires.functional as F
mr.manual_seed(0)
model = mr.models.create("resnet20", width=4)
x = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f"))
with mr.inspect.breakpoint(at="layer2.0.conv1"):
    loss = F.cross_entropy(model(x), np.array([1, 2]))
with mr.inspect.breakpoint(at="layer2.0.bn1", when="backward"):
    loss.backward()
print("finished with", model.conv1.weight.grad.shape)
"""


def debug(command, words):
    done = subprocess.run(command, input="\n".join(words) + "\n", capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_session_with_pdb(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code, out, err = debug(
        [sys.executable, str(script)],
        ["p 'in', x.shape, self.stride", "n", "c", "p 'grad', grad_output.shape, type(self).__name__", "c"],
    )
    assert code == 0, err
    assert "Conv2d(stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1) of layer2.0.conv1, forward" in out
    assert f"called at {script}:7" in out.partition("conv2d.py(27)")[0]  # the forward's card has it already
    assert "conv2d.py(27)forward()\n-> self.check(x, w, b)" in out  # the first line of its body has not run yet
    assert "('in', (2, 4, 8, 8), (2, 2))" in out
    assert "conv2d.py(28)forward()\n-> self.saved = x, w" in out
    assert "batch_norm.py(47)backward()\n-> if not self.training:" in out
    assert "('grad', (2, 8, 4, 4), 'BatchNorm')" in out
    assert "finished with (4, 3, 3, 3)" in out


def test_a_session_under_python_m_pdb(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "pdb", "-c", "continue", str(script)]
    code, out, err = debug(command, ["p 'in', x.shape", "c", "p 'grad', grad_output.shape", "c", "q"])
    assert code == 0, err
    assert "('in', (2, 4, 8, 8))" in out
    assert "('grad', (2, 8, 4, 4))" in out


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_session_with_minires_step(when):
    name = {"forward": "x", "backward": "grad_output"}[when]
    words = [f"p 'array', {name}.shape, float({name}.std()) > 0", "c"]
    place = ["--at", "layer2.0.conv2", "--when", when]
    code, out, err = debug([sys.executable, "-m", "minires", "step", "resnet20", "--width", "4", *place], words)
    assert code == 0, err
    assert "resnet20, digits test image 0" in out
    assert f"of layer2.0.conv2, {when}" in out
    assert f"conv2d.py({27 if when == 'forward' else 32}){when}()" in out
    assert "('array', (8, 8, 4, 4), True)" in out
    assert out.endswith("stopped 1 time\n")


def test_q_ends_the_session():
    command = [sys.executable, "-m", "minires", "step", "plain20", "--width", "4", "--at", "ReLU"]
    code, _, err = debug(command, ["q"])
    assert (code, err) == (0, "")


class Stops:
    """Stands in for the debugger: notes the frames in which `breakpoint()` was called."""

    def __init__(self, monkeypatch):
        self.frames = []
        monkeypatch.setattr(sys, "breakpointhook", self.stop)

    def stop(self):
        frame = sys._getframe(1)
        self.frames.append((frame.f_code.co_name, frame.f_locals["self"].module, dict(frame.f_locals)))


@pytest.fixture
def stops(monkeypatch):
    return Stops(monkeypatch)


@pytest.fixture
def run(rng):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=2)
    x = mr.tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32))

    def run():
        F.cross_entropy(model(x), np.array([1, 2])).backward()
        return model

    return run


def test_patterns_names_and_both_phases(run, stops):
    with mr.inspect.breakpoint(at="layer?.0.conv2", when="both"):
        run()
    found = [(method, module) for method, module, _ in stops.frames]
    modules = [f"layer{stage}.0.conv2" for stage in (1, 2, 3)]
    assert found == [("forward", m) for m in modules] + [("backward", m) for m in modules[::-1]]
    stops.frames.clear()
    with mr.inspect.breakpoint(at="Linear") as stop:
        run()
    assert [module for _, module, _ in stops.frames] == ["fc"]
    assert stop.stops == 1


def test_at_the_return_the_result_is_at_hand(run, stops, capsys):
    with mr.inspect.breakpoint(at="conv1", when="both", stop="return", card=False):
        model = run()
    (_, _, forward), (_, _, backward) = stops.frames
    assert forward["_result"].shape == (2, 2, 8, 8)
    assert np.array_equal(backward["_result"][1], model.conv1.weight.grad)
    assert capsys.readouterr().out == ""


def test_conditions(run, stops):
    with mr.inspect.breakpoint(when="backward", condition=mr.inspect.norm_above(0.0), times=2) as stop:
        run()
    assert stop.stops == len(stops.frames) == 2
    with mr.inspect.breakpoint(when="both", condition=mr.inspect.not_finite) as stop:
        run()
    assert stop.stops == 0
    seen = []
    with mr.inspect.breakpoint(at="fc", condition=lambda node, arrays: seen.append((node.name, len(arrays)))):
        run()
    assert seen == [("Linear", 3)]


def test_the_gradients_are_those_without_it(run, stops):
    grads = {name: p.grad for name, p in run().named_parameters()}
    with mr.inspect.breakpoint(when="both", stop="return", card=False) as stop:
        watched = run()
    assert stop.stops > 100
    watched.zero_grad()
    run()
    for name, p in watched.named_parameters():
        assert np.array_equal(p.grad, grads[name]), name


def test_a_class_with_super_and_a_closure(stops):
    factor = 3.0

    class Base(mr.Function):
        def forward(self, x):
            self.saved = x
            return x * factor

    class Scaled(Base):
        def forward(self, x):
            return super().forward(x)

        def backward(self, grad_output):
            return grad_output * factor

    with mr.inspect.breakpoint(at="Scaled", when="both", stop="return"):
        x = mr.tensor(np.ones(2), requires_grad=True)
        Scaled()(x).backward(np.ones(2))
    assert [method for method, _, _ in stops.frames] == ["forward", "backward"]
    assert x.grad.tolist() == [3.0, 3.0]


def test_without_source_it_says_so():
    space = {"mr": mr}
    exec("class Typed(mr.Function):\n    def forward(self, x):\n        return x\n", space)

    class Lambda(mr.Function):
        forward = lambda self, x: x  # noqa: E731

    for operation in (space["Typed"], Lambda):
        with pytest.raises(RuntimeError, match=r"source of .* is not at hand"), mr.inspect.breakpoint():
            operation()(mr.tensor(np.ones(1)))


def test_two_on_one_node_are_refused(run, stops):
    told = "watched by another breakpoint or by detect_anomaly"
    with pytest.raises(RuntimeError, match=told), mr.inspect.detect_anomaly(), mr.inspect.breakpoint("fc"):
        run()
    assert stops.frames == []


def test_it_warns_when_nothing_is_there(run):
    with pytest.warns(UserWarning, match="no node was at 'layer9' in forward"), mr.inspect.breakpoint(at="layer9"):
        run()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at": 3}, TypeError, "at must be"),
        ({"when": "sideways"}, ValueError, "when must be"),
        ({"condition": 1}, TypeError, "condition must be"),
        ({"stop": "middle"}, ValueError, "stop must be"),
        ({"times": 0}, ValueError, "times must be"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        mr.inspect.breakpoint(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--at", "layer9"), "--at: no operation is at 'layer9'"),
        (("--when", "never"), "--when must be one of"),
        (("--norm-above", "-1"), "--norm-above must be at least 0"),
        (("--image", "nowhere.png"), "--image: no file nowhere.png"),
        (("--image", "a.png", "--data", "digits"), "--image and --data cannot be given together"),
        (("--data", "mnist"), "unknown data set 'mnist'"),
        (("--index", "100000"), "--index must be below 364"),
        (("--batch", "0"), "--batch must be at least 1"),
        (("--width", "0"), "width must be"),
        (("--weights", "nowhere"), "nowhere"),
        (("--backend", "cudaa"), "--backend must be one of reference, "),
    ],
)
def test_step_refuses_in_one_line(capsys, words, message):
    assert cli.main(["step", "resnet20", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
