from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minires as mr
from minires import backends
from minires import functional as F
from minires.nn.module import evaluating
from minires.optim import SGD
from minires.training import Diverged
from minires.training.divergence import first_bad_layer
from minires.training.microbatch import micro_batches, places, shards
from minires.training.update import Update


def network(**options):
    mr.random.manual_seed(3)
    return mr.models.create("resnet20", num_classes=5, in_channels=2, width=4, **options).astype("float64")


@pytest.fixture
def batch(rng):
    return rng.standard_normal((7, 2, 9, 11)), rng.integers(0, 5, 7)


def updated(model, batch, **options):
    """Parameters by name after one update, and what it measured."""
    optimizer = SGD(model.parameters(), 0.1, 0.9, 1e-4)
    measured = Update(model, optimizer, **options)(*batch, lr=0.05)
    return {name: p.data.copy() for name, p in model.named_parameters()}, measured


@given(st.integers(1, 300), st.integers(1, 40))
def test_parts_cover_the_batch_and_differ_by_one_image_at_most(N, micro_batch):
    found = micro_batches(N, micro_batch)
    sizes = [part.size for part in found]
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(N))
    assert 1 <= max(sizes) <= micro_batch
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-N // micro_batch)  # never more forward passes than there must be


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))
def test_ranks_share_every_part(N, micro_batch, size):
    every_part = micro_batches(N, micro_batch)
    seen = []
    for rank in range(size):
        ranks = SimpleNamespace(rank=rank, size=size)
        mine = places(N, micro_batch, ranks).tolist()
        seen += mine
        shares = list(shards(N, micro_batch, ranks))
        assert [last for _, last in shares] == [False] * (len(every_part) - 1) + [True]
        for part, (shard, _) in zip(every_part, shares, strict=True):  # in the order in which they are used
            share, mine = mine[: shard.size], mine[shard.size :]
            assert all(part.start <= place < part.stop for place in share)
        assert mine == []
    assert sorted(seen) == list(range(N))


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_what_is_measured_is_the_batchs_own(batch, micro_batch):
    x, _ = batch
    logits = network().eval()(mr.tensor(x))
    labels = (logits.data.argmax(axis=1) + np.array([0, 1, 4, 0, 4, 1, 1])) % 5  # wrong on either side
    _, measured = updated(network().eval(), (x, labels), label_smoothing=0.3, micro_batch=micro_batch)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.3).item()
    assert (measured.wrong, measured.images) == (5, 7)
    assert abs(measured.loss - 7 * loss) <= 1e-12 * measured.loss


def test_an_update_has_its_own_rate_and_gradients_alone(batch):
    model, expected = network(), updated(network(), batch)[0]
    optimizer = SGD(model.parameters(), 0.1, 0.9, 1e-4)
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = np.full(p.shape, 7.0)  # of an update before
    update = Update(model, optimizer)
    update(*batch, lr=0.05)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, expected[name], err_msg=name)
        assert (p.data != before[name]).any()
    update(*batch, lr=0.0)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, expected[name], err_msg=name)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 7])
def test_gradients_of_parts_add_up_to_the_batchs(batch, micro_batch):
    """Where batch norm takes no statistics of the parts: in evaluation mode.  Parts of 3, 2 and 2 weigh differently."""
    whole, measured = updated(network().eval(), batch, label_smoothing=0.1)
    in_parts, same = updated(network().eval(), batch, label_smoothing=0.1, micro_batch=micro_batch)
    before = dict(network().named_parameters())
    for name, array in whole.items():
        moved = np.abs(array - before[name].data).max()
        assert moved > 0
        # Sums of up to seven images' gradients in another order: some dozens of roundings of the largest.
        assert np.abs(in_parts[name] - array).max() <= 1e-12 * moved, name
    assert (measured.wrong, measured.images) == (same.wrong, same.images)
    assert abs(measured.loss - same.loss) <= 1e-13 * measured.loss


