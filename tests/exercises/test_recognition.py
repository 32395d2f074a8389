"""Right solutions pass, wrong ones never, and the catalogue's mistakes are named, alone and in pairs."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest
from exercises import mistakes
from exercises.right import RIGHT

import minires as mr
import minires.functional as F
from minires import exercises
from minires.cli import main, parser_of
from minires.exercises import grading
from minires.exercises.calls import poisoned
from minires.exercises.families import FAMILIES
from minires.exercises.tasks import EXERCISES
from minires.exercises.tasks.conv2d import pair_of


def with_bugs(exercise, *switches):
    """The exercise's solution with these switches of its catalogue."""

    def solution(*arguments):
        outputs = exercise.variant(frozenset(switches), *arguments)
        return outputs[0] if len(outputs) == 1 else outputs

    return solution


@pytest.mark.parametrize("name", EXERCISES)
def test_right_solutions_pass(name):
    exercise = EXERCISES[name]
    for seed, solution in enumerate((exercise.solution, with_bugs(exercise), *RIGHT[name])):
        for drawn in {0, seed} if exercise.measure is None else {seed}:
            result = exercises.check(name, solution, drawn)
            assert result.passed, f"{solution.__name__}: {result}"
    assert "step through" in result.message
    assert exercise.why.split()[0] in result.message


def test_there_are_several_right_solutions():
    assert set(RIGHT) == set(EXERCISES)
    assert len(RIGHT["conv2d_backward"]) >= 5


@pytest.mark.parametrize("name", EXERCISES)
def test_every_misconception_is_named(name):
    exercise = EXERCISES[name]
    for one in exercise.misconceptions:
        for switch in one.switches:
            result = exercises.check(name, with_bugs(exercise, switch))
            assert not result.passed, switch
            assert one.name in (result.misconception or "").split(" or "), f"{switch}: {result}"
            text = " ".join(result.message.split())
            assert " ".join(one.question.split()) in text
            assert " ".join(one.formula.split()) in text


def test_the_catalogue_has_a_few_hundred_misconceptions_in_thirty_families():
    found = [one for exercise in EXERCISES.values() for one in exercise.misconceptions]
    assert len(found) > 400
    assert len({one.family for one in found}) > 30
    assert {one.family for one in found} <= set(FAMILIES)


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_pairs_are_recognised(count):
    """A seeded sample of the pairs: each is named as a pair, or as what gives the same numbers."""
    rng = np.random.default_rng(0)
    tried = named = exact = 0
    for exercise in EXERCISES.values():
        if exercise.measure is not None:  # statistics: pairs of factors coincide
            continue
        pairs = list(itertools.combinations([one.name for one in exercise.misconceptions], 2))
        for index in rng.choice(len(pairs), count, replace=False):
            pair = pairs[index]
            result = exercises.check(exercise.name, with_bugs(exercise, *pair))
            if result.passed or result.verdict != "wrong":  # two that undo each other, or that do not fit
                continue
            tried += 1
            named += result.misconception is not None
            exact += all(name in (result.misconception or "") for name in pair)
    print(f"{tried} pairs: {named} named, {exact} as exactly this pair")
    assert named / tried > 0.97
    assert exact / tried > 0.6  # some hide each other: of two sums over wrong axes only one can be seen


def test_mistakes_written_apart_from_the_catalogue_are_named():
    named = fitting = expected = 0
    for name, solution, changes, words in mistakes.MISTAKES:
        result = exercises.check(name, mistakes.mistaken(solution, changes))
        assert not result.passed, (name, changes)
        named += result.misconception is not None
        if words:
            expected += 1
            fitting += any(word in (result.misconception or "") for word in words)
    print(f"{len(mistakes.MISTAKES)} mistakes: {named} named; {fitting} of {expected} as expected")
    assert fitting / expected > 0.95


