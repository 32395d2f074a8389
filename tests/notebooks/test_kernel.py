"""Breakpoints and interrupts in a Jupyter kernel."""

from __future__ import annotations

import pytest

pytest.importorskip("ipykernel", reason="needs a kernel: pip install 'minires[notebook]'")
pytest.importorskip("jupyter_client", reason="needs a client of kernels: pip install 'minires[notebook]'")

from notebooks.kernels import Kernel

SETUP = """
import sys
import numpy as np
import minires as mr
import minires.functional as F

mr.manual_seed(0)
model = mr.models.create("resnet20", width=2)
x = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f"))
labels = np.array([1, 2])

class Scaled(mr.Function):
    def forward(self, x):
        return 3 * x

    def backward(self, grad_output):
        breakpoint()
        return 3 * grad_output
"""
WORKS = "F.cross_entropy(model(x), labels).backward(); print(float(np.linalg.norm(model.conv1.weight.grad)) > 0)"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    try:
        assert kernel.run(SETUP).error == ""
        yield kernel
    finally:
        kernel.close()


def test_a_watched_operation_stops_in_ipythons_debugger(kernel):
    cell = "with mr.inspect.breakpoint(at='layer2.0.conv1'):\n    shape = model(x).shape\nprint('went on to', shape)"
    found = kernel.run(cell, ["w", "p x.shape", "p self.stride", "c"])
    assert found.error == ""
    assert found.prompts == ["ipdb> "] * 4
    assert "of layer2.0.conv1, forward" in found.text.partition("conv2d.py")[0]  # the card comes first
    assert "self.backend.conv2d_forward(x, weight, bias" in found.text  # the lines around the stop
    assert "(2, 2, 8, 8)" in found.text
    assert "(2, 2)" in found.text
    assert "went on to (2, 10)" in found.text


def test_a_call_of_breakpoint_stops(kernel):
    cell = "leaf = mr.tensor(np.ones(2), requires_grad=True)\nScaled()(leaf).backward(np.array([5.0, 7.0]))\nleaf.grad"
    found = kernel.run(cell, ["p grad_output", "c"])
    assert "array([5., 7.])" in found.text
    assert found.data[0]["text/plain"] == "array([15., 21.])"


def test_quitting_the_debugger_leaves_a_session_that_works(kernel):
    kernel.run("with mr.inspect.breakpoint(at='fc', when='both'):\n    model(x)", ["q"])
    assert kernel.run(WORKS).text == "True\n"


def test_an_attached_visual_debugger_keeps_the_hook(kernel):
    ask = "print(sys.breakpointhook is sys.__breakpointhook__, sys.breakpointhook.__module__)"
    assert kernel.run(ask).text == "True sys\n"
    kernel.run("import debugpy; asked, debugpy.is_client_connected = debugpy.is_client_connected, lambda: True")
    assert kernel.run(ask).text == "False debugpy._vendored.force_pydevd\n"
    kernel.run("debugpy.is_client_connected = asked")
    assert kernel.run(ask).text == "True sys\n"


def test_a_hook_of_the_users_own_stays(kernel):
    kernel.run("def own(*_): print('own hook')\nsys.breakpointhook = own")
    assert kernel.run("breakpoint()").text == "own hook\n"
    kernel.run("sys.breakpointhook = sys.__breakpointhook__")


def test_pythonbreakpoint_is_followed(kernel):
    kernel.run("import os; os.environ['PYTHONBREAKPOINT'] = '0'")
    assert kernel.run("breakpoint(); print('ran on')").text == "ran on\n"
    kernel.run("del os.environ['PYTHONBREAKPOINT']")


def test_an_interrupted_forward_leaves_a_session_that_works(kernel):
    """All arrays, gradients and module paths are as without the interrupt."""
    cell = """
kept = {name: array.copy() for name, array in model.state_dict().items()}
model.eval()
def step():
    model.zero_grad()
    y = model(x)
    F.cross_entropy(y, labels).backward()
    return [y.data, *(p.grad.copy() for p in model.parameters())]
before = step()
for number in range(100_000):
    if number == 20:
        print("under way", flush=True)
    step()
"""
    assert kernel.run(cell, interrupt_at="under way").error.startswith("KeyboardInterrupt")
    cell = """
print(all(np.array_equal(a, b) for a, b in zip(before, step(), strict=True)))
print(all(np.array_equal(model.state_dict()[name], array) for name, array in kept.items()))
print(model(x).node.module)  # the path is not that of a module inside which the interrupt came
mr.optim.SGD(model.parameters(), lr=0.1).step()
print(np.array_equal(model.conv1.weight.data, kept["conv1.weight"] - np.float32(0.1) * model.conv1.weight.grad))
"""
    found = kernel.run(cell)
    assert found.error == ""
    assert found.text == "True\nTrue\nfc\nTrue\n"


def test_a_failed_cell_can_be_debugged_and_leaves_the_weights_writable(kernel):
    """The traceback's frames hold a tape, which makes the weights read-only; the next cell but %debug drops it."""
    kernel.run("opt = mr.optim.SGD(model.parameters(), lr=0.1)")
    failing = "def step(labels):\n    y = model(x)\n    F.cross_entropy(y, labels).backward()\nstep(np.array([1, 99]))"
    assert "labels must lie in [0, 10)" in kernel.run(failing).error
    found = kernel.run("%debug", [*["u"] * 4, "p y.shape", "q"])
    assert found.text.endswith("\n(2, 10)\n")
    found = kernel.run("step(labels)\nopt.step()\nprint('moved')")
    assert (found.error, found.text) == ("", "moved\n")


def test_an_interrupted_training_goes_on(kernel):
    cell = """
from minires import training
from minires.training.progress import Silent

class Reporting(Silent):
    def iteration(self, number, *_):
        if number == 3:
            print("under way", flush=True)

config = training.Config(network="resnet20", width=2, data="digits", epochs=1, batch_size=64, augment=False)
training.train(config, "run", report=Reporting())
"""
    found = kernel.run(cell, interrupt_at="under way")
    assert found.error.startswith("Interrupted: stopped after iteration")
    found = kernel.run("result = training.train(training.resume_config('run'), resume='run'); result")
    assert found.error == ""
    assert "iteration 23, epoch 1, " in found.data[0]["text/plain"]
    # the kernel's own handler of interrupts is back
    found = kernel.run("import time\nprint('asleep', flush=True)\ntime.sleep(60)", interrupt_at="asleep")
    assert found.error.startswith("KeyboardInterrupt")
