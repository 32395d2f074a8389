"""A network as an ONNX file computes what the network computes."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires.bench.onnx_graph import exported

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet20", {"width": 4}, 32),
        ("resnet20", {"width": 4, "zero_channels": "both"}, 32),
        ("plain20", {"width": 4}, 32),
        ("resnet18", {"width": 4, "num_classes": 7}, 64),
        ("resnet50", {"width": 4, "num_classes": 7}, 64),
        ("vgg16", {"width": 2, "num_classes": 7, "hidden": 8}, 224),
    ],
)
def test_onnxruntime_computes_the_same(rng, name, options, size):
    mr.manual_seed(0)
    model = mr.models.create(name, **options)
    x = rng.standard_normal((3, 3, size, size), np.float32)
    with mr.no_grad():
        model(mr.tensor(x))  # running statistics that are not 0 and 1
        expected = model.eval()(mr.tensor(x)).data
    model.train()
    content = exported(model, x.shape)
    assert model.training
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_an_operation_without_a_translation_is_named():
    class Odd(mr.nn.Module):
        def forward(self, x):
            return mr.functional.softmax(mr.functional.flatten(x))

    with pytest.raises(ValueError, match=r"Softmax.* has no translation"):
        exported(Odd(), (1, 3, 4, 4))
