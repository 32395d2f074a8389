"""Every judge rejects every kernel that cheats (cheats.py), and accepts the honest one.  -rP prints the counts."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends
from minires.bench import layers as bench
from minires.verify import audit, network
from minires.verify.gradcheck import GradcheckError
from minires.verify.lockstep import lockstep

from .cheats import all_cheats


def small_network():
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4, num_classes=3)
    return network.disturb(model, np.random.default_rng(0))


def images(dtype):
    return np.random.default_rng(1).standard_normal((2, 3, 18, 13)).astype(dtype)  # no multiples of 4 along W


def in_lockstep(backend):
    labels = np.array([0, 2])
    try:
        return lockstep(small_network(), images(np.float32), labels, ("reference", backend)).passed
    except ValueError:  # logits must not hold NaN
        return False


def by_gradcheck(backend):
    """The gradients of one convolution; a forward and a backward that cheat together need another judge."""
    rng = np.random.default_rng(2)
    with backends.using(backend):
        try:
            return mr.gradcheck(
                lambda x, w: F.conv2d(x, w, None, 1, 1),
                {"x": rng.standard_normal((2, 3, 6, 5)), "weight": rng.standard_normal((2, 3, 3, 3))},
            )
        except GradcheckError:
            return False


def by_awkward_cases(backend):
    with backends.using(backend):
        try:
            network.check_cases("conv2d", 20, 0)
        except (AssertionError, RuntimeWarning):
            return False
    return True


def by_second_backend(backend):
    """`minires verify NETWORK --against`"""
    model = small_network().astype("float64")
    with backends.using(backend), np.errstate(all="ignore"):
        return all(found.agrees for found in network.against_backend(model, images(np.float64), "reference"))


def by_exact_result(backend):
    """`minires verify --exact`"""
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 9, 7), (4, 3, 3, 3)))
    with backends.using(backend), audit.Audit() as found:
        y = F.conv2d(mr.tensor(x, requires_grad=True), mr.tensor(w, requires_grad=True), None, 1, 1)
        y.backward(rng.standard_normal(y.shape).astype(np.float32))
    return found.ratio <= 1


class Here:
    """A contender of the benchmark, in this process"""

    def __init__(self, backend, name):
        self.name = name
        with backends.using(backend):
            self.ours = bench.Ours(backends.get_num_threads())

    def ask(self, method, *arguments):
        return getattr(self.ours, method)(*arguments)


def by_benchmark(backend):
    """`minires bench layers` of the last convolution of ResNet-50: 7×7 pixels"""
    contenders = [Here(backend, "cheat"), Here(backends.reference, "reference")]
    for contender in contenders:
        contender.ask("take", bench.Convolution((8, 7, 7), (8, 8, 3, 3), (1, 1), (1, 1)), 2)
    disagreements = []
    for direction in bench.DIRECTIONS:
        for contender in contenders:
            contender.ask(direction)
        seconds = {contender.name: [1.0] for contender in contenders}
        disagreements += bench._compared(contenders, direction, seconds, 1)["disagree"]
    return not disagreements


JUDGES = (in_lockstep, by_gradcheck, by_awkward_cases, by_second_backend, by_exact_result, by_benchmark)


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_judge_rejects_every_cheat_and_accepts_the_honest_kernel(judge):
    assert judge(mr.backends.Reference())
    cheats = all_cheats()
    accepted = [" of ".join(name) for name, backend in cheats.items() if judge(backend)]
    print(f"{judge.__name__}: rejected {len(cheats) - len(accepted)} of {len(cheats)}")
    assert not accepted
