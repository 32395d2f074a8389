"""An exported ONNX file computes the same as the network, in every reader."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.nn import Module
from minires.weights import exported

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def as_trained(model, x, rng):
    """Scales, shifts and statistics that are not 1 and 0.

    The statistics are those of x, so that no activation runs away.  The shifts keep most of them positive: a hundred
    random layers of which each switches half of its input off make of the rounding of the first one a different result.
    """
    for module in model.modules():
        if isinstance(module, mr.nn.BatchNorm2d):
            module.weight.data[:] = rng.uniform(0.5, 1.5, module.num_features)
            module.bias.data[:] = rng.normal(1, 0.2, module.num_features)
            module.momentum = 1.0
    with mr.no_grad():
        model(mr.tensor(x))
    return model.eval()


def agree(content, model, images):
    with mr.no_grad():
        expected = model(mr.tensor(images)).data
    (found,) = session(content).run(None, {"images": images})
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = float(np.abs(expected).max())
    # float32, through up to 152 layers: two orders of summing agree to some 1e-6.
    assert np.abs(found - expected).max() <= 1e-5 * scale


NETWORKS = {  # name -> how far it is shrunk, so that all of them take seconds
    **{name: ({"width": 4, "num_classes": 7}, 64) for name in mr.models.names()},
    **{name: ({"width": 4}, 16) for name in mr.models.names() if mr.models.input_shape(name)[1] == 32},
    "vgg16": ({"width": 2, "num_classes": 7, "hidden": 8}, 224),
    "vgg19": ({"width": 2, "num_classes": 7, "hidden": 8}, 224),
}
OPTIONS = [
    *[("resnet18", {"shortcut": letter}, 64) for letter in "AC"],
    *[("resnet50", {"shortcut": letter, "stride_in": "3x3"}, 64) for letter in "ABC"],
    *[("resnet20", {"shortcut": letter}, 16) for letter in "BC"],
    ("resnet20", {"zero_channels": "both"}, 16),
    ("resnet20", {"batch_norm": False, "in_channels": 1}, 16),
    ("plain20", {"batch_norm": False}, 16),
    ("vgg16", {"batch_norm": True, "hidden": 8}, 64),  # 2×2 spread over 7×7
    ("vgg16", {"width": 1, "hidden": 8}, 448),  # 14×14 averaged into 7×7
    ("resnet34", {}, 75),
]


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [(name, *shrunk) for name, shrunk in NETWORKS.items()]
    + [(name, {"width": 2, "num_classes": 5} | options, size) for name, options, size in OPTIONS],
)
def test_every_network(rng, name, options, size):
    mr.manual_seed(0)
    model = mr.models.create(name, **options)
    shape = (options.get("in_channels", 3), size, size)
    as_trained(model, rng.standard_normal((16, *shape), np.float32), rng)
    model.train()
    content = exported(model, shape)
    assert model.training
    model.eval()
    for batch in (1, 3):
        agree(content, model, rng.standard_normal((batch, *shape), np.float32))
    state, file = model.state_dict(), onnx.load_from_string(content)
    names = {array.name: onnx.numpy_helper.to_array(array) for array in file.graph.initializer}
    assert set(state) <= set(names)
    assert all(np.array_equal(names[key], state[key]) for key in state)


def test_a_fused_network_has_no_batch_norm(rng):
    model = mr.models.create("resnet18", width=4, num_classes=7)
    x = rng.standard_normal((4, 3, 64, 64), np.float32)
    as_trained(model, x, rng).fuse()
    content = exported(model, (3, 64, 64))
    agree(content, model, x)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load_from_string(content).graph.node}


def test_the_metadata_of_the_file():
    model = mr.models.create("resnet20", width=2)
    file = onnx.load_from_string(exported(model, (3, 16, 16), 5, name="resnet20", metadata={"network": "resnet20"}))
    onnx.checker.check_model(file, full_check=True)
    assert (file.producer_name, file.producer_version) == ("minires", mr.__version__)
    assert {entry.key: entry.value for entry in file.metadata_props} == {"network": "resnet20"}
    assert file.graph.name == "resnet20"

    def sizes(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert sizes(file.graph.input[0]) == [5, 3, 16, 16]
    assert sizes(file.graph.output[0]) == [5, 10]
    dynamic = onnx.load_from_string(exported(model, (3, 16, 16)))
    assert sizes(dynamic.graph.input[0]) == ["batch", 3, 16, 16]
    assert sizes(dynamic.graph.output[0]) == ["batch", 10]
    assert {"layer1.0.conv1/Conv2d", "fc/Linear"} <= {node.name for node in dynamic.graph.node}


class Net(Module):
    """A function as a network, with a parameter or two."""

    def __init__(self, function, *shapes, dtype=np.float32):
        super().__init__()
        rng = np.random.default_rng(1)
        for i, shape in enumerate(shapes):
            setattr(self, f"w{i}", mr.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True))
        self.function, self.count = function, len(shapes)

    def forward(self, x):
        return self.function(x, *(getattr(self, f"w{i}") for i in range(self.count)))


FUNCTIONS = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2), (6, 2, 3, 2), (6,)),
    "conv2d same": (lambda x, w: F.conv2d(x, w, padding="same", dilation=3), (2, 4, 2, 3)),
    "conv2d valid": (lambda x, w: F.conv2d(x, w, padding="valid"), (2, 4, 2, 3)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, np.ones(4, "f"), np.full(4, 2, "f"), w, b, eps=0.1), (4,), (4,)),
    "batch_norm bare": (lambda x: F.batch_norm(x, np.ones(4, "f"), np.full(4, 2, "f")),),
    "batch_norm of rows": (
        lambda x, b: F.batch_norm(x.mean((2, 3)), np.ones(4, "f"), np.ones(4, "f"), None, b),
        (4,),
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0)),),
    "max_pool2d dilated": (lambda x: F.max_pool2d(x, 2, 1, (1, 2), (2, 3)),),
    "max_pool2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),),
    "max_pool2d ceil, fitting": (lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True),),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (3, 2), (2, 3), (1, 0)),),
    "avg_pool2d without padding": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),),
    "avg_pool2d ceil": (lambda x: F.avg_pool2d(x, 3, (2, 5), 1, ceil_mode=True),),
    "avg_pool2d ceil without padding": (lambda x: F.avg_pool2d(x, 3, (2, 5), 1, True, False),),
    "avg_pool2d divisor": (lambda x: F.avg_pool2d(x, 3, (2, 5), 1, True, divisor_override=-2),),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (5, 3)),),
    "adaptive_avg_pool2d more": (lambda x: F.adaptive_avg_pool2d(x, (13, 2)),),
    "linear": (lambda x, w, b: F.linear(F.flatten(x), w, b), (3, 4 * 7 * 8), (3,)),
    "linear along an axis": (lambda x, w, b: F.linear(x, w, b), (3, 8), (3,)),
    "linear along an axis without bias": (lambda x, w: F.linear(x, w), (3, 8)),
    "reshape": (lambda x: x.reshape((-1, 8, 2, 14)),),
    "reshape into the batch": (lambda x: x.reshape((-1, 56)),),
    "flatten": (lambda x: F.flatten(x, 1, end_dim=2),),
    "flatten all": (lambda x: F.flatten(x, 0),),
    "pad": (lambda x: F.pad(x, ((0, 0), (1, 2), (0, 3), (1, 0)), -1.5),),
    "softmax": (lambda x: F.softmax(x, 1),),
    "log_softmax": (lambda x: F.log_softmax(x.reshape((x.shape[0], -1))),),
    "dropout": (lambda x: F.relu(F.dropout(x, 0.5, training=False)),),
    "arithmetic": (lambda x, w: (2 - x * w) * 3 + -x + 1 - w + np.ones((4, 1, 1), np.float32), (8,)),
    "division and powers": (lambda x, w: (x * x + 1) ** 0.5 / (w * w + 1) + x**2, (8,)),
    "matmul": (lambda x, w: x @ w, (8, 3)),
    "matmul in batches": (lambda x, w: w @ x.T.transpose(3, 2, 1, 0), (4, 2, 7)),
    "elementary functions": (lambda x: ((x * x + 1).log() + (0.1 * x).exp()).sqrt() * x.tanh() - x.sigmoid(),),
    "max": (lambda x: x.max((1, -1), keepdims=True),),
    "max of nothing": (lambda x: x.max(()),),
    "transpose": (lambda x: x.transpose(0, 3, 1, 2),),
    "sum": (lambda x: x.sum((1, -1), keepdims=True),),
    "sum of nothing": (lambda x: x.sum(()),),
    "mean": (lambda x: x.mean(2),),
    "mean of nothing": (lambda x: x.mean(()),),
    "total": (lambda x: x.sum(),),
    "slice": (lambda x: x[:, ::2, 1:-1, -3:],),
    "slice backwards": (lambda x: x[:, ::-1, 5:1:-2, ::-3],),
    "slice with numbers": (lambda x: x[:, -1, 2, None, ..., -2:],),
    "slice of everything": (lambda x: x[...],),
    "slice of the batch": (lambda x: x[:1],),
    "a number": (lambda x: x[0],),
    "one image": (lambda x, w: F.max_pool2d(F.conv2d(x[0], w), 2), (2, 4, 2, 3)),
    "a shared weight": (lambda x, w: F.conv2d(F.conv2d(x, w), w), (4, 4, 2, 2)),
    "an unused result": (lambda x: (x.sum(), F.relu(x))[1],),
    "an early result": (lambda x: (h := F.relu(x), h * 2)[0],),
    "the images": (lambda x: x,),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operation_with_all_its_options(rng, name):
    model = Net(*FUNCTIONS[name]).eval()
    content = exported(model, (4, 7, 8))
    for batch in (1, 3):
        agree(content, model, rng.standard_normal((batch, 4, 7, 8), np.float32))
    assert [output.name for output in onnx.load_from_string(content).graph.output] == ["logits"]


def test_every_operation_is_translated_or_refused_by_name():
    from minires import ops
    from minires.weights.onnx_file import TRANSLATIONS

    assert set(TRANSLATIONS) == {*ops.__all__, "SyncBatchNorm"}


def test_float64(rng):
    model = Net(lambda x, w: F.max_pool2d(F.conv2d(x, w), 2, 2, 1, 1, True) * 2, (4, 4, 2, 2), dtype=np.float64)
    content = exported(model, (4, 7, 8))
    reader = pytest.importorskip("onnx.reference").ReferenceEvaluator(onnx.load_from_string(content))
    (found,) = reader.run(None, {"images": (x := rng.standard_normal((3, 4, 7, 8)))})
    np.testing.assert_allclose(found, model(mr.tensor(x)).data, rtol=1e-12, atol=1e-12)


class Square(mr.autograd.Function):
    def forward(self, x):
        return x * x


REFUSED = {
    "its own operation": (lambda x: Square()(x), "<Square.* it has no translation into ONNX"),
    "a fused operation": (lambda x: F.fused_conv2d(x, np.ones((2, 2, 1, 1), np.float32)), "FusedConv2d.* no fused"),
    "a loss": (lambda x: F.cross_entropy(F.flatten(x), np.zeros(x.shape[0], int)), "CrossEntropy.* a loss is not"),
    "dropout": (lambda x: F.dropout(x), "Dropout.* draws at random"),
    "batch statistics": (
        lambda x: F.batch_norm(x, None, None, training=True),
        "BatchNorm.* the batch's own statistics",
    ),
    "what it sees": (lambda x: x + np.abs(x.data), "Add.* reads an array that depends on the images"),
    "how many there are": (lambda x: x * float(x.shape[0]), "Mul.* reads an array that depends on the images, or on"),
    "an axis for each": (
        lambda x: x[: x.shape[0] // 2],
        "Slice.* its options depend on the images, or on their number",
    ),
    "a branch": (lambda x: F.relu(x) if x.shape[0] == 1 else -x, "ReLU.*: for two images the network computes <Neg"),
    "a loop": (lambda x: [x := F.relu(x) for _ in range(x.shape[0])][-1], "other operations for two images"),
    "two sizes": (
        lambda x: (x[:, None] + x).reshape((x.shape[0], x.shape[0], -1)),
        "Reshape.* more than one size depends on the number of images",
    ),
    "a constant": (lambda x: mr.tensor(np.ones((1, 2), np.float32)), "output is not the result of an operation"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_an_untranslatable_operation_is_named_with_its_module(why):
    function, message = REFUSED[why]
    model = mr.nn.Sequential(mr.nn.ReLU(), Net(function))
    with pytest.raises(ValueError, match=message) as failure:
        exported(model, (2, 4, 4))
    if "<" in str(failure.value):
        assert "of 1" in str(failure.value)
        assert "test_onnx_file.py" in str(failure.value)


def test_a_network_of_several_outputs_is_refused():
    with pytest.raises(TypeError, match="must return one Tensor, got tuple"):
        exported(Net(lambda x: (x, x)), (2, 4, 4))
