import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from estimator.optimization import names, schedules


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def rates(steps, *args, **kwargs):
    step = tf.placeholder(tf.int64, [])
    rate = schedules.learning_rate(step, *args, **kwargs)
    assert rate.shape.as_list() == [] and rate.dtype == tf.float32
    with tf.Session() as session:
        return [session.run(rate, {step: at}) for at in steps]


def test_default_rises_then_falls_from_the_end_of_the_warm_up():
    got = rates([0, 1, 2, 4, 5, 8, 12, 13], 0.8, num_train_steps=12, num_warmup_steps=4)
    np.testing.assert_allclose(got, [0, 0.2, 0.4, 0.8, 0.7, 0.4, 0, 0], rtol=0, atol=1e-7)


def test_reference_decays_from_step_0_and_jumps():
    got = rates([0, 2, 4, 8, 12, 13], 0.8, num_train_steps=16, num_warmup_steps=4, schedule="reference")
    np.testing.assert_allclose(got, [0, 0.4, 0.6, 0.4, 0.2, 0.15], rtol=0, atol=1e-7)


def test_power():
    got = rates([2, 4, 6], 1.0, num_train_steps=6, num_warmup_steps=2, power=2.0)
    np.testing.assert_allclose(got, [1, 0.25, 0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("schedule", names.LR_SCHEDULES)
def test_without_warm_up_the_first_step_has_the_highest_rate(schedule):
    got = rates([0, 5, 10], 0.5, num_train_steps=10, num_warmup_steps=0, schedule=schedule)
    np.testing.assert_allclose(got, [0.5, 0.25, 0], rtol=0, atol=1e-7)


def test_warm_up_may_fill_the_run():
    np.testing.assert_allclose(rates([0, 3], 0.8, num_train_steps=4, num_warmup_steps=4), [0, 0.6], rtol=0,
                               atol=1e-7)


@pytest.mark.parametrize("arguments, message", [
    (dict(num_train_steps=100, num_warmup_steps=101),
     "num_warmup_steps must be from 0 to num_train_steps, which is 100, got 101"),
    (dict(num_train_steps=100, num_warmup_steps=-1),
     "num_warmup_steps must be from 0 to num_train_steps, which is 100, got -1"),
    (dict(num_train_steps=0, num_warmup_steps=0), "num_train_steps must be at least 1, got 0"),
    (dict(num_train_steps=9, num_warmup_steps=0, schedule="cosine"),
     "schedule must be one of linear_after_warmup, reference, got cosine"),
])
def test_bad_values(arguments, message):
    with pytest.raises(ValueError) as caught:
        schedules.learning_rate(0, 0.1, **arguments)
    assert str(caught.value) == message


def test_learning_rate_scales_with_the_square_root_of_the_batch():
    assert schedules.scaled_learning_rate(0.00176, 1024, 4096) == pytest.approx(0.00088)
    assert schedules.scaled_learning_rate(0.00176, 4096, 4096) == 0.00176
    with pytest.raises(ValueError, match="batch sizes must be at least 1, got 0 and 4096"):
        schedules.scaled_learning_rate(0.00176, 0, 4096)
