import dataclasses
import math

import pytest

from estimator.npu import devices
from estimator.npu.ranks import World
from estimator.training.flags import TrainingFlags
from estimator.training.jobs import Schedule, training_config


def test_the_rate_grows_with_the_square_root_of_the_records_of_an_update():
    flags = TrainingFlags(learning_rate=0.001, train_batch_size=32, scale_lr_by_batch=64,
                          gradient_accumulation_steps=4)
    assert training_config(flags, devices.Device(),
                           Schedule(100, 10)).learning_rate == pytest.approx(0.001 * math.sqrt(2))
    two = devices.Device(world=World(1, 2))
    halves = dataclasses.replace(flags, train_batch_size=16)
    assert training_config(halves, two,
                           Schedule(100, 10)).learning_rate == pytest.approx(0.001 * math.sqrt(2))
    assert training_config(TrainingFlags(learning_rate=0.001), devices.Device(),
                           Schedule(100, 10)).learning_rate == 0.001


def test_a_training_is_what_the_flags_say():
    flags = TrainingFlags(optimizer="lamb", lr_schedule="reference", layer_decay=0.9,
                          gradient_accumulation_steps=2, log_steps=7, random_seed=3)
    training = training_config(flags, devices.Device(), Schedule(100, 10, poly_power=2.0))
    assert (training.optimizer, training.lr_schedule, training.layer_decay, training.accumulation_steps) == (
        "lamb", "reference", 0.9, 2)
    assert (training.num_train_steps, training.num_warmup_steps, training.poly_power,
            training.log_steps) == (100, 10, 2.0, 7)
