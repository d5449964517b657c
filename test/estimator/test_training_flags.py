import math

import pytest

from estimator import npu
from estimator.ranks import World
from estimator.training_flags import TrainingFlags


def test_the_rate_grows_with_the_square_root_of_the_records_of_an_update():
    flags = TrainingFlags(learning_rate=0.001, scale_lr_by_batch=64, gradient_accumulation_steps=4)
    assert flags.training(npu.Device(), 32, 100, 10).learning_rate == pytest.approx(0.001 * math.sqrt(2))
    two = npu.Device(world=World(1, 2))
    assert flags.training(two, 16, 100, 10).learning_rate == pytest.approx(0.001 * math.sqrt(2))
    assert TrainingFlags(learning_rate=0.001).training(npu.Device(), 32, 100, 10).learning_rate == 0.001


def test_a_training_is_what_the_flags_say():
    flags = TrainingFlags(optimizer="lamb", lr_schedule="reference", layer_decay=0.9, gradient_accumulation_steps=2,
                          log_steps=7, random_seed=3)
    training = flags.training(npu.Device(), 8, 100, 10, poly_power=2.0)
    assert (training.optimizer, training.lr_schedule, training.layer_decay, training.accumulation_steps) == (
        "lamb", "reference", 0.9, 2)
    assert (training.num_train_steps, training.num_warmup_steps, training.poly_power, training.log_steps) == (100, 10, 2.0, 7)


@pytest.mark.parametrize("field, value, message", [
    ("learning_rate", 0, "learning_rate must be above 0, got 0"),
    ("layer_decay", 1.5, r"layer_decay must be in \(0, 1\], got 1.5"),
    ("gradient_accumulation_steps", 0, "gradient_accumulation_steps must be at least 1, got 0"),
    ("scale_lr_by_batch", 0, "scale_lr_by_batch must be at least 1, got 0"),
])
def test_bad_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainingFlags(**{field: value})


@pytest.mark.parametrize("given, wanted", [
    ({}, (True, True)), ({"do_train": True}, (True, False)), ({"do_eval": True}, (False, True)),
    ({"do_train": False}, (False, True)), ({"do_train": False, "do_eval": False}, (False, False)),
])
def test_who_asks_for_one_thing_gets_nothing_else(given, wanted):
    flags = TrainingFlags(**given)
    assert (flags.do_train, flags.do_eval) == wanted
