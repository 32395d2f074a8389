"""Stopping in the frame of an operation."""

from __future__ import annotations

import inspect
import pdb
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from usage import error_line

import minires as mr
import minires.functional as F
from minires import cli, ops
from minires.backends import reference
from minires.backends.reference import conv2d, windows
from minires.inspect import breakpoints

ROOT = Path(__file__).parents[2]
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


def debug(command, words, cwd=None):
    typed = "\n".join(words) + "\n"
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=120, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def place(method, text):
    """pdb's place: the number of the line that holds the text in an operation's method, and the line."""
    lines, first = inspect.getsourcelines(method)
    (number,) = [i for i, line in enumerate(lines) if text in line]
    return f"{Path(inspect.getfile(method)).name}({first + number}){method.__name__}()\n-> {lines[number].strip()}"


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_session_with_pdb(script):
    code, out, err = debug(
        [sys.executable, str(script)],
        ["p 'in', x.shape, self.stride", "n", "c", "p 'grad', grad_output.shape, type(self).__name__", "c"],
    )
    assert code == 0, err
    assert "Conv2d(stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1) of layer2.0.conv1, forward" in out
    before, found, _ = out.partition(place(ops.Conv2d.forward, "self.check"))  # the first line, which has not run yet
    assert found
    assert f"called at {script}:7" in before  # the forward's card has it already
    assert "('in', (2, 4, 8, 8), (2, 2))" in out
    assert place(ops.Conv2d.forward, "self.saved") in out
    assert place(ops.BatchNorm.backward, "self.training") in out
    assert "('grad', (2, 8, 4, 4), 'BatchNorm')" in out
    assert "finished with (4, 3, 3, 3)" in out


def test_a_session_under_python_m_pdb(script):
    command = [sys.executable, "-m", "pdb", "-c", "continue", str(script)]
    code, out, err = debug(command, ["p 'in', x.shape", "c", "p 'grad', grad_output.shape", "c", "q"])
    assert code == 0, err
    assert "('in', (2, 4, 8, 8))" in out
    assert "('grad', (2, 8, 4, 4))" in out


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_session_with_minires_step(when):
    name = {"forward": "x", "backward": "grad_output"}[when]
    words = [f"p 'array', {name}.shape, float({name}.std()) > 0", "c"]
    options = ["--width", "4", "--at", "layer2.0.conv2", "--when", when]
    code, out, err = debug([sys.executable, "-m", "minires", "step", "resnet20", *options], words)
    assert code == 0, err
    assert "resnet20, digits test image 0" in out
    assert f"of layer2.0.conv2, {when}" in out
    assert place(getattr(ops.Conv2d, when), "self.check" if when == "forward" else "self.saved") in out
    assert "('array', (8, 8, 4, 4), True)" in out
    assert out.endswith("stopped 1 time\n")


def readme_session():
    """The command in minires/README.md and its output there."""
    text = (ROOT / "minires" / "README.md").read_text(encoding="utf-8")
    command, shown = re.search(r"```sh\n(minires step [^\n]*)\n```\n\n```text\n(.*?)\n```", text, flags=re.S).groups()
    return shlex.split(command)[1:], shown


NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[-+]\d+)?|(?<= )-?\d(?=,)")


def test_the_session_in_readme_is_what_it_prints(monkeypatch):
    """Identical words, and numbers that agree in three of four digits, because they are sums of float32."""
    monkeypatch.setenv("COLUMNS", "200")
    words, shown = readme_session()
    code, out, err = debug([sys.executable, "-m", "minires", *words], ["c"])
    assert code == 0, err
    out = out.replace(str(ROOT), "...").replace("(Pdb) stopped 1 time\n", "(Pdb)")
    assert NUMBER.sub("#", out) == NUMBER.sub("#", shown)
    found, expected = ([float(number) for number in NUMBER.findall(text)] for text in (out, shown))
    assert len(expected) > 10
    # The mean of the cotangent behind a batch norm is 0 but for rounding.
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_a_line_and_a_condition_given_to_pdb(script):
    """The command of the module's documentation."""
    script.write_text(SCRIPT.replace("with mr.inspect", "if 1:  #"))
    (command,) = re.findall(r"python -m pdb .*script\.py", breakpoints.__doc__)
    words = [sys.executable, *shlex.split(command)[1:-1], str(script)]
    code, out, err = debug(words, ["p 'in', self.module, grad_output.shape", "c", "q"], cwd=ROOT)
    assert code == 0, err
    assert place(ops.Conv2d.backward, "self.saved") in out
    assert "('in', 'layer3.0.conv2', (2, 16, 2, 2))" in out
    assert out.count("('in'") == 1