@pytest.mark.parametrize("name", [name for name, one in EXERCISES.items() if one.measure is None])
def test_numbers_at_random_are_not_named(name):
    exercise = EXERCISES[name]
    rng = np.random.default_rng(1)

    def noise(*arguments):
        outputs = with_bugs(exercise)(*arguments)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = tuple(np.asarray(one) + rng.standard_normal(np.shape(one)) for one in outputs)
        return found[0] if len(found) == 1 else found

    result = exercises.check(name, noise)
    assert (result.verdict, result.misconception) == ("wrong", None)
    assert "none of the catalogue" in result.message or "no misconception of the catalogue" in result.message


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda gx, gw, gb: (-gx, gw, gb), "grad_x with the opposite sign"),
        (lambda gx, gw, gb: (gx, 2 * gw, gb), "grad_w times 2"),
        (lambda gx, gw, gb: (gx, gw, gb[None, :, None, None]), "grad_b in the wrong shape"),
        (lambda gx, gw, gb: (gx, gw.swapaxes(2, 3), gb), "grad_w with its last two axes exchanged"),
        (lambda gx, gw, gb: (gx, gw[..., ::-1, ::-1], gb), "grad_w with its last two axes reversed"),
        (lambda gx, gw, gb: (gw, gx, gb), "grad_w returned as grad_x + grad_x returned as grad_w"),
        (lambda gx, gw, gb: (0 * gx, gw, gb), "grad_x is zero"),
        (lambda gx, gw, gb: (gx.astype("f"), gw, gb), "grad_x went through float32"),
        (lambda gx, gw, gb: (gx, gw + 1e-7, gb), "grad_w is imprecise"),
        (lambda gx, gw, gb: (gx, gw, None), None),
        (lambda gx, gw, gb: (gx, gw), None),
        (lambda gx, gw, gb: None, None),
        (lambda gx, gw, gb: (gx, gw, gb + 0j), None),
        (lambda gx, gw, gb: (gx, gw, ["a"]), None),
        (lambda gx, gw, gb: (gx * np.nan, gw, gb), None),
    ],
)
def test_general_mistakes(change, name):
    exercise = EXERCISES["conv2d_backward"]
    result = exercises.check("conv2d_backward", lambda *a: change(*exercise.solution(*a)))
    assert not result.passed
    assert result.misconception == name


def test_each_output_is_explained_for_itself():
    """grad_w is right, grad_x and grad_b have a mistake each."""
    bugs = with_bugs(
        EXERCISES["conv2d_backward"], "filter in the wrong orientation", "grad_b not summed over the batch"
    )
    result = exercises.check("conv2d_backward", bugs)
    assert result.misconception == "grad_b not summed over the batch + filter in the wrong orientation"
    assert "grad_w: right in every geometry" in result.message
    assert [one["outputs"] for one in result.details["misconceptions"]] == [["grad_b"], ["grad_x"]]
    assert result.details["geometry"].startswith("x 1×1×")


@pytest.mark.parametrize("place", sorted({one.place for one in EXERCISES.values()}))
def test_the_place_to_step_through_exists(place, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    words = shlex.split(place.partition(" (")[0])
    assert words[0] == "minires"
    assert callable(parser_of(words[1]).understand(words[2:]).command)
    if words[1] == "step" and "resnet20" in words:
        assert main([*words[1:], "--width", "1", "--times", "1"]) == 0
        assert "stopped 1 time" in capsys.readouterr().out


# -- the solutions compared with minires


def gradients(call, cotangent, *arrays):
    with mr.backend("reference"):
        tensors = [mr.tensor(a, requires_grad=True) for a in arrays]
        call(*tensors).backward(mr.tensor(cotangent))
    return tuple(t.grad for t in tensors)


def agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


OPERATIONS = {
    "relu_backward": lambda g, x: gradients(F.relu, g, x),
    "linear_backward": lambda g, x, w: gradients(F.linear, g, x, w, np.zeros(len(w))),
    "conv2d_backward": lambda g, x, w, s, p: gradients(
        lambda x, w, b: F.conv2d(x, w, b, s, p), g, x, w, np.zeros(len(w))
    ),
    "conv2d_backward_grouped": lambda g, x, w, s, p, d=1, n=1: gradients(
        lambda x, w, b: F.conv2d(x, w, b, s, p, d, n), g, x, w, np.zeros(len(w))
    ),
    "max_pool2d_backward": lambda g, x, k, s, p: gradients(lambda x: F.max_pool2d(x, k, s, p), g, x),
    "avg_pool2d_backward": lambda g, shape, k, s, p, count: gradients(
        lambda x: F.avg_pool2d(x, k, s, p, False, count), g, np.zeros(shape)
    ),
    "avg_pool2d_backward_ceil": lambda g, shape, k, s, p, ceil, count: gradients(
        lambda x: F.avg_pool2d(x, k, s, p, ceil, count), g, np.zeros(shape)
    ),
    "softmax_cross_entropy_backward": lambda logits, labels: gradients(
        lambda x: F.cross_entropy(x, labels), np.ones(()), logits
    ),
    "batch_norm_backward": lambda g, x, w, eps: gradients(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=eps), g, x, w, np.zeros(len(w))
    ),
    "skip_add_backward": lambda g, a, b: gradients(lambda a, b: a + b, g, np.zeros(a), np.zeros(b)),
    "conv2d_forward": lambda x, w, b, s, p: (F.conv2d(mr.tensor(x), mr.tensor(w), mr.tensor(b), s, p).data,),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_solutions_agree_with_minires(name):
    exercise = EXERCISES[name]
    for case in exercise.ordered_cases(3):
        padding_fits = "pool" not in name or all(
            2 * p <= k for p, k in zip(pair_of(case.arguments[4]), pair_of(case.arguments[2]), strict=True)
        )
        if padding_fits:  # minires, like PyTorch, refuses a larger padding
            agree(exercise.solved(case), OPERATIONS[name](*case.arguments))


def test_batch_norm_and_sgd_agree_with_minires():
    for case in EXERCISES["batch_norm_forward"].ordered_cases(3):
        x, w, b, mean, var, momentum, eps = case.arguments
        mean, var = mean.copy(), var.copy()
        y = F.batch_norm(mr.tensor(x), mean, var, mr.tensor(w), mr.tensor(b), True, momentum, eps)
        agree(EXERCISES["batch_norm_forward"].solved(case), (y.data, mean, var))
    p = mr.nn.Linear(3, 2).astype("float64").weight
    optimizer = mr.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01)
    value, velocity = p.data.copy(), np.zeros_like(p.data)
    for step in range(3):
        grad = np.full_like(value, step + 1.0)
        p.grad = grad.copy()
        optimizer.step()
        value, velocity = EXERCISES["sgd_momentum"].solution(value, grad, velocity, 0.1, 0.9, 0.01)
        np.testing.assert_allclose(p.data, value, rtol=1e-12)


