"""CUDA graphs of captured calls, against a strict stand-in for CuPy (strict_cupy.py) whose kernels the emulator runs.

Nothing here runs on a GPU; tests/gpu/test_device.py captures on one.
"""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
import strict_cupy
from lived import lived
from strict_cupy import counts

import minires as mr
import minires.functional as F
from minires import backends, nn
from minires.backends.kernels import graph, provider
from minires.training.update import Update

if backends.available()["emulated"]:
    pytest.skip("the emulator runs the kernels", allow_module_level=True)

SHAPE = (2, 3, 8, 8)


@pytest.fixture(autouse=True)
def cupy():
    counts.clear()
    with strict_cupy.installed() as module, mr.backend("cuda"):
        yield module
    assert strict_cupy.here.capturing is None
    assert graph.current() is None
    assert strict_cupy.get_current_stream() is strict_cupy.null


def network(dtype="float32", form=lambda model: model, name="resnet20", **options):
    mr.manual_seed(3)
    model = lived(mr.models.create(name, **{"width": 4, **options}), np.random.default_rng(3)).astype(dtype)
    return form(model).to("cuda")


class Training:
    """A whole step of training, as a user writes it."""

    def __init__(self, model, **options):
        self.model = model
        self.optimizer = mr.optim.SGD(
            model.parameters(), **{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, **options}
        )

    def __call__(self, images, labels, lr):
        self.optimizer.zero_grad()
        self.optimizer.lr = lr
        logits = self.model(images if isinstance(images, mr.Tensor) else mr.tensor(images))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "logits": logits}

    def contents(self):
        grads = {f"grad {i}": p.grad for i, p in enumerate(self.model.parameters()) if p.grad is not None}
        return {k: v.get() for k, v in (self.model.state_dict() | self.optimizer.state_dict() | grads).items()}


def batches(count, shape=SHAPE, dtype="float32"):
    rng = np.random.default_rng(8)
    return [
        (rng.standard_normal(shape).astype(dtype), rng.integers(0, 7, shape[0]), 0.1 / (1 + i)) for i in range(count)
    ]


def uploaded(cupy, batch):
    images, labels, lr = batch
    return cupy.asarray(images), cupy.asarray(labels), lr


def eager(cupy, model, image):
    with mr.no_grad():
        return model(mr.tensor(cupy.asarray(image))).data.get()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    wrong = [name for name in expected if found[name].tobytes() != expected[name].tobytes()]
    assert not wrong, f"{len(wrong)} of {len(expected)} differ, the first is {wrong[0]}"


FORMS = {
    "plain": lambda model: model,
    "fused": lambda model: model.fuse(training=True),
    "folded": lambda model: model.fuse(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_evaluation_has_the_bits_of_the_eager_one(cupy, dtype, form):
    model = network(dtype, FORMS[form]).eval()
    images = [images for images, *_ in batches(3, dtype=dtype)]
    fast = mr.capture(model, cupy.asarray(images[0]))
    for image in (*images[1:], images[0]):
        for given in (cupy.asarray(image), image, mr.tensor(cupy.asarray(image)).data):  # a replay also takes NumPy's
            found = fast(given)
            assert type(found) is cupy.ndarray
            assert found.get().tobytes() == eager(cupy, model, image).tobytes()


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet20", {"shortcut": "B", "batch_norm": False}, (2, 3, 9, 8)),
        ("resnet18", {"num_classes": 7}, (1, 3, 33, 20)),
        ("resnet50", {"num_classes": 7}, (1, 3, 33, 20)),
        ("vgg16", {"num_classes": 7, "hidden": 8, "batch_norm": True}, (1, 3, 32, 32)),
    ],
)
def test_other_networks(cupy, name, options, shape):
    model = network(name=name, **options).eval()
    (first, *_), (second, *_) = batches(2, shape)
    fast = mr.capture(model, first)
    assert fast(second).get().tobytes() == eager(cupy, model, second).tobytes()


