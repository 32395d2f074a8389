"""The native backend's borders: what a kernel refuses, its memory, its threads, and a process that forks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from concurrently import at_once

import minires as mr
import minires.functional as F
from minires import backends

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)

from minires.backends.native.compiled import instruction_set, native

KERNELS = instruction_set("auto")
ONE = (1, 1)


def given(**arguments):
    return arguments


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# How many numbers the filters of the convolution below become.
FILTERS = KERNELS.conv2d_filters_size((2, 5, 6, 4), ones(3, 4, 3, 3), (2, 3, 4, 3), ONE, (0, 0), ONE, 1, True)

# Each kernel with arguments that it takes; an array that it fills stands under a name of `FILLED`.
CALLS = {
    "conv2d_filters": given(
        x_shape=(2, 5, 6, 4), w=ones(3, 4, 3, 3), y_shape=(2, 3, 4, 3), filters_out=ones(FILTERS), stride=ONE,
        padding=(0, 0), dilation=ONE, groups=1, winograd=True,
    ),
    "conv2d_forward": given(
        x=ones(2, 5, 6, 4), w_shape=(3, 4, 3, 3), filters=ones(FILTERS), bias=ones(3), mean=ones(3), scale=ones(3),
        shift=ones(3), added=ones(2, 3, 4, 3), relu=True, y=ones(2, 3, 4, 3), stride=ONE, padding=(0, 0), dilation=ONE,
        groups=1, winograd=True,
    ),
    "conv2d_backward_input": given(
        grad_y=ones(2, 3, 4, 3), w=ones(3, 4, 3, 3), grad_x=ones(2, 5, 6, 4), stride=ONE,
        padding=(0, 0), dilation=ONE, groups=1, winograd=True,
    ),
    "conv2d_backward_weight": given(
        grad_y=ones(2, 3, 4, 3), x=ones(2, 5, 6, 4), grad_w=ones(3, 4, 3, 3), stride=ONE, padding=(0, 0),
        dilation=ONE, groups=1, winograd=True,
    ),
    "matmul": given(a=ones(5, 3), b=ones(4, 3), transposed=True, bias=ones(4), c=ones(5, 4)),
    "matmul_at": given(a=ones(3, 5), b=ones(3, 4), c=ones(5, 4)),
    "batch_norm_statistics": given(x=ones(7, 3), mean_out=ones(3), var_out=ones(3)),
    "batch_norm_apply": given(
        x=ones(7, 3), mean=ones(3), scale=ones(3), bias=ones(3), added=ones(7, 3), relu=False, y=ones(7, 3)
    ),
    "batch_norm_sums": given(
        g=ones(7, 3), x=ones(7, 3), mean=ones(3), scale=ones(3), bias=ones(3), sum_g=ones(3), sum_g_centred=ones(3)
    ),
    "batch_norm_input": given(
        g=ones(7, 3), x=ones(7, 3), mean=ones(3), scale=ones(3), bias=ones(3), relu=True, mean_g=ones(3),
        slope=ones(3), grad_x=ones(7, 3),
    ),
    "sum_pixels": given(g=ones(7, 3), sum=ones(3)),
    "relu_forward": given(x=ones(7, 3), y=ones(7, 3)),
    "relu_backward": given(g=ones(7, 3), passed=ones(7, 3), grad_x=ones(7, 3)),
    "add": given(a=ones(7, 3), b=ones(7, 3), relu=False, y=ones(7, 3)),
    "max_pool2d_forward": given(
        x=ones(2, 5, 6, 4), y=ones(2, 2, 3, 4), argmax=ones(2, 2, 3, 4, dtype=np.uint8), kernel=(2, 2), stride=(2, 2),
        padding=(0, 0), dilation=ONE,
    ),
    "max_pool2d_backward": given(
        grad_y=ones(2, 2, 3, 4), taps=ones(2, 2, 3, 4, dtype=np.uint8), grad_x=ones(2, 5, 6, 4), kernel=(2, 2),
        stride=(2, 2), padding=(0, 0), dilation=ONE,
    ),
    "average2d_forward": given(
        x=ones(2, 5, 6, 4), y=ones(2, 2, 1, 4), rows=(np.array([0, 2]), np.array([3, 5])),
        columns=(np.array([0]), np.array([6])), size=ones(2, 1),
    ),
    "average2d_backward": given(
        grad_y=ones(2, 2, 1, 4), grad_x=ones(2, 5, 6, 4), rows=(np.array([0, 2]), np.array([3, 5])),
        columns=(np.array([0]), np.array([6])), size=ones(2, 1),
    ),
    "softmax": given(x=ones(4, 3), log=True, y=ones(4, 3)),
    "softmax_backward": given(g=ones(4, 3), passed=ones(4, 3), log=True, grad_x=ones(4, 3)),
    "cross_entropy_forward": given(
        x=ones(4, 3), labels=np.array([0, 1, 2, 0]), smoothing=0.1, log_p_out=ones(4, 3), loss=ones(4)
    ),
    "cross_entropy_backward": given(
        grad_loss=ones(4), log_p=ones(4, 3), labels=np.array([0, 1, 2, 0]), smoothing=0.1, grad_x=ones(4, 3)
    ),
    "sgd_step": given(p=ones(7), g=ones(7), v=ones(7), lr=0.1, momentum=0.9, weight_decay=0.0),
}  # fmt: skip
FILLED = (
    "y", "c", "grad_x", "grad_w", "mean_out", "var_out", "sum_g", "sum_g_centred", "sum", "argmax", "log_p_out", "loss",
    "p", "v", "filters_out",
)  # fmt: skip
ANSWERING = {"conv2d_filters_size", "conv2d_working_size", "digest"}  # which return a value and fill nothing
ARRAYS = [(kernel, name) for kernel, given in CALLS.items() for name, a in given.items() if isinstance(a, np.ndarray)]


def call(kernel, /, **changed):
    arguments = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in CALLS[kernel].items()} | changed
    return getattr(KERNELS, kernel)(*arguments.values())


def test_no_kernel_is_left_out():
    assert set(CALLS) | ANSWERING == {name for name in dir(KERNELS) if not name.startswith("_") and name != "name"}
    for kernel in CALLS:
        assert call(kernel) is None


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_a_kernel_refuses_an_array_of_another_dtype(kernel, name):
    right = CALLS[kernel][name]
    dtypes = [np.int16, np.float16, np.complex64, object, np.dtype(">f4"), np.dtype(">f8")]
    if sum(isinstance(a, np.ndarray) and a.dtype == right.dtype for a in CALLS[kernel].values()) > 1:
        dtypes += [np.float64]  # beside others in float32
    for dtype in dtypes:
        with pytest.raises(TypeError, match=r"must have dtype|float32 and float64"):
            call(kernel, **{name: right.astype(dtype)})
    for nothing in ("a word", 3, [[1.0], [2.0, 3.0]]):
        with pytest.raises((TypeError, ValueError)):
            call(kernel, **{name: nothing})


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_a_kernel_refuses_an_array_of_another_shape(kernel, name):
    right = CALLS[kernel][name]
    shapes = [right[None], right[..., None], right[..., :-1].copy(), np.ones((), right.dtype)]
    if (kernel, name) not in (("batch_norm_statistics", "x"), ("sum_pixels", "g")):  # as many pixels as there are
        shapes += [right[:-1].copy(), np.concatenate([right, right]), right[:0]]
    for other in shapes:
        with pytest.raises(ValueError, match="must"):
            call(kernel, **{name: other})


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_a_kernel_refuses_an_array_with_gaps_or_between_two_addresses(kernel, name):
    right = CALLS[kernel][name]
    laid = [np.repeat(right, 2, axis=-1)[..., ::2], right[..., ::-1], np.asfortranarray(right)]
    laid += [np.zeros(right.nbytes + 1, np.uint8)[1:].view(right.dtype).reshape(right.shape)]
    for other in laid:
        if not (other.flags.c_contiguous and other.flags.aligned):
            with pytest.raises(ValueError, match="must be C-contiguous and aligned"):
                call(kernel, **{name: other})


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_a_kernel_writes_where_it_should_and_nowhere_else(kernel, name):
    constant = CALLS[kernel][name].copy()
    constant.flags.writeable = False
    if name in FILLED:
        with pytest.raises(ValueError, match="must be writable"):
            call(kernel, **{name: constant})
    else:
        call(kernel, **{name: constant})
        np.testing.assert_array_equal(constant, CALLS[kernel][name])


@pytest.mark.parametrize("kernel", [k for k in CALLS if k.startswith("conv2d")])
def test_a_convolution_refuses_a_geometry_that_does_not_fit(kernel):
    for changed in (
        *[{"groups": n} for n in (0, -1, 2, 3, 2**40)],
        *[{name: (value, 1)} for name in ("stride", "dilation") for value in (0, -1, -(2**40))],
        *[{name: (1, value)} for name in ("stride", "dilation") for value in (2, 3, 2**40)],
        *[{"padding": value} for value in ((-1, 0), (0, 1), (1, 0), (0, -(2**40)))],
    ):
        with pytest.raises(ValueError, match="must"):
            call(kernel, **changed)
    nothing = {"w": ones(3, 4, 0, 3), "grad_w": ones(3, 4, 0, 3), "y": ones(2, 6, 4, 3), "grad_y": ones(2, 6, 4, 3)}
    nothing |= {"w_shape": (3, 4, 0, 3), "y_shape": (2, 6, 4, 3)}
    with pytest.raises(ValueError, match=r"at least one channel and one tap|must have shape"):
        call(kernel, **{k: v for k, v in nothing.items() if k in CALLS[kernel]})
    without = {"x": ones(2, 5, 6, 0), "grad_x": ones(2, 5, 6, 0), "w": ones(3, 0, 3, 3), "grad_w": ones(3, 0, 3, 3)}
    without |= {"x_shape": (2, 5, 6, 0), "w_shape": (3, 0, 3, 3)}
    with pytest.raises(ValueError, match=r"at least one channel and one tap|must have shape"):
        call(kernel, **{k: v for k, v in without.items() if k in CALLS[kernel]})


def test_the_vectors_behind_a_convolution_come_together():
    for missing in ("mean", "scale", "shift"):
        with pytest.raises(ValueError, match="must be given together"):
            call("conv2d_forward", **{missing: None})


@pytest.mark.parametrize("kernel", ["max_pool2d_forward", "max_pool2d_backward"])
def test_a_pooling_refuses_impossible_windows(kernel):
    for name in ("kernel", "stride", "dilation"):
        for value in (0, -1):
            with pytest.raises(ValueError, match="must be at least 1"):
                call(kernel, **{name: (2, value)})
    with pytest.raises(ValueError, match="padding at least 0"):
        call(kernel, padding=(0, -1))


@pytest.mark.parametrize("kernel", ["max_pool2d_forward", "max_pool2d_backward"])
def test_windows_that_hang_over_never_leave_the_image(kernel):
    """No window reads outside of the image, for any geometry; a sanitizer checks every read."""
    for changed in ({"stride": (9, 9)}, {"padding": (50, 60)}, {"dilation": (2**31 - 1, 7)}, {"padding": (0, 2**31)}):
        call(kernel, **changed)
    if kernel == "max_pool2d_backward":
        call(kernel, taps=np.full((2, 2, 3, 4), 255, np.uint8))


@pytest.mark.parametrize("kernel", ["average2d_forward", "average2d_backward"])
def test_rectangles_outside_are_refused(kernel):
    begin, end = np.array([0, 2]), np.array([3, 5])
    for rows in ((begin - 1, end), (begin, end + 1), (begin, np.array([3, 2**62])), (np.array([0, -(2**62)]), end)):
        with pytest.raises(ValueError, match="rows must lie inside of x"):
            call(kernel, rows=rows)
    for columns in ((np.array([-1]), np.array([6])), (np.array([0]), np.array([7]))):
        with pytest.raises(ValueError, match="columns must lie inside of x"):
            call(kernel, columns=columns)
    for rows in ((begin, end[:1]), (begin.astype(np.int32), end), (begin[:, None], end)):
        with pytest.raises((TypeError, ValueError), match="rows must have"):
            call(kernel, rows=rows)
    call(kernel, rows=(end, begin))  # empty ones: a sum of nothing


@pytest.mark.parametrize("kernel", ["cross_entropy_forward", "cross_entropy_backward"])
@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**63)])
def test_labels_out_of_range_are_refused(kernel, label):
    with pytest.raises(ValueError, match=r"labels must lie in \[0, C\)"):
        call(kernel, labels=np.array([0, 1, 2, label]))


def test_instruction_sets_are_known_by_name():
    with pytest.raises(ValueError, match="isa must be one of"), mr.backend("native", isa="avx"):
        pass
    with pytest.raises(ValueError, match="Did you mean 'portable'"), mr.backend("native", isa="portabel"):
        pass
    with pytest.raises(TypeError, match="winograd must be true or false"), mr.backend("native", winograd="no"):
        pass
    with pytest.raises(TypeError, match="has no option 'rung'; it has isa, winograd"), mr.backend("native", rung="x"):
        pass
    for name, kernels in native().instruction_sets().items():
        if kernels is None:
            with pytest.raises(mr.BackendUnavailable, match=f"no {name}"), mr.backend("native", isa=name):
                pass
        else:
            assert kernels.name == name


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_the_environment_chooses_the_instruction_set_and_winograd():
    code = "import minires as mr\nwith mr.backend('native') as b: print(b.kernels.name, b.winograd)"
    assert python(code, MINIRES_ISA="portable", MINIRES_WINOGRAD="0").stdout == "portable False\n"
    assert python(code, MINIRES_ISA="", MINIRES_WINOGRAD="1").stdout.endswith(" True\n")
    assert "MINIRES_ISA must be one of" in python(code, MINIRES_ISA="sse").stderr
    assert "MINIRES_WINOGRAD must be one of" in python(code, MINIRES_WINOGRAD="yes").stderr


# -- dtypes have many objects


def test_an_array_that_was_pickled_is_one_as_well():
    x, labels = np.ones((2, 3), np.float32), np.array([0, 2])
    for change in (lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy, lambda a: a.astype(a.dtype.str)):
        loss = F.cross_entropy(mr.tensor(change(x)), change(labels))
        assert loss.data == pytest.approx(np.log(3))
    assert F.cross_entropy(x, np.array([0, 2], np.longlong)).data == pytest.approx(np.log(3))
    tagged = np.ones(3, np.dtype(np.float64, metadata={"unit": "m"}))
    np.testing.assert_array_equal(F.relu(tagged).data, tagged)


def test_dtypes_that_no_kernel_computes_in():
    with mr.backend("native"), pytest.raises(TypeError, match="float32 or float64, got"):
        F.relu(np.ones(3, np.longdouble))


# -- memory


def test_arrays_own_their_memory_and_are_ordinary():
    a = native().empty((3, 5), np.float32)
    assert a.flags.owndata
    assert a.flags.c_contiguous
    assert a.flags.writeable
    assert a.base is None
    assert a.ctypes.data % 64 == 0
    a[...] = 1
    a.resize((40, 50), refcheck=False)  # in place, by the handler that made it
    assert a[:1, :15].sum() == 15
    a[...] = 2
    a.resize((2, 2), refcheck=False)
    assert a.sum() == 8
    assert native().empty((), np.float64).shape == ()
    assert native().empty((0, 3), np.float32).size == 0
    assert native().empty((2,), "int8").dtype == np.int8
    with pytest.raises(ValueError, match="negative dimensions"):
        native().empty((-1,), np.float32)
    with pytest.raises(ValueError, match=r"too big|too many axes"):
        native().empty((1 << 40, 1 << 40), np.float64)
    with pytest.raises(ValueError, match="too many axes"):
        native().empty((1,) * 100, np.float32)
    with pytest.raises(TypeError):
        native().empty((2,), "no dtype")
    assert np.empty(3).base is None  # NumPy's own arrays are made as before
    b = np.zeros(10)
    b.resize(1000, refcheck=False)


def test_more_memory_than_there_is_is_an_error():
    before = native().memory()
    with pytest.raises(MemoryError):
        native().empty((1 << 40, 1 << 10), np.float64)
    assert native().memory() == before


def test_what_is_freed_is_used_again():
    gc.collect()
    before = native().memory()["used"]
    a = native().empty((1 << 20,), np.float32)
    address = a.ctypes.data
    assert native().memory()["used"] >= before + (1 << 22)
    del a
    assert native().memory()["used"] == before
    a = native().empty((1 << 20,), np.float32)
    assert a.ctypes.data == address


def test_fifty_steps_take_no_more_memory_than_two():
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=8)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, labels = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32), np.arange(8)
    reserved, used = [], []
    with mr.backend("native"):
        for _ in range(50):
            optimizer.zero_grad()
            F.cross_entropy(model(mr.tensor(x)), labels).backward()
            optimizer.step()
            reserved.append(native().memory()["reserved"])
            used.append(native().memory()["used"])
    assert set(reserved[2:]) == {reserved[2]}
    assert set(used[2:]) == {used[2]}


def test_trim_gives_back_what_is_free_and_nothing_else():
    kept = native().empty((1000,), np.float32)
    kept.fill(7)
    large = native().empty((40 << 20,), np.float32)  # 160 MB: an arena of its own
    reserved = native().memory()["reserved"]
    del large
    gc.collect()
    assert native().memory()["reserved"] == reserved
    given = native().trim()
    assert given >= 160 << 20
    assert native().memory()["reserved"] == reserved - given
    assert native().trim() == 0
    assert (kept == 7).all()
    again = native().empty((40 << 20,), np.float32)
    again[::4096] = 1


def test_blocks_never_overlap(rng):
    """Arrays of random sizes come and go; each keeps what was written into it."""
    living = {}
    for number in range(3000):
        if living and rng.random() < 0.48:
            key = list(living)[int(rng.integers(len(living)))]
            array = living.pop(key)
            assert (array == key).all()
            del array
        else:
            array = native().empty((int(rng.choice([0, 1, 3, 16, 100, 1000, 40_000, 300_000])),), np.float32)
            array.fill(number)
            living[number] = array
    for key, array in living.items():
        assert (array == key).all()


# -- threads and processes

FORK = """
import os, sys, threading, numpy as np, minires as mr, minires.functional as F
mr.set_num_threads(2)
x, w = np.ones((8, 16, 20, 20), np.float32), np.ones((16, 16, 3, 3), np.float32)
with mr.backend("native"):
    expected = F.conv2d(x, w).data.copy()
    def child():
        status = 1
        try:
            status = 0 if np.array_equal(F.conv2d(x, w).data, expected) else 2
        finally:
            os._exit(status)
    BODY