# -- the call


def test_inputs_must_stay_unchanged():
    def in_place(grad_output, x):
        grad_output *= x > 0
        return grad_output

    result = exercises.check("relu_backward", in_place)
    assert (result.passed, result.verdict, result.details["changed"]) == (False, "changed-input", ["grad_output"])


def test_unwritten_elements_are_nan():
    def some(grad_output, x):
        grad = np.empty_like(x)
        grad[x > 0] = grad_output[x > 0]
        return grad

    before = np.empty_like
    result = exercises.check("relu_backward", some)
    assert result.misconception == "elements of grad_x not written"
    assert np.empty_like is before


def test_a_computed_nan_differs_from_an_unwritten_element():
    result = exercises.check("relu_backward", lambda grad_output, x: grad_output * (x / np.abs(x) + 1) / 2)
    assert result.misconception == "elements of grad_x computed as NaN"


def test_a_buffer_that_is_used_again_is_no_trick():
    buffers = {}

    def cached(grad_output, x):
        buffer = buffers.setdefault(x.shape, np.zeros_like(x))
        buffer[...] = grad_output * (x > 0)
        return buffer

    assert exercises.check("relu_backward", cached).passed
    first = {}

    def memorised(grad_output, x):
        return first.setdefault(x.shape, grad_output * (x > 0))

    result = exercises.check("relu_backward", memorised)
    assert not result.passed
    assert "wrong exactly where the geometry came before, with other numbers" in result.message
    inputs = []

    def stale(grad_output, x):
        inputs.append(x)
        return grad_output * ((inputs[0] if inputs[0].shape == x.shape else x) > 0)

    result = exercises.check("relu_backward", stale)
    assert not result.passed
    assert result.details["question"] == "Which array does your code keep from one call to the next?"


def test_errors_are_cut_to_the_lines_of_the_solution():
    def helper(a):
        return a.reshape(7, 11)

    def solution(grad_output, x):
        return np.sum(helper(grad_output))

    result = exercises.check("relu_backward", solution)
    assert result.verdict == "raised"
    assert "return a.reshape(7, 11)" in result.message
    assert "calls.py" not in result.message
    assert "ValueError: cannot reshape" in result.message

    def ends(grad_output, x):
        raise SystemExit(0)

    assert exercises.check("relu_backward", ends).verdict == "exited"


def test_integers_alone_are_not_enough():
    def square_only(grad_output, x, w, stride, padding):
        return EXERCISES["conv2d_backward"].solution(grad_output, x, w, int(stride), int(padding))

    result = exercises.check("conv2d_backward", square_only)
    assert not result.passed
    assert "raises exactly where stride or padding is a pair" in result.message


def test_refused_arguments():
    with pytest.raises(ValueError, match=r"unknown exercise 'relu_backwrd'; .* Did you mean 'relu_backward'"):
        exercises.check("relu_backwrd", abs)
    with pytest.raises(TypeError, match="function must be callable"):
        exercises.check("relu_backward", 1)
    assert "has the parameters (x)" in exercises.check("relu_backward", lambda x: x).message
    with pytest.raises(ValueError, match="misconception must be one of"):
        grading.version("relu_backward", "nonsense")


def test_a_result_shows_its_message():
    result = mr.exercises.check("relu_backward", lambda grad_output, x: grad_output * (x >= 0))
    assert not result
    assert repr(result) == str(result) == result.message
    assert "gradient passes at 0" in result._repr_html_()
    fields = result.as_json()
    assert (fields["passed"], fields["misconception"]) == (False, "gradient passes at 0")
    assert fields["misconceptions"][0]["family"] == "kink"