@pytest.mark.parametrize(("form", "dtype"), [("plain", "float32"), ("fused", "float64")])
def test_training_has_the_bits_of_the_eager_one(cupy, form, dtype):
    """Several steps whose learning rate changes, and eager steps between them."""
    steps = [Training(network(dtype, FORMS[form])) for _ in range(2)]
    given = batches(4, dtype=dtype)
    fast = mr.capture(steps[0], *uploaded(cupy, given[0]))
    for number, batch in enumerate(given):
        found = steps[0](*uploaded(cupy, batch)) if number == 2 else fast(*batch)
        expected = steps[1](*uploaded(cupy, batch))
        found = {name: getattr(value, "data", value) if number == 2 else value for name, value in found.items()}
        assert_same({k: v.get() for k, v in found.items()}, {k: v.data.get() for k, v in expected.items()})
        assert_same(steps[0].contents(), steps[1].contents())


def test_a_replay_is_one_graph_and_waits_for_nothing(cupy):
    step, batch = Training(network()), batches(1)[0]
    fast = mr.capture(step, *uploaded(cupy, batch))
    assert repr(fast).endswith(": 1 launch, 0 MB>")
    fast(*batch)
    counts.clear()
    loss = fast(*batch)["loss"]
    assert counts["graphs"] == 1
    assert counts["cudaMallocs"] == counts["synchronisations"] == 0
    assert counts["launches"] == 2 + 3 + 2  # uploads of images and labels, copies to the inputs and of the results
    counts.clear()
    fast(*uploaded(cupy, batch))
    assert counts["synchronisations"] == 2  # labels on the device: their least and their greatest are read
    assert np.isfinite(loss.get())


def test_nothing_is_allocated_on_the_device_while_a_stream_captures(cupy, monkeypatch):
    """The stand-in refuses it; here the memory that a recording reserves is shown to be what is needed."""
    sizes = []
    malloc = strict_cupy.Memory.__init__
    monkeypatch.setattr(strict_cupy.Memory, "__init__", lambda self, size: (sizes.append(size), malloc(self, size))[1])
    plan = next(iter(mr.capture(network().eval(), batches(1)[0][0])._plans.values()))
    assert max(sizes) == plan.recording.reserve > 0
    monkeypatch.setattr(graph.GraphRecording, "peak", lambda self: 512)
    with pytest.raises(mr.CaptureError, match=r"in forward of <.*cannot be recorded: .*cudaMalloc"):
        mr.capture(network().eval(), batches(1)[0][0])


def test_capture_leaves_everything_as_it_was(cupy):
    step = Training(network())
    for p in step.model.parameters():
        p.grad = cupy.ones(p.shape, p.dtype)
    kept, before = [p.grad for p in step.model.parameters()], step.contents()
    mr.capture(step, *uploaded(cupy, batches(1)[0]))
    assert all(p.grad is g for p, g in zip(step.model.parameters(), kept, strict=True))
    after = step.contents()
    velocities = {name: after.pop(name) for name in step.optimizer.state_dict()}
    assert_same(after, before)
    assert not any(v.any() for v in velocities.values())
    assert type(step.optimizer.lr) is float


# -- what cannot be recorded


def fails(fn, *inputs, match):
    """The capture raises and leaves everything as it was."""
    step = fn if isinstance(fn, Training) else getattr(fn, "step", None)
    before = step.contents() if step else {}
    with pytest.raises(mr.CaptureError, match=match):
        mr.capture(fn, *inputs)
    assert_same(step.contents() if step else {}, before)


class Altered:
    """A step of training with something in its middle that no graph holds."""

    def __init__(self, before=lambda x, y, lr: (x, y, lr), after=lambda loss: loss, **options):
        self.step, self.before, self.after = Training(network(), **options), before, after

    def __call__(self, x, y, lr):
        return self.after(self.step(*self.before(x, y, lr))["loss"])


READ = (
    r"after backward of <Conv2d.* of conv1.*, whose forward was called at .*cannot be recorded: the current stream is"
)