def test_a_breakpoint_in_the_script(script):
    """From `breakpoint()` in a script, `s` leads into the model and on."""
    script.write_text(SCRIPT.replace("with mr.inspect", "breakpoint()  #", 1).replace("    loss = F", "loss = F"))
    _, out, err = debug([sys.executable, str(script)], ["s", "s", "s", "w", "q"])
    assert f"> {script}(7)<module>()\n-> loss = F.cross_entropy(model(x)" in out, err
    assert "module.py" in out


def functions():
    """The functions in which a debugger stops inside an operation, down to the array code."""
    for name in ops.__all__:
        yield from (vars(getattr(ops, name)).get(phase) for phase in ("forward", "backward"))
    yield from (value for name, value in vars(reference).items() if inspect.isfunction(value))
    yield from (windows.windows, conv2d.im2col, conv2d._filter_rows, conv2d._pixel_rows)
    yield ops.Conv2d.check


def test_no_array_has_the_name_of_a_command_of_pdb():
    """`w` is pdb's stack, `b` a breakpoint, `a` the arguments: an array of that name could not be printed."""
    commands = {name.removeprefix("do_") for name in dir(pdb.Pdb) if name.startswith("do_")}
    seen = [function for function in functions() if function is not None]
    assert len(seen) > 60
    assert {"w", "b", "a"} < commands
    for function in seen:
        assert not commands & set(function.__code__.co_varnames), function.__qualname__


def test_q_ends_the_session():
    command = [sys.executable, "-m", "minires", "step", "plain20", "--width", "4", "--at", "ReLU"]
    code, _, err = debug(command, ["q"])
    assert (code, err) == (0, "")


class Stops:
    """Replaces the debugger: stores the frames that call `breakpoint()`."""

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


def test_the_locals_are_the_operations_own(run, stops):
    for stop in ("entry", "return"):
        with mr.inspect.breakpoint(at="layer2.0.conv1", when="both", stop=stop, card=False):
            run()
    entered, entered_backward, left, left_backward = (set(names) for _, _, names in stops.frames)
    assert entered == {"self", "x", "weight", "bias"}
    assert entered_backward == {"self", "grad_output"}
    assert left == entered | {"y"}
    assert left_backward == {"self", "grad_output", "x", "weight", "wants_x", "wants_weight", "wants_bias", "grads"}


scale = y = 3.0


class UsesTheName(mr.Function):
    """`y` is not the result in `forward`, and a global in `backward`."""

    def forward(self, x):
        try:
            y = x + 1.0
            return 2.0 * x
        finally:
            self.saved = y

    def backward(self, grad_output):
        return grad_output * self.saved * y


def test_a_name_that_is_in_use_stays_what_it_is(stops):
    x = mr.tensor(np.array([1.0, 5.0]), requires_grad=True)
    with mr.inspect.breakpoint(at="UsesTheName", when="both", stop="return", card=False):
        out = UsesTheName()(x)
        assert out.data.tolist() == [2.0, 10.0]
        out.backward(np.ones(2))
    assert x.grad.tolist() == [6.0, 18.0]
    (_, _, forward), (_, _, backward) = stops.frames
    assert forward["_result"].tolist() == [2.0, 10.0]
    assert forward["y"].tolist() == [2.0, 6.0]
    assert backward["grads"].tolist() == [6.0, 18.0]


def test_at_the_return_the_result_is_a_local(run, stops, capsys):
    with mr.inspect.breakpoint(at="conv1", when="both", stop="return", card=False):
        model = run()
    (_, _, forward), (_, _, backward) = stops.frames
    assert forward["y"].shape == (2, 2, 8, 8)
    assert np.array_equal(backward["grads"][1], model.conv1.weight.grad)
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


def test_without_source_it_is_an_error():
    space = {"mr": mr}
    exec("class Typed(mr.Function):\n    def forward(self, x):\n        return x\n", space)

    class Lambda(mr.Function):
        forward = lambda self, x: x  # noqa: E731

    for operation in (space["Typed"], Lambda):
        with pytest.raises(RuntimeError, match=r"source of .* is not available"), mr.inspect.breakpoint():
            operation()(mr.tensor(np.ones(1)))


def test_two_on_one_node_are_refused(run, stops):
    message = "watched by another breakpoint or by detect_anomaly"
    with pytest.raises(RuntimeError, match=message), mr.inspect.detect_anomaly(), mr.inspect.breakpoint("fc"):
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
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--width", "0"), "width must be"),
        (("--weights", "nowhere"), "nowhere"),
        (("--backend", "cudaa"), "--backend must be one of reference, "),
    ],
)
def test_step_refuses_in_one_line(capsys, words, message):
    assert cli.main(["step", "resnet20", *words]) == 2
    err = error_line(capsys.readouterr().err)
    assert message in err