# -- wrong solutions that single calls do not show


def he(draw):
    def he_init(shape, fan, rng):
        n = (shape[1] if fan == "in" else shape[0]) * int(np.prod(shape[2:]))
        return draw(shape, rng) * float(np.sqrt(2 / n))

    return he_init


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (lambda shape, rng: np.random.standard_normal(shape), "another source than rng"),  # noqa: NPY002
        (lambda shape, rng: np.random.default_rng(0).standard_normal(shape), "rng ignored"),
        (lambda shape, rng: rng.standard_normal(shape).astype("f"), "w is float32"),
        (lambda shape, rng: np.sort(rng.standard_normal(shape).ravel()).reshape(shape), "sorted"),
        (lambda shape, rng: rng.standard_normal(shape).clip(-3, 3), "clipped at 3 deviations"),
        (lambda shape, rng: (w := rng.standard_normal(shape)) / w.std(), "deviation of the sample made exact"),
        (lambda shape, rng: rng.standard_normal(shape).clip(-2, 2), "clipped at 2 deviations"),
        (lambda shape, rng: rng.standard_normal(shape[::-1]), None),
    ],
)
def test_weights_follow_from_rng(draw, name):
    result = exercises.check("he_init", he(draw))
    assert (result.passed, result.verdict, result.misconception) == (False, "wrong", name)
    assert "w[" not in result.message


def test_option_a_halves_an_odd_size():
    def floor(x, conv1, bn1, conv2, bn2, option, projection):
        f = bn2(conv2(np.maximum(bn1(conv1(x)), 0)))
        s = x if f.shape == x.shape else projection(x) if projection else None
        if s is None:
            s = x[:, :, :: x.shape[2] // f.shape[2], :: x.shape[3] // f.shape[3]]
            s = np.pad(s, ((0, 0), (0, f.shape[1] - x.shape[1]), (0, 0), (0, 0)))
        return np.maximum(f + s, 0)

    result = exercises.check("residual_block", floor)
    assert (result.passed, result.verdict) == (False, "raised")
    assert "smallest geometry that raises: x 1×1×5×5" in result.message


def test_default_values_are_part_of_the_signature():
    def without(grad_output, x, w, stride, padding, dilation, groups):
        return EXERCISES["conv2d_backward_grouped"].solution(grad_output, x, w, stride, padding, dilation, groups)

    result = exercises.check("conv2d_backward_grouped", without)
    assert result.verdict == "raised"
    assert "raises exactly where dilation and groups are left out of the call" in result.message
    assert result.details["question"] == "Which parameters of the signature have a default value?"


@pytest.mark.parametrize(
    ("change", "question"),
    [
        (lambda gx, gw, gb: None, "Does every path of your function return its result?"),
        (lambda gx, gw, gb: (gx, gw), "How many values does the docstring list"),
        (lambda gx, gw, gb: (gx + 0j, gw, gb), "Which type and which shape does the docstring give grad_x?"),
        (lambda gx, gw, gb: (gx[:, :, 1:] + 1, gw, gb), "Which shape does the docstring give grad_x, and which line"),
    ],
)
def test_a_fact_has_a_question_of_its_own(change, question):
    solution = EXERCISES["conv2d_backward"].solution
    result = exercises.check("conv2d_backward", lambda *arguments: change(*solution(*arguments)))
    assert result.details["question"].startswith(question)
    assert "Work this geometry out" not in result.message


def test_numbers_that_differ_are_printed_differently():
    solution = EXERCISES["softmax_cross_entropy_backward"].solution
    result = exercises.check("softmax_cross_entropy_backward", lambda *arguments: solution(*arguments) * (1 + 1e-8))
    line = next(line for line in result.message.splitlines() if " came " in line)
    came, expected = line.partition("; ")[0].partition(" came ")[2].split(", expected ")
    assert came != expected


def test_a_layer_that_a_call_changes_is_named():
    """The next check draws the same layers: the first one leaves the cached cases as they were."""

    def spoiling(x, conv1, *rest):
        y = EXERCISES["residual_block"].solution(x, conv1, *rest)
        conv1.arrays[0][:] = 0
        return y

    for _ in range(2):
        result = exercises.check("residual_block", spoiling)
        assert (result.verdict, result.details["changed"]) == ("changed-input", ["conv1"])
    assert exercises.check("residual_block", EXERCISES["residual_block"].solution).passed


def test_overlapping_checks_restore_numpy():
    before = np.empty, np.empty_like
    first, second = poisoned(), poisoned()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # two threads close their contexts in any order
    assert np.isnan(np.empty(3)).all()
    second.__exit__(None, None, None)
    assert (np.empty, np.empty_like) == before
