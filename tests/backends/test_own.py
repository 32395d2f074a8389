"""A backend of the reader's own: by object, by class and by module:object, everywhere, and what its errors say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import minires as mr
import minires.functional as F
from minires import cli, training
from minires.backends import reference
from minires.backends.contract import OPTIONAL, REQUIRED, Backend, Optional, Reference, check
from minires.training import Config, ConfigError
from minires.verify.lockstep import lockstep
from minires.verify.recorded import load_call

SOURCE = """
import numpy as np
import minires as mr

class Mine(mr.backends.Reference):
    def __init__(self, slope=0.0):
        self.slope = slope

    def relu_forward(self, x):
        return np.where(x <= 0, self.slope * np.clip(x, -9, 0), x)

leaky = Mine(0.25)
data = {"conv2d": 1}
"""


class Mine(mr.backends.Reference):
    """Its ReLU leaks."""

    def __init__(self, slope=0.0):
        self.slope = slope

    def relu_forward(self, x):
        return np.where(x <= 0, self.slope * np.clip(x, -9, 0), x)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A folder with own_backend.py, which is the current one; what is imported from it is forgotten afterwards."""
    (tmp_path / "own_backend.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    monkeypatch.setenv("MINIRES_BACKEND", "")
    mr.backends._default.cache_clear()
    yield "own_backend"
    mr.backends._default.cache_clear()
    sys.modules.pop("own_backend", None)


# -- the contract


def test_the_backends_of_minires_fulfil_the_contract():
    assert set(REQUIRED) == set(reference.__all__)
    for name, reason in mr.backends.available().items():
        if not reason:
            with mr.backend(name) as chosen:
                check(chosen)


def test_every_function_is_documented_with_its_shapes():
    for protocol, names in ((mr.backends.Backend, REQUIRED), (mr.backends.contract.Optional, OPTIONAL)):
        for name in names:
            assert len(getattr(protocol, name).__doc__) > 10, name
    assert all("Without it" in getattr(mr.backends.contract.Optional, name).__doc__ for name in OPTIONAL)


def test_every_function_that_an_operation_calls_is_in_the_contract():
    source = "".join(path.read_text() for path in Path(mr.ops.__file__).parent.glob("*.py"))
    called = set(re.findall(r"self\.backend\.(\w+)", source))
    assert len(called) > 20
    assert called <= {*REQUIRED, *OPTIONAL}


def test_an_object_without_a_function_is_told_which():
    lacking = SimpleNamespace(**{name: getattr(reference, name) for name in REQUIRED}, name="mine")
    check(lacking)
    del lacking.conv2d_backward_bias, lacking.relu_forward
    message = (
        "SimpleNamespace does not fulfil the contract: it lacks conv2d_backward_bias, relu_forward\\.  .*Reference"
    )
    with pytest.raises(TypeError, match=message), mr.backend(lacking):
        pass
    del lacking.name
    with pytest.raises(TypeError, match="name must be a str; it lacks"), mr.backend(lacking):
        pass


def test_a_function_with_other_arguments_is_told_which_it_must_take():
    class Wrong(mr.backends.Reference):
        def conv2d_forward(x, w, b, stride, padding, dilation, groups):  # no self
            return x

        def relu_backward(self, grad_output, y, more):
            return grad_output

        def sgd_step(self, params):
            pass

        def add_forward(self, *arrays, **options):
            return sum(arrays)

    with pytest.raises(TypeError) as raised, mr.backend(Wrong):
        pass
    message = str(raised.value)
    assert "conv2d_forward must take 7 arguments (x, w, b, stride, padding, dilation, groups), got (w, b, " in message
    assert "relu_backward must take 2 arguments (grad_output, y), got (grad_output, y, more)" in message
    assert "sgd_step must take 6 arguments" in message
    assert "add_forward" not in message


def test_a_misspelt_function_is_no_silent_fallback():
    class Misspelt(mr.backends.Reference):
        def relu_foward(self, x):
            return x

        def helper(self, x):
            return x

    message = r"it has relu_foward, which the contract lacks\. Did you mean relu_forward\?"
    with pytest.raises(TypeError, match=message) as raised, mr.backend(Misspelt):
        pass
    assert "helper" not in str(raised.value)


# -- by object


@pytest.mark.parametrize("given", [Mine, Mine(), Mine(slope=0.0)])
def test_a_subclass_computes_its_own_functions_and_inherits_the_others(rng, given):
    x = mr.tensor(rng.standard_normal((2, 3)), requires_grad=True)
    with mr.backend(given) as chosen:
        assert isinstance(chosen, Mine)
        assert chosen.name == "Mine"
        assert mr.backends.active() is chosen
        y = F.relu(x)
    assert y.node.backend is chosen
    np.testing.assert_array_equal(y.data, np.maximum(x.data, 0))
    assert mr.gradcheck(lambda x: F.relu(x), {"x": x.data})


def test_super_is_the_reference_backend(rng):
    class Doubled(mr.backends.Reference):
        name = "doubled"

        def linear_forward(self, x, w, b):
            return 2 * super().linear_forward(x, w, b)

    x, w = rng.standard_normal((2, 3)), rng.standard_normal((4, 3))
    with mr.backend(Doubled()) as chosen:
        found = F.linear(x, w)
    assert chosen.name == "doubled"
    np.testing.assert_allclose(found.data, 2 * x @ w.T)


def test_options_are_those_of_the_class():
    with mr.backend(Mine, slope=0.5):
        np.testing.assert_array_equal(F.relu(np.array([-2.0, 1.0])).data, [-1.0, 1.0])
    with pytest.raises(TypeError, match="backend Mine has no option 'isa'; it has slope"), mr.backend(Mine, isa="x"):
        pass
    with pytest.raises(TypeError, match="backend Mine has no option 'slope'; it has none"):
        mr.backend(Mine(), slope=0.5).__enter__()


@pytest.mark.parametrize("wrong", [None, 3, object(), np.ones(2), dict, lambda x: x])
def test_what_is_no_backend_at_all(wrong):
    with pytest.raises(ValueError, match=r"backend must be one of 'reference'.* or an object of yours"):
        mr.backend(wrong).__enter__()


# -- lockstep


class OffByOne(mr.backends.Reference):
    """Its convolution is wrong in one number of the filters of shape (4, 4, 3, 3)."""

    def conv2d_forward(self, x, w, *others):
        y = super().conv2d_forward(x, w, *others)
        if w.shape == (4, 4, 3, 3):
            y[1, 2, 0, 3] += 1
        return y


def test_lockstep_names_layer_and_index_of_an_own_backends_mistake(rng):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    images, labels = rng.standard_normal((2, 3, 8, 8), np.float32), np.array([0, 1])
    for second in (OffByOne, OffByOne()):
        found = lockstep(model, images, labels, backends=("reference", second))
        assert (found.first, found.second) == ("reference", "OffByOne")
        fault = found.fault
        assert (fault.phase, fault.module, fault.array) == ("forward", "layer1.0.conv1", "output")
        assert fault.index == (1, 2, 0, 3)
        assert fault.numbers[1] - fault.numbers[0] == pytest.approx(1, abs=1e-5)
    assert lockstep(model, images, labels, backends=("reference", mr.backends.Reference)).passed
    with pytest.raises(TypeError, match=r"backends must be a pair .* got 'native'"):
        lockstep(model, images, labels, backends="native")


def test_a_saved_call_is_compared_by_object(rng, tmp_path):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    images, labels = rng.standard_normal((2, 3, 8, 8), np.float32), np.array([0, 1])
    found = lockstep(model, images, labels, backends=("reference", OffByOne))
    message = load_call(found.save_fault(tmp_path)).compare("reference", OffByOne())
    assert re.search(r"output .* worst at \(1, 2, 0, 3\): reference \S+, OffByOne", message)


# -- module:object


def test_module_and_object_from_the_current_folder(module):
    for name, expected in (("Mine", [0.0, 1.0]), ("leaky", [-0.5, 1.0])):
        with mr.backend(f"{module}:{name}"):
            np.testing.assert_array_equal(F.relu(np.array([-2.0, 1.0])).data, expected)
    with mr.backend(f"{module}:Mine", slope=0.5):
        np.testing.assert_array_equal(F.relu(np.array([-2.0, 1.0])).data, [-1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Mine", "no module 'nowhere' in .* or installed"),
        ("own_backend.more:Mine", "no module 'own_backend.more'"),
        ("own_backend:Yours", r"the module \(.*own_backend.py\) has no attribute 'Yours'"),
        ("own_backend:data", "is no backend: it has no function of minires.backends.contract"),
        ("own backend:Mine", "must be written module:object, such as mine:Mine; got 'own backend:Mine'"),
        ("own_backend:", "must be written module:object"),
        (":Mine", "must be written module:object"),
        ("a:b:c", "must be written module:object"),
    ],
)
def test_errors_of_module_and_object(module, capsys, monkeypatch, name, message):
    with pytest.raises(ValueError, match=message), mr.backend(name):
        pass
    commands = ("gradcheck relu", "trace resnet20", "train", "bench --quick", "paper figure1 --quick")
    for command in (*(f"{command} --backend" for command in commands), "verify resnet20 --against"):
        argv = [*command.split(), name]
        assert cli.main(argv) == 2
        assert re.match(f"error: {argv[-2]}.*{message}", capsys.readouterr().err)
    assert cli.main(["lockstep", "resnet20", "--backends", f"reference,{name}"]) == 2
    assert re.search(message, capsys.readouterr().err)
    monkeypatch.setenv("MINIRES_BACKEND", name)
    assert cli.main(["gradcheck", "relu"]) == 2
    assert re.match(f"error: MINIRES_BACKEND.*{message}", capsys.readouterr().err)


def test_an_error_inside_the_module_passes_through(module, tmp_path):
    (tmp_path / "own_broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"), mr.backend("own_broken:Mine"):
        pass


def test_commands_take_module_and_object(module, capsys):
    assert cli.main(["gradcheck", "relu", "--backend", f"{module}:Mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "Mine"
    assert cli.main(["gradcheck", "relu", "--backend", f"{module}:leaky"]) == 1
    capsys.readouterr()
    argv = ["lockstep", "resnet20", "--batch-size", "2", "--width", "2", "--backends"]
    assert cli.main([*argv, f"reference,{module}:Mine"]) == 0
    assert cli.main([*argv, f"{module}:Mine,reference"]) == 0
    capsys.readouterr()
    assert cli.main([*argv, f"reference,{module}:leaky"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6].startswith("first above its tolerance: forward of ReLU of relu, output")
    assert re.fullmatch(r"worst at       index \([\d, ]+\): \S+ reference, -\S+ own_backend:leaky", lines[-5])
    exec("\n".join(lines[-4:-1]), {})
    assert "worst at" in capsys.readouterr().out


def test_the_environment_names_module_and_object(module):
    environment = os.environ | {"MINIRES_BACKEND": f"{module}:Mine"}
    code = "import minires as mr; print(mr.backends.active().name)"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("Mine\n", "")


def test_a_run_of_an_own_backend_goes_on_where_it_is_active(module, capsys):
    train = ["train", "resnet20", "--width", "2", "--batch-size", "64", "--seed", "3", "--quiet"]
    own = ["--backend", f"{module}:leaky"]
    assert cli.main([*train, "--iterations", "4", "--out", "whole", *own]) == 0
    assert Config.from_json(json.loads(Path("whole/config.json").read_text())).backend == f"{module}:Mine"
    capsys.readouterr()
    assert cli.main(["evaluate", "whole"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        "error: --backend must be None or a name for this run, which your own backend own_backend"
    )
    assert cli.main(["evaluate", "whole", *own]) == 0
    assert cli.main(["evaluate", "whole", "--backend", "reference"]) == 0
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save("grey.png")
    capsys.readouterr()
    answers = []
    for backend in (f"{module}:leaky", f"{module}:Mine", "reference"):
        assert cli.main(["predict", "grey.png", "--weights", "whole", "--json", "--backend", backend]) == 0
        answers.append(json.loads(capsys.readouterr().out)["images"][0])
    assert answers[0] != answers[1]
    np.testing.assert_allclose(
        [c["probability"] for c in answers[1]["classes"]], [c["probability"] for c in answers[2]["classes"]], rtol=1e-4
    )
    assert cli.main(["train", "--resume", "whole", "--quiet"]) == 2
    assert "or choose another by name" in capsys.readouterr().err
    assert cli.main(["train", "--resume", "whole", "--quiet", *own]) == 0
    with mr.backend(f"{module}:leaky"):
        training.evaluate_run("whole")
    assert training.restore("whole").model.training is False  # computes nothing: needs no backend


def test_no_module_is_imported_because_a_file_names_it(module):
    sys.modules.pop(module, None)
    config = Config.make(backend=f"{module}:Mine", iterations=1)
    with pytest.raises(ConfigError, match="Enter it"):
        training.train(config, "run")
    assert module not in sys.modules


def test_processes_that_a_command_starts_find_it(module):
    with cli.common.computing_on(f"{module}:Mine"):
        code = "import minires as mr; print(mr.backends.active().name)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "Mine\n"
    assert os.environ["MINIRES_BACKEND"] == ""


@pytest.mark.parametrize(("bases", "lacking"), [((Backend,), "conv2d_forward"), ((Reference, Optional), "copied")])
def test_a_protocol_computes_nothing(bases, lacking):
    """A subclass of a protocol inherits functions without a body; the check names them as missing."""
    own = type("Own", bases, {"name": "own"})()
    with pytest.raises(TypeError, match=f"it lacks .*{lacking}"), mr.backend(own):
        pass