print("done")
"""
ONCE = """
    pid = os.fork()
    if pid == 0:
        child()
    assert os.waitpid(pid, 0)[1] == 0
    assert np.array_equal(F.conv2d(x, w).data, expected)
"""
WHILE_ANOTHER_COMPUTES = """
    stop = False
    def compute():
        with mr.backend("native") as backend:
            small = np.ones((1, 2, 3, 3), np.float32), np.ones((2, 2, 3, 3), np.float32)
            while not stop:
                backend.conv2d_forward(*small, None, (1, 1), (1, 1), (1, 1), 1)
    thread = threading.Thread(target=compute)
    thread.start()
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            child()
        assert os.waitpid(pid, 0)[1] == 0
    stop = True
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("body", [ONCE, WHILE_ANOTHER_COMPUTES], ids=["once", "while another computes"])
def test_fork_after_use(body):
    """A forked child computes, though it has neither the workers nor the thread that held a lock."""
    ran = python("import warnings; warnings.simplefilter('ignore')" + FORK.replace("    BODY", body))
    assert ran.stdout == "done\n", ran.stderr


def test_a_process_ends_while_workers_wait_and_threads_compute():
    code = """
import threading, numpy as np, minires as mr
mr.set_num_threads(3)
x, w = np.ones((8, 16, 20, 20), np.float32), np.ones((16, 16, 3, 3), np.float32)
def compute():
    with mr.backend("native") as backend:
        while True:
            backend.conv2d_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)
threading.Thread(target=compute, daemon=True).start()
with mr.backend("native") as backend:
    for _ in range(20):
        backend.conv2d_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)
print("done")
"""
    ran = python(code)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