@pytest.mark.parametrize("read", ["item", "numpy", "__float__", "__repr__"])
def test_a_value_that_is_read_is_reported(read):
    def after(loss):
        getattr(loss, read)()
        return loss

    fails(Altered(after=after), *batches(1)[0], match=READ)


def test_synchronising_is_reported(cupy):
    def after(loss):
        cupy.cuda.get_current_stream().synchronize()
        return loss

    fails(
        Altered(after=after), *batches(1)[0], match=r"after backward of <Conv2d.*StreamCaptureUnsupported.*Synchronize"
    )


def test_a_branch_on_a_value_is_reported():
    relu = nn.ReLU()
    x = np.ones((2, 3), np.float32)
    fails(lambda x: relu(x) if x.data[0, 0] > 0 else x, mr.tensor(x), match="before any operation, the call cannot be")


def test_a_numpy_statement_is_reported(cupy):
    relu = nn.ReLU()

    def on_the_cpu(x):
        return relu(mr.tensor(cupy.asarray(np.tanh(x.numpy()))))

    fails(on_the_cpu, mr.tensor(np.ones((2, 3), np.float32)), match="call cannot be recorded: the current stream is")


def test_a_constant_of_numpy_is_reported(cupy):
    def uploading(x):
        return F.relu(x) + mr.tensor(cupy.asarray(np.ones((2, 3), np.float32)))

    fails(uploading, mr.tensor(np.ones((2, 3), np.float32)), match=r"after forward of <ReLU.*memory that is not pinned")


def test_dropout_is_reported():
    model = network(name="vgg16", hidden=8)
    fails(model, batches(1, (1, 3, 32, 32))[0][0], match=r"in forward of <Dropout.*, called at .*cannot be recorded")


def test_a_number_that_is_baked_in_is_reported():
    fails(Altered(before=lambda x, y, lr: (x, y, float(lr) * 0.5)), *batches(1)[0], match="is not computed as in a run")


def test_a_baked_number_between_operations_is_reported_with_the_operation():
    relu = nn.ReLU()
    fails(
        lambda x, scale: relu(mr.tensor(x.data * float(scale))), mr.tensor(np.ones((2, 3), np.float32)), 0.5,
        match=r"forward of <ReLU.*called at .*test_capture_cuda.py.* depends on a value that is not recorded",
    )  # fmt: skip


def test_an_expression_of_cupy_is_recorded(cupy):
    relu, x = nn.ReLU(), np.arange(-3, 3, dtype=np.float32)
    fast = mr.capture(lambda x: relu(mr.tensor(x.data * 2)), mr.tensor(x))
    assert fast(mr.tensor(x - 1)).get().tolist() == np.maximum(2 * (x - 1), 0).tolist()


@pytest.mark.parametrize("options", [{"nesterov": True}, {"momentum": 0.0}])
def test_optimisers_of_array_expressions_fix_their_rate(cupy, options):
    batch = batches(1)[0]
    fails(Altered(**options), *batch, match="is not computed as in a run without capture")
    steps = [Training(network(), **options) for _ in range(2)]
    fast = mr.capture(lambda x, y: steps[0](x, y, 0.05), *batch[:2])
    for _ in range(2):
        fast(*batch[:2])
        steps[1](*uploaded(cupy, batch)[:2], 0.05)
        assert_same(steps[0].contents(), steps[1].contents())
    steps[0].optimizer.momentum = 0.5
    with pytest.raises(mr.CaptureError, match="setting of a module or an optimiser"):
        fast(*batch[:2])


def test_memory_of_another_pool_is_reported(cupy):
    """It would return to that pool after the capture, and replays would write into what lies there by then."""
    layers, other = [nn.ReLU(), nn.ReLU()], cupy.cuda.MemoryPool()
    kept = [other.malloc(2**20)]

    def elsewhere(x):
        y = layers[0](x)
        with cupy.cuda.using_allocator(other.malloc):
            kept.clear()
            z = F.relu(y)
        return layers[1](z)

    x = mr.tensor(np.ones((2, 3), np.float32))
    with cupy.cuda.Stream(non_blocking=True):
        fails(elsewhere, x, match=r"cudaMalloc")
    assert not kept


