"""What a prompt shows of a result: a few lines, with the numbers that matter."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import minires as mr
from minires import prediction, training, weights
from minires.verify import gradcheck
from minires.verify.layers import check_layers
from minires.verify.lockstep import lockstep
from minires.verify.network import Report, verify


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reprs")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "a.png")
    config = training.Config(network="resnet20", data="digits", width=2, iterations=2, log_every=1, batch_size=64)
    return training.train(config, folder / "run")


def short(value, *parts):
    """Asserts that the representation is short and holds all parts."""
    text = repr(value)
    assert len(text.splitlines()) <= 5
    assert len(text) < 500
    for part in parts:
        assert part in text, text


def test_a_run(run):
    measured = f"iteration 2, epoch 0.08696, training loss {run.rows[-1].training_loss:.4g}, test error"
    what = "resnet20 on digits, 4,456 parameters"
    short(run, what, measured, str(run.folder.path))
    short(run.rows, "<history of 2 rows; ", measured)
    short(training.history.History(), "<history of 0 rows>")
    short(run.folder, f"RunFolder({str(run.folder.path)!r})")
    trained = training.restore(run.folder.path)
    short(trained, what, measured, str(run.checkpoint))
    short(trained.checkpoint, "<checkpoint of resnet20 on digits; ", measured)
    short(trained.preprocessing, "in grey, shorter side 8, centre 8×8, minus the mean image")
    _, evaluation = training.evaluate_run(run.folder.path)
    short(evaluation, "Evaluation(images=364, error=")


def test_a_weight_file(run):
    loaded = weights.load(run.folder.path)
    model, match = loaded
    assert (model, match) == (loaded.model, loaded.match)
    short(loaded, "model: ResNet of 4,456 parameters, float32\n", "match: <resnet20, in_channels=1", ", complete>\n")
    short(weights.read_any(run.folder.path), str(run.checkpoint), "157 arrays")
    state = {name: array for name, array in model.state_dict().items() if not name.startswith("fc")}
    file = weights.WeightFile(run.folder.path, "PyTorch zip", state, {})
    short(weights.recognise(file, network="resnet20"), "2 missing names: fc.weight, fc.bias")


def test_a_prediction(run):
    classifier = prediction.of_run(run.folder.path)
    short(classifier, "<classifier: resnet20, 10 classes; in grey")
    (found,) = prediction.predict(classifier, [run.folder.path.parent / "a.png"])
    (best, probability), *_ = found.top(1)
    short(found, f"a.png: class {best}: {100 * probability:.1f} %, class")


def test_proofs(rng):
    x, labels = rng.standard_normal((2, 3, 8, 8)), np.array([1, 2])
    model = mr.nn.Sequential(mr.nn.Conv2d(3, 2, 3), mr.nn.Flatten(), mr.nn.Linear(72, 3))
    found = lockstep(model, x.astype("f"), labels, ("reference", "reference"))
    short(found, "<reference compared with reference: 8 steps, each within its tolerance; losses")
    short(found.steps[0], "<Conv2d of 0, forward: output: own error 0 of ")
    model.astype("float64")
    short(verify(model, x, cases=1), "<passed: 3 operations, 3 layers, 5 gradients>")
    short(check_layers(model, x)[0], "Linear() of 2: right, error ")
    short(
        Report(network="a long complaint " * 99), "<failed: 0 operations, 0 layers, 0 gradients; whole network: a long"
    )
    with pytest.raises(mr.GradcheckError) as error:
        gradcheck(lambda x: mr.tensor(2 * x.data) + x, rng.standard_normal((300, 2)))
    short(error.value, "input 0 of shape (300, 2): the gradient is wrong at 600 of the places tried; worst at index")
    y = mr.functional.relu(mr.tensor(x, requires_grad=True))
    short(mr.inspect.card(y.node), "ReLU()", "(2, 3, 8, 8) float64: mean ")


@pytest.mark.parametrize(("name", "lines"), [("resnet152", 12), ("plain110", 10), ("vgg19", 8)])
def test_a_large_network_shows_its_parts(name, lines):
    with mr.nn.init.skipped():
        model = mr.models.create(name)
    text = repr(model)
    assert len(text.splitlines()) <= lines
    counts = [int(count.replace(",", "")) for count in re.findall(r"; ([\d,]+) parameters\)", text)]
    leaves = [child for child in model._children.values() if not child._children]
    assert sum(counts) + sum(p.size for leaf in leaves for p in leaf.parameters()) == sum(
        p.size for p in model.parameters()
    )


def test_a_part_shows_what_is_in_it():
    model = mr.models.create("resnet50", width=2)
    assert "(layer2): Sequential(4 × Bottleneck; " in repr(model)
    assert "\n  (1): Bottleneck(3 × Conv2d, 3 × BatchNorm2d, ReLU; " in repr(model.layer2)
    assert "\n  (conv1): Conv2d(16, 4, kernel_size=(1, 1), stride=(1, 1), bias=False)\n" in repr(model.layer2[1])