def trained(seed):
    """Three steps of a small network of its own."""
    rng = np.random.default_rng(seed)
    model = mr.models.create("resnet20", width=8)
    for p in model.parameters():
        p.data[...] = rng.standard_normal(p.shape) * 0.1
    optimizer = mr.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with mr.backend("native"):
        for _ in range(3):
            x = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
            optimizer.zero_grad()
            F.cross_entropy(model(mr.tensor(x)), np.arange(4)).backward()
            optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_two_threads_train_two_models_at_once(threads):
    before = mr.get_num_threads()
    mr.set_num_threads(threads)
    try:
        expected = [trained(seed) for seed in (1, 2, 3)]
        found = at_once(*(lambda seed=seed: trained(seed) for seed in (1, 2, 3)))
    finally:
        mr.set_num_threads(before)
    for one, other in zip(expected, found, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_the_number_of_threads_may_change_while_others_compute():
    before = mr.get_num_threads()
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 16, 20, 20), (16, 16, 3, 3)))
    geometry = (1, 1), (1, 1), (1, 1), 1
    with mr.backend("native") as backend:
        expected = backend.conv2d_forward(x, w, None, *geometry)
    wrong, stop = [], threading.Event()

    def compute():
        while not stop.is_set():
            if not np.array_equal(backend.conv2d_forward(x, w, None, *geometry), expected):
                wrong.append(1)

    workers = [threading.Thread(target=compute) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for number in range(60):
            mr.set_num_threads(1 + number % 4)
            backend.conv2d_forward(x, w, None, *geometry)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        mr.set_num_threads(before)
    assert not wrong