def test_a_pool_with_free_memory_is_reported_too(cupy, monkeypatch):
    other = cupy.cuda.MemoryPool()
    monkeypatch.setattr(strict_cupy, "UNIT", 512)
    enter = graph.GraphRecording.__enter__

    def warmed(self):
        found = enter(self)
        if not self.eager:  # in the arena of the capturing stream
            strict_cupy.here.capturing, capturing = None, strict_cupy.here.capturing
            other.malloc(2**16)
            strict_cupy.here.capturing = capturing
        return found

    def elsewhere(x):
        with cupy.cuda.using_allocator(other.malloc):
            return F.relu(x)

    monkeypatch.setattr(graph.GraphRecording, "__enter__", warmed)
    message = r"forward of <ReLU.*or in memory of another pool, which is not recorded"
    fails(elsewhere, mr.tensor(np.ones((2, 3), np.float32)), match=message)


def test_work_on_another_stream_is_reported(cupy):
    def aside(x):
        y = F.relu(x)
        with strict_cupy.null:
            y.data.fill(0)
        return y

    fails(aside, mr.tensor(np.ones((2, 3), np.float32)), match=r"after forward of <ReLU.*work on another stream")


def test_a_buffer_that_is_used_again_too_early_is_reported(cupy, monkeypatch):
    """Planted: in a graph, but not eagerly, arrays of one shape lie in one place."""
    given, init = {}, strict_cupy.ndarray.__init__

    def early(self, shape, dtype=float, memptr=None, *more, **options):
        if graph.current() is None:
            given.clear()
        elif memptr is None and len(shape) == 4:
            key = tuple(shape)
            init(self, shape, dtype, given.get(key), *more, **options)
            given.setdefault(key, self.data)
            return
        init(self, shape, dtype, memptr, *more, **options)

    monkeypatch.setattr(strict_cupy.ndarray, "__init__", early)
    with pytest.raises(mr.CaptureError, match=r"forward of <.*depends on a value that is not recorded"):
        mr.capture(network().eval(), batches(1)[0][0])


@pytest.mark.parametrize("graphs", ["parts", "whole"])
def test_a_launch_that_is_left_out_is_reported(monkeypatch, graphs):
    end = strict_cupy.Stream.end_capture

    def shortened(self):
        found = end(self)
        if graphs == "whole" and len(found.work) > 100:
            del found.work[50]
        elif graphs == "parts" and len(graph.current()) == 9:
            del found.work[0]
        return found

    monkeypatch.setattr(strict_cupy.Stream, "end_capture", shortened)
    message = "of <.* depends on a value that" if graphs == "parts" else "is not computed as in a run|a returned array"
    fails(Training(network()), *batches(1)[0], match=message)


def test_tables_are_copied_again_by_each_launch(cupy):
    """What the update of all parameters reads lies in memory that earlier launches of the graph write over."""
    step, batch = Training(network()), batches(1)[0]
    fast = mr.capture(step, *uploaded(cupy, batch))
    recording = next(iter(fast._plans.values())).recording
    assert len(recording._pinned) == 5
    recording._pinned.clear()
    gc.collect()
    with pytest.raises(strict_cupy.CUDARuntimeError, match="pinned memory that is copied has been freed"):
        fast(*batch)


def test_gradients_that_add_up_from_call_to_call_are_reported():
    model = network()
    fails(
        lambda x, y: F.cross_entropy(model(x), y).backward(), mr.tensor(batches(1)[0][0]), batches(1)[0][1],
        match="gradient 0 is not computed as in a run without capture",
    )  # fmt: skip


# -- labels


@pytest.mark.parametrize("home", ["numpy", "cupy"])
def test_a_label_out_of_range_is_an_error_in_a_replay_too(cupy, home):
    step, (x, labels, lr) = Training(network()), batches(1)[0]
    fast = mr.capture(step, x, labels, lr)
    before = step.contents()
    wrong = labels + 1000 if home == "numpy" else cupy.asarray(labels + 1000)
    counts.clear()
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\) for 10 classes, got 100\d"):
        fast(x, wrong, lr)
    assert counts["graphs"] == 0
    assert_same(step.contents(), before)


