"""The fused form of a network computes the bits of the plain one, forward and backward, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from lived import lived

import minires as mr
import minires.functional as F
from minires import backends, nn, parallel
from minires.autograd import Function
from minires.nn.fusing import in_form
from minires.nn.layers import conv_norm_relu

NATIVE = not backends.available()["native"]
if NATIVE:
    from minires.backends.native.compiled import native as compiled

BACKENDS = ["reference", *(["native"] if NATIVE else [])]
SETS = [name for name, kernels in compiled().instruction_sets().items() if kernels is not None] if NATIVE else []

NETWORKS = [
    ("resnet20", {}, (3, 3, 32, 32)),
    ("resnet20", {"width": 5, "shortcut": "B"}, (2, 3, 13, 10)),
    ("resnet20", {"width": 16, "shortcut": "C"}, (2, 3, 14, 9)),
    ("resnet20", {"width": 6, "batch_norm": False}, (2, 3, 12, 12)),
    ("plain20", {"in_channels": 1}, (3, 1, 16, 18)),
    ("plain20", {"width": 5, "batch_norm": False}, (3, 3, 8, 9)),
    ("resnet18", {"width": 16, "num_classes": 7}, (2, 3, 45, 33)),
    ("resnet50", {"width": 16, "num_classes": 7}, (2, 3, 40, 33)),
    ("resnet50", {"width": 8, "num_classes": 7, "stride_in": "3x3", "batch_norm": False}, (1, 3, 40, 33)),
    ("vgg16", {"width": 16, "num_classes": 7, "hidden": 20, "batch_norm": True}, (2, 3, 37, 64)),
    ("vgg16", {"width": 4, "num_classes": 7, "hidden": 20, "batch_norm": False}, (1, 3, 32, 32)),
]


class Names(mr.Observer):
    def __init__(self):
        self.names = []

    def after_forward(self, node, arrays, output):
        self.names.append(node.name)


def run(model, x, fused, recorded=True):
    """Everything that a pass leaves behind, by name; the model returns to the state that it is in."""
    before = {k: v.copy() for k, v in model.state_dict().items()}
    mr.manual_seed(5)
    image = mr.tensor(x.copy(), requires_grad=recorded)
    with in_form(model, fused), Names() as seen, mr.enable_grad() if recorded else mr.no_grad():
        y = model(image)
        if recorded:
            y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype))
    found = {"y": y.data, "x": image.grad} | {f"buffer {k}": b.copy() for k, b in model.named_buffers()}
    found |= {k: p.grad for k, p in model.named_parameters()}
    assert all(array.flags.writeable for array in (*model.state_dict().values(), image.data))
    model.load_state_dict(before)
    model.zero_grad()
    return found, seen.names


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if value is None or other[key] is None:
            assert value is other[key], key
        else:
            assert value.dtype == other[key].dtype
            np.testing.assert_array_equal(value, other[key], err_msg=key)


@pytest.mark.parametrize("mode", ["training", "evaluation", "folded"])
@pytest.mark.parametrize(("name", "options", "shape"), NETWORKS, ids=lambda v: v if isinstance(v, str) else None)
def test_networks_compute_the_same_bits(rng, name, options, shape, mode):
    model = lived(mr.models.create(name, **options), rng).train(mode == "training")
    if mode == "folded":
        model.fuse()
    x = rng.standard_normal(shape).astype(np.float32)
    for backend in BACKENDS:
        with mr.backend(backend):
            for recorded in (True, False):
                plain, nodes = run(model, x, False, recorded)
                fused, fewer = run(model, x, True, recorded)
                same(fused, plain)
                assert not {"BatchNormReLU", "BatchNormAddReLU", "FusedConv2d"} & set(nodes)
                assert "ReLU" not in set(fewer) - ({"ReLU"} if name == "vgg16" else set())  # of the classifier
                assert len(fewer) < len(nodes)


@pytest.mark.skipif(not NATIVE, reason="the native backend is missing")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("isa", SETS)
def test_every_instruction_set_and_number_of_threads(rng, isa, winograd, dtype):
    model = lived(mr.models.create("resnet20", width=16), rng).astype(dtype)
    x = rng.standard_normal((2, 3, 14, 11)).astype(dtype)
    before = backends.get_num_threads()
    with mr.backend("native", isa=isa, winograd=winograd):
        for training in (True, False):
            model.train(training)
            expected, _ = run(model, x, False)
            for threads in (1, 2, 3, 5):
                mr.set_num_threads(threads)
                try:
                    same(run(model, x, True)[0], expected)
                finally:
                    mr.set_num_threads(before)


@pytest.mark.parametrize("backend", ["emulated"])
def test_the_gpu_kernels_compute_the_same_bits(rng, backend):
    if reason := backends.available()[backend]:
        pytest.skip(reason)
    block = lived(mr.models.BasicBlock(4, 4), rng)
    x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    with mr.backend(backend):
        for training in (True, False):
            block.train(training)
            same(run(block, x, True)[0], run(block, x, False)[0])


class Single:
    """The reference backend as an object without fused functions: those are composed of its own single ones."""

    name = "single"

    def __getattr__(self, name):
        from minires.backends import reference

        return getattr(reference, name)

    def relu_forward(self, x):
        return np.maximum(x, 0) + np.float32(0.5)


def test_a_backend_of_ones_own_is_asked_for_each_part(rng):
    """Planted: fused functions that take the reference backend's ReLU whatever the backend has."""
    block = lived(mr.models.BasicBlock(4, 4), rng)
    x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    with backends.using(Single()):
        for training in (True, False):
            block.train(training)
            plain, fused = run(block, x, False)[0], run(block, x, True)[0]
            same(fused, plain)
    assert plain["y"].min() == 0.5


