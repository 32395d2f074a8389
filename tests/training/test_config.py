"""The configuration: the paper's recipe by default, every mistake named."""

from __future__ import annotations

import json

import pytest

from minires import data
from minires.optim import Constant, Step, Warmup
from minires.training import RECIPES, Config, ConfigError


def test_the_papers_recipe():
    config = Config.make(network="resnet56", data="cifar10")
    assert (config.lr, config.momentum, config.weight_decay, config.batch_size) == (0.1, 0.9, 1e-4, 128)
    assert config.total_iterations(391) == 64_000
    assert config.make_schedule(64_000) == Step(0.1, (32_000, 48_000), 0.1)
    assert config.augment
    assert config.label_smoothing == 0
    assert not config.nesterov


def test_resnet110_warms_up():
    schedule = Config.make(network="resnet110", data="cifar10").make_schedule(64_000)
    assert isinstance(schedule, Warmup)
    assert (schedule.lr, schedule.until_error, schedule.ends) == (0.01, 80.0, None)
    assert isinstance(Config.make(network="resnet110", warmup="none").make_schedule(100), Step)
    fixed = Config.make(warmup=400).make_schedule(64_000)
    assert isinstance(fixed, Warmup)
    assert fixed.ends == 400


def test_every_data_set_has_a_recipe():
    assert set(RECIPES) == set(data.names())
    for name in data.names():
        Config.make(data=name)


def test_what_is_given_goes_first():
    assert Config.make(iterations=5).epochs is None
    assert Config.make(epochs=5, data="cifar10").iterations is None
    assert Config.make(data="folder", batch_size=32).batch_size == 32
    assert Config.make(schedule="constant", lr=0.3).make_schedule(10) == Constant(0.3)


def test_lengths():
    assert Config.make(epochs=2.5).total_iterations(12) == 30
    assert Config.make(epochs=0.9).total_iterations(12) == 11  # 10.8
    assert Config.make(epochs=0.001).total_iterations(12) == 1
    assert Config.make(iterations=7).total_iterations(12) == 7
    assert Config.make().intervals(12) == (12, 12, 12)
    assert Config.make().intervals(469) == (100, 469, 469)
    assert Config.make(log_every=3, eval_every=5, checkpoint_every=7).intervals(469) == (3, 5, 7)


def test_imagenets_recipe():
    config = Config.make(data="folder")
    assert (config.batch_size, config.epochs) == (256, 90)  # section 3.4
    assert config.make_schedule(90) == Step(0.1, (30, 60), 0.1)


def test_settings_at_the_end_of_their_range():
    assert Config.make(batch_size=8, micro_batch=8).micro_batch == 8
    assert Config.make(milestones=(1, 5), lr_factor=0.5).make_schedule(10) == Step(0.1, (1, 5), 0.5)
    warmup = Config.make(warmup=1, warmup_lr=0.02, schedule="constant", lr=0.3).make_schedule(10)
    assert [warmup(i) for i in range(3)] == [0.02, 0.3, 0.3]


def test_json_round_trip():
    config = Config.make(network="resnet32", milestones=(100, 200), warmup=3, width=8)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"network": "resnet21"}, "resnet21"),
        ({"network": None}, "network"),
        ({"data": "mnist"}, "fashion-mnist"),
        ({"epochs": 1, "iterations": 1}, "epochs and iterations"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"lr_": 1}, "Did you mean 'lr'"),
        ({"lr": "0.1"}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"batch_size": True}, "batch_size"),
        ({"micro_batch": 0}, "micro_batch must be"),
        ({"batch_size": 8, "micro_batch": 9}, "micro_batch must be at most the batch_size 8"),
        ({"batch_size": 12.0}, "batch_size"),
        ({"augment": "yes"}, "augment"),
        ({"keep_best": 1}, "keep_best"),
        ({"nesterov": True, "momentum": 0}, "nesterov"),
        ({"milestones": (0.5, "x")}, "milestones"),
        ({"milestones": 3}, "milestones"),
        ({"milestones": (0.5, 1)}, "milestones must be all iterations or all fractions"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"milestones": (-0.5,)}, "milestones"),
        ({"warmup": 1.5}, "warmup"),
        ({"data_dir": 3}, "data_dir"),
        ({"network": "plain20", "shortcut": "A"}, "plain20"),
    ],
)
def test_mistakes_are_named(given, named):
    with pytest.raises(ConfigError, match=named):
        Config.make(**given)


@pytest.mark.parametrize("values", [[], None, {"epochs": 1, "danger": 1}, {"epochs": 1, "milestones": "0.5"}, {}])
def test_foreign_json_is_refused(values):
    with pytest.raises(ConfigError):
        Config.from_json(values)


def test_a_warmup_of_n_iterations_is_n_iterations_long():
    """In the configuration as in the schedule: iterations 0, 1, 2 at the low rate, 3 at the full one."""
    for schedule in (Config.make(warmup=3, warmup_lr=0.01).make_schedule(100), Warmup(Constant(0.1), 0.01, 3)):
        assert [schedule(iteration) for iteration in range(5)] == [0.01, 0.01, 0.01, 0.1, 0.1]


def test_a_warmup_until_the_error_falls_lasts_through_the_iteration_that_ends_it(monkeypatch):
    monkeypatch.setattr(Warmup, "window", 2)
    schedule = Config.make(warmup="error", warmup_lr=0.01).make_schedule(100)
    rates = []
    for iteration, error in enumerate((90, 85, 70, 50, 50)):  # the mean of two falls below 80 with the third
        rates.append(schedule(iteration))
        schedule.observe(iteration, error)
    assert rates == [0.01, 0.01, 0.01, 0.1, 0.1]
    assert schedule(3) == 0.1