def test_batch_norm_normalises_each_part_by_itself(batch):
    x, _ = batch
    model, twin = network(), network()
    updated(model, batch, micro_batch=4)
    for part in micro_batches(7, 4):
        twin(mr.tensor(x[part.start : part.stop]))
    for name, array in twin.state_dict().items():
        if "running" in name:
            np.testing.assert_array_equal(model.state_dict()[name], array, err_msg=name)


def test_an_update_that_diverges_moves_nothing_and_names_the_layer(batch):
    model = network()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    x, labels = batch
    with pytest.raises(Diverged, match=r"not finite; the first bad layer is conv1: forward of Conv2d of conv1"):
        updated(model, (np.where(x > 1, np.inf, x), labels))
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, before[name], err_msg=name)


def test_the_layer_whose_result_overflows_is_named(batch):
    model = network()
    model.layer3[0].conv1.weight.data[:] = 1e308
    x, labels = batch
    assert first_bad_layer(model, mr.tensor(x), labels).startswith("the first bad layer is layer3.0.conv1: forward of")


def test_the_layer_whose_gradient_overflows_is_named(batch):
    """Finite outputs and loss, and a way back that is not: the weights' gradient is a product of 1e140 and 1e180."""
    model = network()
    model.layer3[2].bn1.weight.data[:] = 1e140
    model.layer3[2].conv2.weight.data[:] = 0
    model.layer3[2].bn2.weight.data[:] = 1e180
    x, labels = batch
    message = first_bad_layer(model, mr.tensor(x), labels)
    assert message.startswith("the first bad layer is layer3.2.conv2: backward of Conv2d"), message


def test_of_bad_weights_the_one_nearest_to_the_output_was_first(batch):
    model = network()
    for bad in (model.conv1, model.layer1[0].conv2, model.layer2[0].conv1):
        bad.weight.data[0] = np.nan
    message = first_bad_layer(model, mr.tensor(batch[0]), batch[1])
    assert message.startswith(
        "the first bad layer is layer2.0.conv1: the last update made its weight not finite, and 2 "
    )


def test_a_healthy_network_has_no_bad_layer(batch):
    assert "no single layer" in first_bad_layer(network(), mr.tensor(batch[0]), batch[1])


@pytest.mark.skipif(bool(backends.available()["native"]), reason="the native backend captures")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_captured_updates_have_the_bits_of_eager_ones(rng, dtype):
    """Also the last, smaller batch of an epoch, which is not captured, and batches after an evaluation."""
    batches = [(rng.standard_normal((n, 2, 9, 11)).astype(dtype), rng.integers(0, 5, n)) for n in (6, 6, 4, 6, 6)]
    left = []
    for captured in (False, True):
        model = network().astype(dtype)
        optimizer = SGD(model.parameters(), 0.1, 0.9, 1e-4)
        update = Update(model, optimizer, label_smoothing=0.1, capture=captured)
        measured = []
        for x, labels in batches:
            measured.append(update(x, labels, lr=0.05 / (1 + len(measured))))
            with evaluating(model):
                model(mr.tensor(x))
        assert (update.captured is not None) == captured
        left.append((measured, [a.tobytes() for a in model.state_dict().values()]))
    assert left[0] == left[1]


@pytest.mark.parametrize("options", [{"micro_batch": 3}, {"dropout": True}, {"backend": "reference"}])
def test_what_cannot_be_captured_is_not(batch, options):
    model = network()
    if options.get("dropout"):
        model.fc = mr.nn.Sequential(mr.nn.Dropout(0.5), model.fc)
    with mr.backend(options.get("backend", backends.active().name)):
        update = Update(model, SGD(model.parameters(), 0.1, 0.9), micro_batch=options.get("micro_batch"), capture=True)
        update(*batch, lr=0.1)
    assert update.captured is None


@pytest.mark.parametrize("first", [True, False])
def test_captured_updates_report_what_is_not_finite(batch, first):
    x, labels = batch
    model = network()
    update = Update(model, SGD(model.parameters(), 0.1, 0.9), capture=True)
    if not first:
        update(x, labels, lr=0.1)
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(Diverged, match="outputs are not finite"):
        update(x * np.nan, labels, lr=0.1)
    assert all(np.array_equal(a, p.data) for a, p in zip(before, model.parameters(), strict=True))