def test_twenty_steps_of_training(rng):
    x, labels = rng.standard_normal((8, 3, 12, 12)).astype(np.float32), rng.integers(0, 10, 8)
    weights = []
    for fused in (False, True):
        mr.manual_seed(0)
        model = mr.models.create("resnet20", width=8)
        if fused:
            assert model.fuse(training=True) is model
        sgd = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        for _ in range(20):
            sgd.zero_grad()
            F.cross_entropy(model(mr.tensor(x)), labels).backward()
            sgd.step()
        weights.append({k: v.copy() for k, v in model.state_dict().items()})
    same(*weights)


# -- what may not be fused


def test_state_dict_and_names_stay(rng):
    model = mr.models.create("resnet18", width=4)
    names = list(model.state_dict()), [path for path, _ in model.named_modules()]
    model.fuse(training=True)
    assert (list(model.state_dict()), [path for path, _ in model.named_modules()]) == names


def test_fused_nodes_belong_to_the_layers_that_made_them(rng):
    model, seen = mr.models.create("resnet20", width=2).fuse(training=True), []

    class Modules(mr.Observer):
        def before_forward(self, node, arrays):
            seen.append((node.module, node.name))

    with Modules():
        model(mr.tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32)))
        model.eval()(mr.tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32)))
    assert ("layer2.0.bn2", "BatchNormAddReLU") in seen
    assert ("layer2.0.bn1", "BatchNormReLU") in seen
    assert ("layer2.0.conv2", "FusedConv2d") in seen
    assert ("layer2.0.conv2", "Conv2d") in seen