def test_labels_that_are_no_input_are_reported(cupy):
    step, (x, y, lr) = Training(network()), uploaded(cupy, batches(1)[0])
    with pytest.raises(mr.CaptureError, match=r"after forward of <Linear.* labels, must be inputs of what is captured"):
        mr.capture(lambda x, lr: step(x, y, lr), x, lr)
    with pytest.raises(mr.CaptureError, match="must be inputs of what is captured"):
        mr.capture(lambda x, y, lr: step(x, y + 1, lr), x, y, lr)


def test_ignored_labels_are_reported(cupy):
    model, (x, y, _) = network(), batches(1)[0]
    message = r"after forward of <Linear.*the current stream is capturing"
    fails(lambda x, y: F.cross_entropy(model(x), y, ignore_index=3), mr.tensor(x), y, match=message)


# -- what does not fit


@pytest.mark.parametrize("shapes", ["fixed", "any"])
def test_other_shapes_dtypes_modes_and_parameters(cupy, shapes):
    model = network().eval()
    small, large = batches(1)[0][0], batches(1, (1, 3, 9, 8))[0][0]
    fast = mr.capture(model, small, shapes=shapes)
    if shapes == "fixed":
        with pytest.raises(mr.CaptureError, match=r"ndarray \(1, 3, 9, 8\) float32, the recording takes ndarray"):
            fast(large)
        with pytest.raises(mr.CaptureError, match="float64, the recording takes ndarray"):
            fast(small.astype(float))
        model.train()
        with pytest.raises(mr.CaptureError, match=r"setting of a module.*capture again"):
            fast(small)
        model.eval().fc.weight.data = model.fc.weight.data * 2
        with pytest.raises(mr.CaptureError, match=r"has been replaced.*capture again"):
            fast(small)
        return
    for x in (large, small, large):
        assert fast(x).get().tobytes() == eager(cupy, model, x).tobytes()
    assert repr(fast).count("1 launch,") == 2
    model.fc.weight.data = model.fc.weight.data * 2
    assert fast(small).get().tobytes() == eager(cupy, model, small).tobytes()


def test_new_weights_in_their_old_memory_are_replayed(cupy):
    model, x = network().eval(), batches(1)[0][0]
    fast = mr.capture(model, x)
    first = fast(x).get()
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})
    assert fast(x).get().tobytes() == eager(cupy, model, x).tobytes() != first.tobytes()


def test_the_training_loop_does_not_capture_on_a_gpu(cupy):
    model, (x, labels, _) = network(), batches(1)[0]
    update = Update(model, mr.optim.SGD(model.parameters(), 0.1, 0.9), capture=True)
    assert update(cupy.asarray(x), cupy.asarray(labels), lr=0.1).loss > 0
    assert update.captured is None
    assert counts["graphs"] == 0


@pytest.mark.parametrize("name", ["cublas", "emulated"])
def test_backends_that_cannot_record_say_so(name):
    message = rf"backend '{name}' cannot record: use the backend 'native', or 'cuda' with CuPy's arrays"
    with mr.backend(name), pytest.raises(mr.CaptureError, match=message):
        mr.capture(nn.ReLU(), np.ones(3, np.float32))


def test_cublas_products_are_reported():
    with mr.backend("cuda", gemm="cublas"):
        message = r"in forward of <Linear.*cannot be recorded: calling cuBLAS"
        fails(nn.Linear(3, 4).to("cuda"), np.ones((2, 3), np.float32), match=message)


def test_cupys_arrays_without_their_backend(cupy):
    with backends.using(None), pytest.raises(mr.CaptureError, match=r"backend 'reference' cannot record: use .*'cuda'"):
        mr.capture(nn.ReLU(), cupy.asarray(np.ones(3, np.float32)))


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    provider.device.cache_clear()
    with (
        pytest.raises(mr.BackendUnavailable, match="'cuda' cannot be used here: CuPy is not installed"),
        mr.backend("cuda"),
    ):
        mr.capture(nn.ReLU(), np.ones(3, np.float32))


