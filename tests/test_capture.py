"""A captured call computes the bits of the eager one, and what a recording misses is reported."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from concurrently import at_once
from lived import lived

import minires as mr
import minires.functional as F
from minires import backends, nn
from minires.capture import Plan

if backends.available()["native"]:
    pytest.skip("the native backend records", allow_module_level=True)

from minires.backends.native import filters, layout
from minires.backends.native.compiled import native

SETS = [name for name, kernels in native().instruction_sets().items() if kernels is not None]
NETWORKS = [
    ("resnet20", {}, (3, 3, 32, 32)),
    ("resnet20", {"width": 5, "shortcut": "B"}, (2, 3, 13, 10)),
    ("resnet20", {"width": 6, "shortcut": "C", "batch_norm": False}, (2, 3, 12, 12)),
    ("plain20", {"in_channels": 1, "width": 5}, (3, 1, 16, 18)),
    ("resnet18", {"width": 16, "num_classes": 7}, (2, 3, 45, 33)),
    ("resnet50", {"width": 16, "num_classes": 7}, (2, 3, 40, 33)),
    ("resnet50", {"width": 8, "num_classes": 7, "stride_in": "3x3"}, (1, 3, 40, 33)),
    ("vgg16", {"width": 8, "num_classes": 7, "hidden": 20, "batch_norm": True}, (2, 3, 37, 64)),
    ("vgg16", {"width": 4, "num_classes": 7, "hidden": 20, "batch_norm": False}, (1, 3, 32, 32)),
]
FORMS = {
    "plain": lambda model: model,
    "fused": lambda model: model.fuse(training=True),
    "folded": lambda model: model.fuse(),
}


@pytest.fixture(autouse=True)
def threads_as_before():
    before = mr.get_num_threads()
    yield
    mr.set_num_threads(before)


def network(name, options, dtype="float32", dropout=True):
    mr.manual_seed(3)
    model = lived(mr.models.create(name, **options), np.random.default_rng(3)).astype(dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
            module.forward = lambda x: x
    return model


class Training:
    """A whole step of training, as a user writes it."""

    def __init__(self, model):
        self.model = model
        self.optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def __call__(self, images, labels, lr):
        self.optimizer.zero_grad()
        self.optimizer.lr = lr
        logits = self.model(mr.tensor(images))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "logits": logits}

    def contents(self):
        grads = [p.grad for p in self.model.parameters()]
        assert all(g is not None for g in grads)
        named = {f"grad {i}": g for i, g in enumerate(grads)}
        return {k: v.copy() for k, v in (self.model.state_dict() | self.optimizer.state_dict() | named).items()}


def batches(shape, count, dtype="float32", classes=7):
    rng = np.random.default_rng(8)
    return [
        (rng.standard_normal(shape).astype(dtype), rng.integers(0, classes, shape[0]), 0.1 / (1 + i))
        for i in range(count)
    ]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    wrong = [name for name in expected if found[name].tobytes() != expected[name].tobytes()]
    assert not wrong, f"{len(wrong)} of {len(expected)} differ, the first is {wrong[0]}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "shape"), NETWORKS)
def test_evaluation_has_the_bits_of_the_eager_one(name, options, shape, dtype, form):
    model = FORMS[form](network(name, options, dtype).eval())
    (x, *_), (y, *_), (z, *_) = batches(shape, 3, dtype)
    fast = mr.capture(model, x)
    for image in (y, z, x, y):
        with mr.no_grad():
            expected = model(mr.tensor(image)).data
        found = fast(image)
        assert type(found) is np.ndarray
        assert found.tobytes() == expected.tobytes()
        image *= 0.5


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "shape"), NETWORKS)
def test_training_has_the_bits_of_the_eager_one(name, options, shape, dtype, form):
    given = batches(shape, 2, dtype)
    steps = [Training(FORMS[form](network(name, options, dtype, dropout=False))) for _ in range(2)]
    fast = mr.capture(steps[0], *given[0])
    for batch in given:
        found, expected = fast(*batch), steps[1](*batch)
        assert_same(found, {key: value.data for key, value in expected.items()})
        assert_same(steps[0].contents(), steps[1].contents())


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("isa", SETS)
def test_twenty_steps_of_training(isa, threads):
    given = batches((4, 3, 17, 16), 20)
    mr.set_num_threads(threads)
    with mr.backend("native", isa=isa):
        steps = [Training(network("resnet20", {"width": 8}).fuse(training=True)) for _ in range(2)]
        fast = mr.capture(steps[0], *given[0])
        for batch in given:
            fast(*batch)
        mr.set_num_threads(2)
        for batch in given:
            steps[1](*batch)
    assert_same(steps[0].contents(), steps[1].contents())


def test_capture_leaves_everything_as_it_was():
    step = Training(network("resnet20", {"width": 4}))
    for p in step.model.parameters():
        p.grad = np.ones_like(p.data)
    before = {k: v.copy() for k, v in step.model.state_dict().items()}
    drawn = mr.random.generator().bit_generator.state
    kept = [p.grad for p in step.model.parameters()]
    mr.capture(step, *batches((2, 3, 8, 8), 1)[0])
    assert_same(dict(step.model.state_dict()), before)
    assert all(p.grad is g for p, g in zip(step.model.parameters(), kept, strict=True))
    assert not any(v.any() for v in step.optimizer.state_dict().values())
    assert step.optimizer.lr == 0.1
    assert type(step.optimizer.lr) is float
    assert mr.random.generator().bit_generator.state == drawn
    assert all(a.flags.writeable for a in step.model.state_dict().values())


# -- what a recording misses


def test_an_array_expression_between_operations_is_reported():
    model = network("resnet20", {"width": 4}).eval()

    def between(x):
        return model(mr.tensor(x.data * 2))

    with pytest.raises(mr.CaptureError, match=r"forward of <Conv2d.* of conv1.*depends on a value"):
        mr.capture(between, mr.tensor(batches((1, 3, 8, 8), 1)[0][0]))


def test_an_operation_that_numpy_computes_is_reported_with_its_place():
    with pytest.raises(mr.CaptureError, match=r"forward of <Exp.*called at .*test_capture.py:\d+, computes by a NumPy"):
        mr.capture(lambda x: F.exp(x), mr.tensor(np.ones((2, 3), np.float32)))


def test_dropout_is_reported():
    with pytest.raises(mr.CaptureError, match="forward of <Dropout"):
        mr.capture(network("vgg16", {"width": 4, "hidden": 8}), batches((1, 3, 32, 32), 1)[0][0])


def test_a_result_of_an_array_expression_is_reported():
    relu = nn.ReLU()
    with pytest.raises(mr.CaptureError, match="a returned array is computed by a NumPy expression"):
        mr.capture(lambda x: relu(x).data + 1, mr.tensor(np.ones((2, 3), np.float32)))


def test_a_number_that_is_baked_in_is_reported():
    step = Training(network("resnet20", {"width": 4}))
    with pytest.raises(mr.CaptureError, match="is not computed as in a run without capture"):
        mr.capture(lambda x, y, lr: step(x, y, float(lr) * 0.5), *batches((2, 3, 8, 8), 1)[0])


def test_a_capture_that_fails_leaves_everything_as_it_was():
    step = Training(network("resnet20", {"width": 4}))
    before = {k: v.copy() for k, v in step.model.state_dict().items()}
    with pytest.raises(mr.CaptureError):
        mr.capture(lambda x, y, lr: step(x, y, float(lr) * 0.5), *batches((2, 3, 8, 8), 1)[0])
    assert_same(dict(step.model.state_dict()), before)
    assert step.optimizer.state_dict() == {}
    assert all(p.grad is None for p in step.model.parameters())


def test_a_parameter_that_numpy_moves_is_reported():
    model = network("resnet20", {"width": 4})
    plain = mr.optim.SGD(model.parameters(), lr=0.1)  # without momentum: NumPy's arithmetic

    def step(x, y):
        plain.zero_grad()
        F.cross_entropy(model(mr.tensor(x)), y).backward()
        plain.step()

    with pytest.raises(mr.CaptureError, match=r"model.conv1.weight is not computed as in a run without capture"):
        mr.capture(step, *batches((2, 3, 8, 8), 1)[0][:2])


def test_gradients_that_add_up_from_call_to_call_are_reported():
    model = network("resnet20", {"width": 4})

    def accumulate(x, y):
        F.cross_entropy(model(mr.tensor(x)), y).backward()

    # Running statistics move, so the test makes two calls: the second adds to the first one's gradients.
    with pytest.raises(mr.CaptureError, match="gradient 0 is not computed as in a run without capture"):
        mr.capture(accumulate, *batches((2, 3, 8, 8), 1)[0][:2])


def test_another_path_through_the_function_is_reported():
    layers = [nn.ReLU(), nn.ReLU()]

    def branches(x):
        y = layers[0](x)
        return layers[1](y) if x.data[0] == 1 else y

    with pytest.raises(mr.CaptureError, match="fn runs other operations on other values"):
        mr.capture(branches, mr.tensor(np.ones(3, np.float32)))


def test_a_buffer_that_is_used_again_too_early_is_reported(monkeypatch):
    """Planted: in the recorded call, but not in the eager one, an array of one shape is handed out twice."""
    sound, record, given = layout.empty, Plan._record, None

    def early(shape, like, lasting=False):
        array = sound(shape, like, lasting)
        return array if given is None or lasting else given.setdefault(tuple(shape), array)

    def planted(*arguments, **options):
        nonlocal given
        given = {}
        record(*arguments, **options)
        given = None

    monkeypatch.setattr(Plan, "_record", planted)
    model = network("resnet20", {"width": 4}).eval()
    for place in (layout, filters, __import__("minires.backends.native.backend", fromlist=["empty"])):
        monkeypatch.setattr(place, "empty", early)
    with pytest.raises(mr.CaptureError, match=r"depends on a value that is not recorded"):
        mr.capture(model, batches((1, 3, 8, 8), 1)[0][0])


def test_a_launch_that_is_left_out_is_reported(monkeypatch):
    """Planted: a replay skips one launch in the middle."""
    run = Plan._run

    def skipping(self, begin, end):
        for launch in range(begin, end):
            if launch != 20:
                run(self, launch, launch + 1)

    monkeypatch.setattr(Plan, "_run", skipping)
    with pytest.raises(mr.CaptureError, match="depends on a value that is not recorded"):
        mr.capture(network("resnet20", {"width": 4}), batches((2, 3, 8, 8), 1)[0][0])


# -- what does not fit


def test_backends_that_cannot_record_say_so():
    with mr.backend("reference"), pytest.raises(mr.CaptureError, match=r"'reference' cannot record.*use .* 'native'"):
        mr.capture(nn.ReLU(), np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("result", "named"), [(lambda t: t.item(), "got float; return a Tensor"), (lambda t: "no", "got str")]
)
def test_results_that_are_no_arrays(result, named):
    relu = nn.ReLU()
    with pytest.raises(mr.CaptureError, match=named):
        mr.capture(lambda x: result(relu(x)), mr.tensor(np.ones(1, np.float32)))


def test_inputs_that_are_no_arrays():
    with pytest.raises(mr.CaptureError, match=r"inputs\[1\] must be an array, a Tensor or a number, got str"):
        mr.capture(nn.ReLU(), np.ones(3, np.float32), "x")
    with pytest.raises(TypeError, match="fn must be callable, got int"):
        mr.capture(3)
    with pytest.raises(ValueError, match="shapes must be one of 'fixed', 'any'"):
        mr.capture(nn.ReLU(), np.ones(3, np.float32), shapes="some")


def test_structures_keep_their_kind():
    relu = nn.ReLU()
    fast = mr.capture(lambda x: ([relu(x)], {"x": relu(x)}, None), mr.tensor(np.ones(3, np.float32)))
    (y,), z, nothing = fast(mr.tensor(np.array([-1, 0, 2], np.float32)))
    assert y.tolist() == z["x"].tolist() == [0, 0, 2]
    assert nothing is None


@pytest.mark.parametrize("shapes", ["fixed", "any"])
def test_other_shapes_and_dtypes(shapes):
    model = network("resnet20", {"width": 4}).eval()
    small, large = (np.random.default_rng(0).standard_normal(s).astype("f4") for s in ((1, 3, 8, 8), (2, 3, 9, 8)))
    fast = mr.capture(model, small, shapes=shapes)
    if shapes == "fixed":
        with pytest.raises(mr.CaptureError, match=r"ndarray \(2, 3, 9, 8\) float32, the recording takes ndarray"):
            fast(large)
        return
    for x in (large, small, large):
        with mr.no_grad():
            assert np.array_equal(fast(x), model(mr.tensor(x)).data)
    assert repr(fast).count("launches") == 2


@pytest.mark.parametrize("shapes", ["fixed", "any"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: model.train(), "setting of a module"),
        (lambda model: model.fuse(training=True), "setting of a module"),
        (lambda model: setattr(model.fc, "weight", mr.tensor(model.fc.weight.data * 2)), "has been replaced"),
        (lambda model: setattr(model.fc.weight, "data", model.fc.weight.data * 2), "has been replaced"),
        (lambda model: setattr(model, "fc", nn.Linear(16, 10)), "has been replaced"),
        (lambda model: setattr(model.layer1[0].conv1, "bias", mr.tensor(np.ones(4, np.float32))), "has been replaced"),
        (lambda model: setattr(model.bn1, "running_mean", model.bn1.running_mean + 1), "has been replaced"),
        (lambda model: setattr(model.layer1[0].relu, "more", nn.ReLU()), "has been replaced"),
        (lambda model: setattr(model.layer1[0].relu, "more", mr.tensor(np.ones(1, np.float32))), "has been replaced"),
        (lambda model: model.layer1[0].relu.register_buffer("more", np.ones(1, np.float32)), "has been replaced"),
        (lambda model: setattr(model.fc, "bias", None), "has been replaced"),
        (lambda model: setattr(model.layer1[0].bn2, "eps", 0.5), "setting of a module"),
    ],
)
def test_what_changes_after_the_capture(shapes, change, named):
    model = network("resnet20", {"width": 4}).eval()
    x = batches((2, 3, 8, 8), 1)[0][0]
    fast = mr.capture(model, x, shapes=shapes)
    change(model)
    if shapes == "fixed":
        with pytest.raises(mr.CaptureError, match=f"{named}.*capture again"):
            fast(x)
    else:
        found = fast(x)
        with mr.no_grad():
            assert (
                np.array_equal(found, model.eval()(mr.tensor(x)).data) or model.training or named.startswith("setting")
            )


def test_a_label_out_of_range_is_an_error_in_a_replay_too():
    step = Training(network("resnet20", {"width": 4}))
    x, labels, lr = batches((2, 3, 8, 8), 1)[0]
    fast = mr.capture(step, x, labels, lr)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, C\)"):
        fast(x, labels + 1000, lr)


# -- what is computed once


def weights_are(model, x):
    with mr.no_grad():
        return model(mr.tensor(x)).data


def test_a_write_to_what_is_computed_once_raises():
    model = network("resnet20", {"width": 4}).eval()
    x = batches((1, 3, 8, 8), 1)[0][0]
    fast = mr.capture(model, x)
    fast(x)
    with pytest.raises(ValueError, match="read-only"):
        model.conv1.weight.data[...] = 0
    with pytest.raises(ValueError, match="read-only"):
        model.bn1.running_var += 1
    del fast
    gc.collect()
    model.conv1.weight.data[...] = 0


def test_new_weights_are_packed_again():
    model, other = network("resnet20", {"width": 4}).eval(), mr.models.create("resnet20", width=4)
    x, labels, _ = batches((2, 3, 8, 8), 1)[0]
    fast = mr.capture(model, x)
    first = fast(x)
    model.load_state_dict(other.state_dict())
    loaded = fast(x)
    assert np.array_equal(loaded, weights_are(model, x))
    assert not np.array_equal(loaded, first)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(model(mr.tensor(x)), labels).backward()
    optimizer.step()
    assert np.array_equal(fast(x), weights_are(model, x))
    assert not np.array_equal(fast(x), loaded)
    model.train()(mr.tensor(x))  # moves the running statistics
    assert np.array_equal(fast_after_mode(model, fast, x), weights_are(model.eval(), x))


def fast_after_mode(model, fast, x):
    model.eval()
    return fast(x)


def test_a_captured_step_moves_the_weights_of_a_captured_network():
    model = network("resnet20", {"width": 4}).fuse(training=True)
    step, batch = Training(model), batches((2, 3, 8, 8), 1)[0]
    train = mr.capture(step, *batch)
    model.eval()
    fast = mr.capture(model, batch[0])
    for _ in range(2):
        model.train()
        train(*batch)
        model.eval()
        assert np.array_equal(fast(batch[0]), weights_are(model, batch[0]))


# -- several captures, and what runs between replays


def test_two_captures_of_one_optimiser_share_its_velocities():
    shapes = [(3, 3, 8, 8), (2, 3, 8, 8), (3, 3, 8, 8), (3, 3, 8, 8), (2, 3, 8, 8)]
    given = [batches(shape, 1)[0] for shape in shapes]
    steps = [Training(network("resnet20", {"width": 4})) for _ in range(2)]
    fast = mr.capture(steps[0], *given[0], shapes="any")
    for batch in given:
        fast(*batch)
        steps[1](*batch)
        assert_same(steps[0].contents(), steps[1].contents())
    with pytest.raises(mr.CaptureError):
        mr.capture(lambda x, y, lr: steps[0](x, y, float(lr) * 0.5), *given[0])
    fast(*given[0])
    steps[1](*given[0])
    steps[0](*given[1])
    steps[1](*given[1])
    assert_same(steps[0].contents(), steps[1].contents())


def test_a_replay_leaves_the_gradients_of_others_alone():
    model = network("resnet20", {"width": 4})
    step, batch = Training(model), batches((2, 3, 8, 8), 1)[0]
    step(*batch)
    model.eval()
    fast = mr.capture(model, batch[0])
    kept = [p.grad for p in model.parameters()]
    fast(batch[0])
    assert all(p.grad is g for p, g in zip(model.parameters(), kept, strict=True))
    model.zero_grad()
    fast(batch[0])
    assert all(p.grad is None for p in model.parameters())


def test_gradients_that_the_call_forgets_are_forgotten_by_a_replay():
    step, batch = Training(network("resnet20", {"width": 4})), batches((2, 3, 8, 8), 1)[0]

    def forgetting(x, y, lr):
        step(x, y, lr)
        step.optimizer.zero_grad()

    step(*batch)
    mr.capture(forgetting, *batch)(*batch)
    assert all(p.grad is None for p in step.model.parameters())


def test_a_replay_does_not_write_under_a_live_tape():
    step, (x, y, lr) = Training(network("resnet20", {"width": 4})), batches((2, 3, 8, 8), 1)[0]
    fast = mr.capture(step, x, y, lr)
    before = {k: v.copy() for k, v in step.model.state_dict().items()}
    loss = F.cross_entropy(step.model.eval()(mr.tensor(x)), y)
    step.model.train()
    with pytest.raises(ValueError, match=r"read-only; nothing was replayed: a tape that has not been walked"):
        fast(x, y, lr)
    assert_same(dict(step.model.state_dict()), before)
    loss.backward()
    fast(x, y, lr)


@pytest.mark.parametrize(
    "change",
    [
        lambda step: setattr(step.optimizer, "weight_decay", 0.5),
        lambda step: setattr(step.optimizer, "momentum", 0.5),
        lambda step: setattr(step.model.bn1, "eps", 1.0),
        lambda step: setattr(step.model.bn1, "momentum", 0.5),
        lambda step: setattr(step.model.conv1.weight, "requires_grad", False),
        lambda step: step.optimizer.load_state_dict(step.optimizer.state_dict()),
    ],
)
def test_settings_that_are_recorded_as_numbers(change):
    step, batch = Training(network("resnet20", {"width": 4})), batches((2, 3, 8, 8), 1)[0]
    fast = mr.capture(step, *batch)
    fast(*batch)
    step.optimizer.lr = 7.0  # an input of the step, and so no setting
    fast(*batch)
    change(step)
    with pytest.raises(mr.CaptureError, match="capture again"):
        fast(*batch)


def test_a_rate_outside_of_the_inputs_is_a_setting():
    step, (x, y, _) = Training(network("resnet20", {"width": 4})), batches((2, 3, 8, 8), 1)[0]

    def fixed(x, y):
        return step(x, y, step.optimizer.lr)

    fast = mr.capture(fixed, x, y)
    fast(x, y)
    step.optimizer.lr = 0.01
    with pytest.raises(mr.CaptureError, match="setting of a module or an optimiser"):
        fast(x, y)


def test_an_array_expression_of_parameters_is_reported():
    layer = nn.Linear(3, 4)
    with pytest.raises(mr.CaptureError, match=r"forward of <Linear.*depends on a value that is not recorded"):
        mr.capture(lambda x: F.linear(x, mr.tensor(layer.weight.data * 2)), mr.tensor(np.ones((2, 3), np.float32)))


def test_inputs_that_are_not_finite_hide_nothing():
    relu = nn.ReLU()
    with pytest.raises(mr.CaptureError, match="depends on a value that is not recorded"):
        mr.capture(lambda x: relu(mr.tensor(x.data * 2)), mr.tensor(np.full(3, np.nan, np.float32)))


held = nn.ReLU()


def test_globals_of_inner_functions_and_rebound_ones(monkeypatch):
    def inner(x):
        return [layer(x) for layer in (held,)][0]  # noqa: RUF015  (a function of its own)

    monkeypatch.setitem(globals(), "held", nn.Linear(3, 3).eval())
    x = np.ones((2, 3), np.float32)
    fast = mr.capture(inner, mr.tensor(x))
    fast(mr.tensor(x))
    held.train()
    with pytest.raises(mr.CaptureError, match="setting of a module"):
        fast(mr.tensor(x))
    held.eval()
    monkeypatch.setitem(globals(), "held", nn.Linear(3, 3).eval())
    with pytest.raises(mr.CaptureError, match="a global name of fn stands for another object"):
        fast(mr.tensor(x))


def test_a_network_in_evaluation_that_records_gradients():
    """Its statistics are copied for backward: memory that must not be used again for the packed weights."""
    model = network("resnet20", {"width": 4}).eval()
    x = batches((2, 3, 8, 8), 1)[0][0]
    fast = mr.capture(lambda x: model(x), mr.tensor(x))
    for image in (x, 2 * x):
        assert np.array_equal(fast(mr.tensor(image)), weights_are(model, image))


def test_a_network_with_a_live_tape_can_be_captured():
    model = network("resnet20", {"width": 4}).eval()
    x, labels, _ = batches((2, 3, 8, 8), 1)[0]
    loss = F.cross_entropy(model(mr.tensor(x)), labels)
    fast = mr.capture(model, x)
    assert np.array_equal(fast(x), weights_are(model, x))
    loss.backward()
    twin = network("resnet20", {"width": 4}).eval()
    F.cross_entropy(twin(mr.tensor(x)), labels).backward()
    for p, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert np.array_equal(p.grad, other.grad)


def test_an_error_in_the_call_leaves_everything_as_it_was():
    step, (x, y, lr) = Training(network("resnet20", {"width": 4})), batches((2, 3, 8, 8), 1)[0]
    before, calls = {k: v.copy() for k, v in step.model.state_dict().items()}, []

    def failing(x, y, lr):
        step(x, y, lr)
        loss = F.cross_entropy(step.model(mr.tensor(x)), y)  # its tape lives on in the error's traceback
        calls.append(loss)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mr.capture(failing, x, y, lr)
    assert len(calls) == 1
    assert_same(dict(step.model.state_dict()), before)
    assert step.optimizer.lr == 0.1
    assert all(p.grad is None for p in step.model.parameters())


def test_inputs_that_require_gradients_are_refused():
    with pytest.raises(mr.CaptureError, match=r"inputs\[0\] must not require a gradient"):
        mr.capture(nn.ReLU(), mr.tensor(np.ones(3, np.float32), requires_grad=True))


# -- threads and memory


def test_threads_replay_one_after_another():
    model = network("resnet20", {"width": 4}).eval()
    images = [x for x, *_ in batches((1, 3, 8, 8), 4)]
    fast = mr.capture(model, images[0])
    expected = [weights_are(model, x) for x in images]

    def often(x, y):
        return all(np.array_equal(fast(x), y) for _ in range(50))

    assert all(at_once(*(lambda x=x, y=y: often(x, y) for x, y in zip(images, expected, strict=True))))


def test_other_threads_are_not_recorded():
    model = network("resnet20", {"width": 4}).eval()
    x = batches((1, 3, 8, 8), 1)[0][0]

    def eager():
        for _ in range(20):
            weights_are(model, x)

    fast, _ = at_once(lambda: mr.capture(model, x), eager)
    alone = mr.capture(model, x)
    assert repr(fast) == repr(alone)
    assert np.array_equal(fast(x), alone(x))


def test_memory_goes_with_the_last_reference():
    model = network("resnet20", {"width": 4}).eval()
    fast = mr.capture(model, batches((1, 3, 8, 8), 1)[0][0])
    kept = fast(batches((1, 3, 8, 8), 1)[0][0])
    plan, held = weakref.ref(next(iter(fast._plans.values()))), kept.copy()
    del fast
    gc.collect()
    assert plan() is None
    assert np.array_equal(kept, held)


def test_replays_reserve_no_memory():
    step, batch = Training(network("resnet20", {"width": 4}).fuse(training=True)), batches((4, 3, 16, 16), 1)[0]
    fast = mr.capture(step, *batch)
    fast(*batch)
    before = native().memory(), repr(fast)
    for _ in range(1000):
        fast(*batch)
    assert (native().memory(), repr(fast)) == before