class Doubled(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2.0


class Shifted(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1.0


class Leaky(nn.ReLU):
    def forward(self, x):
        return F.relu(x) - F.relu(-x) * 0.1


def doubled(block):
    weight = block.conv1.weight
    block.conv1 = Doubled(4, 4, 3, padding=1, bias=False)
    block.conv1.weight = weight


def shifted(block):
    block.bn2 = Shifted(4)


def leaky(block):
    block.relu = Leaky()


def same_padding(block):
    block.conv2.padding = "same"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", [doubled, shifted, leaky, same_padding], ids=lambda f: f.__name__)
def test_layers_with_a_forward_of_their_own_are_called(rng, change, training):
    block = mr.models.BasicBlock(4, 4)
    change(block)
    lived(block, rng).train(training)
    x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    same(run(block, x, True)[0], run(block, x, False)[0])


def test_a_block_with_a_forward_of_its_own_has_no_fused_form(rng):
    class Own(mr.models.BasicBlock):
        def forward(self, x):
            return super().forward(x) * 3.0

    block = Own(4, 4).fuse(training=True)
    assert not block.fused
    assert type(block(mr.tensor(rng.standard_normal((2, 4, 5, 3)).astype(np.float32))).node).__name__ == "Mul"


def test_batch_norm_over_ranks_is_not_fused(rng):
    class Two(parallel.Alone):
        size = 2

        def allreduce(self, array):
            array *= 2  # the other rank has the same images

    block = lived(mr.models.BasicBlock(4, 4), rng)
    parallel.synchronise(block, Two())
    x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    fused, nodes = run(block, x, True)
    same(fused, run(block, x, False)[0])
    assert nodes.count("SyncBatchNorm") == 2


def test_a_sequential_groups_its_layers(rng):
    layers = [
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    ]  # fmt: skip
    model = lived(nn.Sequential(*layers), rng)
    x = rng.standard_normal((2, 2, 6, 8)).astype(np.float32)
    for training, expected in (
        (True, ["Conv2d", "BatchNormReLU", "FusedConv2d", "BatchNorm", "ReLU", *["Conv2d", "BatchNorm"], "Conv2d"]),
        (False, ["FusedConv2d", "FusedConv2d", "BatchNorm", "ReLU", "FusedConv2d", "Conv2d"]),
    ):
        model.train(training)
        fused, nodes = run(model, x, True)
        same(fused, run(model, x, False)[0])
        assert nodes == [*expected, "MaxPool2d", "ReLU", "Conv2d"]


def test_one_image_without_a_batch_axis(rng):
    """(C, H, W) has no fused form."""
    conv, norm, relu = nn.Conv2d(2, 3, 3), nn.Identity(), nn.ReLU()
    x = mr.tensor(rng.standard_normal((2, 5, 4)).astype(np.float32))
    y = conv_norm_relu(x, conv, norm, relu)
    np.testing.assert_array_equal(y.data, F.relu(conv(x)).data)


# -- numbers that spread


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_nan_and_infinity_pass_through(rng, backend, training):
    block = lived(mr.models.BasicBlock(4, 4), rng).train(training)
    for value in (np.nan, np.inf):
        x = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
        x[1, 2, 3, 2] = value
        with mr.backend(backend), np.errstate(all="ignore"), mr.no_grad():
            with in_form(block, False):
                plain = block(mr.tensor(x)).data
            with in_form(block, True):
                np.testing.assert_array_equal(block(mr.tensor(x)).data, plain)
        assert np.isnan(plain).any()


def test_statistics_and_bias_may_move_on_before_backward(rng):
    """Those of the forward pass count; the tape holds the bias."""
    block = lived(mr.models.BasicBlock(4, 4), rng)
    x, cotangent = rng.standard_normal((2, 2, 4, 5, 3)).astype(np.float32)
    for training in (True, False):
        block.train(training).fuse(training=True)
        grads = []
        for moves in (False, True):
            state = {k: v.copy() for k, v in block.state_dict().items()}
            image = mr.tensor(x, requires_grad=True)
            y = block(image)
            if moves:
                for array in (block.bn1.running_mean, block.bn1.running_var):
                    array += 5
                with pytest.raises(ValueError, match="read-only"):
                    block.bn1.bias.data += 5
            y.backward(cotangent)
            grads.append(image.grad)
            block.load_state_dict(state)
        np.testing.assert_array_equal(*grads)


def test_a_result_that_is_kept_across_an_error_is_computed_already(rng):
    """Planted by an engine that computes results when they are first looked at."""
    kept = []

    class Leaves(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            kept.append(self.norm(self.conv(x)))
            raise ZeroDivisionError

    model, x = Leaves(), rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    for mode in (mr.enable_grad, mr.no_grad):
        with mode(), pytest.raises(ZeroDivisionError):
            model(mr.tensor(x.copy()))
    again = mr.tensor(x.copy())
    with mr.no_grad(), pytest.raises(ZeroDivisionError):
        model(again)
    again.data[...] = 0
    np.testing.assert_array_equal(kept[2].data, kept[0].data)
    assert isinstance(kept[0].node, Function)


# -- the functions themselves


def test_arguments_are_checked(rng):
    x, w = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 3, 3, 3))
    mean, var, shortcut = np.zeros(4), np.ones(4), rng.standard_normal((2, 4, 3, 2))
    ok = F.fused_conv2d(x, w, running_mean=mean, running_var=var, shortcut=shortcut, relu=True)
    assert ok.shape == (2, 4, 3, 2)
    with pytest.raises(ValueError, match="shortcut must have the output's shape"):
        F.fused_conv2d(x, w, shortcut=shortcut[:, :1])
    with pytest.raises(ValueError, match="running_var must be given"):
        F.fused_conv2d(x, w, running_mean=mean)
    with pytest.raises(ValueError, match="gamma and beta belong to a batch norm"):
        F.fused_conv2d(x, w, gamma=mean)
    with pytest.raises(TypeError, match="gamma must have x's dtype"):
        F.fused_conv2d(x, w, running_mean=mean, running_var=var, gamma=mean.astype(np.float32))
    with pytest.raises(ValueError, match=r"x must be \(N, C, H, W\)"):
        F.fused_conv2d(x[0], w)
    with pytest.raises(ValueError, match="shortcut must have x's shape"):
        F.batch_norm_add_relu(x, None, None, shortcut=x[:1])
    with pytest.raises(ValueError, match="more than one value per channel"):
        F.batch_norm_add_relu(x[:1, :, :1, :1], None, None)


def test_gradients_against_finite_differences(rng):
    x, w = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 3, 3, 3))
    b, gamma, beta = rng.standard_normal((3, 4))
    shortcut, mean, var = rng.standard_normal((2, 4, 3, 2)), rng.standard_normal(4), rng.uniform(0.5, 2, 4)

    def fused(x, w, b, gamma, beta, shortcut):
        return F.fused_conv2d(
            x, w, b, running_mean=mean, running_var=var, gamma=gamma, beta=beta, shortcut=shortcut, relu=True
        )

    mr.gradcheck(fused, [x, w, b, gamma, beta, shortcut])
    mr.gradcheck(lambda x, w, b: F.fused_conv2d(x, w, b, stride=2, padding=1), [x, w, b])
    mr.gradcheck(
        lambda x, gamma, beta, s: F.batch_norm_add_relu(x, None, None, gamma, beta, s),
        [rng.standard_normal((3, 4, 3, 2)), gamma, beta, rng.standard_normal((3, 4, 3, 2))],
    )
    mr.gradcheck(lambda x: F.batch_norm_add_relu(x, None, None), [rng.standard_normal((3, 4, 3, 2))])


@pytest.mark.parametrize("training", [True, False])
def test_what_has_no_fused_form_is_computed_as_in_the_plain_one(rng, training):
    """A shortcut that is broadcast, and a batch without images."""
    block = lived(mr.models.BasicBlock(1, 4), rng).train(training)
    x = rng.standard_normal((2, 1, 5, 3)).astype(np.float32)
    same(run(block, x, True)[0], run(block, x, False)[0])
    for fused in (False, True):
        with in_form(block, fused), pytest.raises(ValueError, match="x must not be empty"):
            block(mr.tensor(x[:0]))
        with in_form(block, fused), pytest.raises(TypeError, match="x must be a Tensor or an array"):
            block([1.0])


def test_a_forward_that_is_patched_later_is_called(rng):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()).fuse(training=True)
    object.__setattr__(model, "forward", lambda x: x)
    x = mr.tensor(rng.standard_normal((1, 1, 2, 2)).astype(np.float32))
    assert model(x) is x