# -- memory


def test_memory_goes_with_the_last_reference(cupy):
    fast = mr.capture(network().eval(), batches(1)[0][0])
    kept = fast(batches(1)[0][0])
    recording = next(iter(fast._plans.values())).recording
    block = strict_cupy.UnownedMemory(recording.blocks[0][0], 1, None).block
    recorded, held = weakref.ref(recording), kept.get()
    del fast, recording
    gc.collect()
    assert recorded() is None
    assert not block.alive
    assert kept.get().tobytes() == held.tobytes()


def test_one_recording_at_a_time_takes_memory(monkeypatch):
    made, init = [], graph.GraphRecording.__init__

    def noted(self, *arguments):
        assert not any(reference() for reference in made)
        init(self, *arguments)
        made.append(weakref.ref(self))

    monkeypatch.setattr(graph.GraphRecording, "__init__", noted)
    monkeypatch.setattr(gc, "collect", None)
    mr.capture(Training(network()), *batches(1)[0])
    assert len(made) == 4  # two eager runs, one recording in parts, one whole


def test_two_captures_of_one_optimiser_share_its_velocities(cupy):
    steps = [Training(network()) for _ in range(2)]
    given = [batches(1, shape)[0] for shape in (SHAPE, (3, 3, 8, 8), SHAPE)]
    fast = mr.capture(steps[0], *given[0], shapes="any")
    for batch in given:
        fast(*batch)
        steps[1](*uploaded(cupy, batch))
        assert_same(steps[0].contents(), steps[1].contents())


# -- the stand-in


def test_the_stand_in_refuses_what_cuda_refuses(cupy):
    stream, x = cupy.cuda.Stream(non_blocking=True), cupy.asarray(np.ones(3, np.float32))
    refused = {
        "synchronize": stream.synchronize,
        "cudaMalloc": lambda: cupy.cuda.Memory(8),
        "not pinned": lambda: cupy.asarray(np.ones(3)),
        "pageable": lambda: x.data.copy_from_host_async(np.ones(3).ctypes.data, 12),
        "cuModuleLoad": lambda: cupy.RawModule(code="").compile(),
        "BeginCapture": stream.begin_capture,
    }
    for message, call in refused.items():
        with stream:
            stream.begin_capture()
            with pytest.raises(RuntimeError, match=f"(?i)StreamCaptureUnsupported.*{message}"):
                call()
            with pytest.raises(RuntimeError, match="Invalidated"):
                stream.end_capture()
    for call in (x.get, x.sum(0).item, lambda: float(x[0]), lambda: bool(x[0]), lambda: x[x > 0]):
        with stream, cupy.cuda.using_allocator(warm(cupy, stream)):
            stream.begin_capture()
            with pytest.raises(RuntimeError, match="the current stream is capturing"):
                call()
            stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        strict_cupy.null.begin_capture()


def warm(cupy, stream):
    pool = cupy.cuda.MemoryPool()
    with stream:
        pool.malloc(4096)
    return pool.malloc


def test_the_stand_in_runs_a_graph_when_it_is_launched(cupy):
    stream, x = cupy.cuda.Stream(non_blocking=True), cupy.asarray(np.ones(3, np.float32))
    with stream, cupy.cuda.using_allocator(warm(cupy, stream)):
        stream.begin_capture()
        y = x * 2
        address = (y + 1).data.ptr  # freed at once
        z = y + 3
        found = stream.end_capture()
    assert z.data.ptr == address
    assert np.isnan(z.get()).all()
    for value in (5, 7):
        x.fill(value)
        found.launch()
        assert z.get().tolist() == [2 * value + 3] * 3
    del y, z
    gc.collect()
    with pytest.raises(RuntimeError, match="IllegalAddress"):
        found.launch()
