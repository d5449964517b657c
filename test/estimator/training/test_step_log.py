import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from estimator.optimization import optimizers
from estimator.training.step_log import Pace, ProgressHook, host_measures, pace_text, step_line


def lines(total_steps, every_steps, start_step=0, steps_per_call=1, ready=False, part_step=None):
    """The lines of a run in which the loss is the step it is computed at and each call advances the step."""
    written = []
    pace = Pace(total_steps, every_steps, batch_size=4, batch_tokens=32, batches_per_call=steps_per_call,
                start_step=start_step)
    start_step = start_step if part_step is None else part_step
    with tf.Graph().as_default():
        step = tf.get_variable("global_step", initializer=np.int64(start_step), trainable=False,
                               use_resource=True,
                               collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP])
        batches = tf.get_variable(optimizers.BATCHES_TAKEN, initializer=np.int64(start_step), trainable=False,
                                  use_resource=True)
        loss = tf.cast(step.read_value(), tf.float32)
        with tf.control_dependencies([loss]):
            train_op = tf.group(step.assign_add(steps_per_call), batches.assign_add(steps_per_call))
        hook = ProgressHook({"loss": loss}, {"learning_rate": tf.constant(0.5)}, pace,
                            host_measures({"input_mask": tf.ones([2, 3], tf.int32)}) if ready else {},
                            write=written.append)
        with tf.train.SingularMonitoredSession([hook]) as session:
            for _ in range(start_step, total_steps, steps_per_call):
                session.run(train_op)
    return written


def test_lines_come_after_the_first_step_at_round_steps_and_at_the_end():
    found = lines(total_steps=7, every_steps=3)
    assert [line.split("  ")[:3] for line in found] == [
        ["step 1/7", "loss 0.0000", "lr 0.5"], ["step 3/7", "loss 1.5000", "lr 0.5"],
        ["step 6/7", "loss 4.0000", "lr 0.5"], ["step 7/7", "loss 6.0000", "lr 0.5"]]
    assert "left" not in found[0] and all(line.endswith("0:00 left") for line in found[1:])


def test_a_later_part_of_a_run_has_no_line_of_its_first_step():
    assert [line.split("  ")[:2] for line in lines(9, 3, part_step=4)] == [["step 6/9", "loss 4.5000"],
                                                                           ["step 9/9", "loss 7.0000"]]


def test_the_calls_that_prepare_a_session_are_not_timed():
    assert ["left" in line for line in lines(5, 1)] == [False, False, True, True, True]


def test_a_resumed_run_counts_from_its_step():
    assert [line.split("  ")[0] for line in lines(7, 3, start_step=4)] == ["step 5/7", "step 6/7", "step 7/7"]


def test_a_call_may_stand_for_several_steps():
    assert [line.split("  ")[0] for line in lines(20, 8, steps_per_call=5)] == [
        "step 5/20", "step 10/20", "step 20/20"]


def test_texts():
    assert step_line(20, 100, {"masked_lm_loss": 8.5, "loss": 9.12345}, 0.00012) == (
        "step 20/100  loss 9.1235  masked_lm_loss 8.5000  lr 0.00012")
    points = {"examples_per_second": 16.0, "tokens_per_second": 2048.0, "model_flops_per_second": 8.25e10}
    assert pace_text(points, 600) == "16.0 examples/s  2048 tokens/s  82.5 GFLOP/s  10:00 left"
    points.update(share_of_time_waiting_for_input=0.0123, share_of_peak=0.415, model_flops_per_second=1.06e14)
    assert (pace_text(points, 600)
            == "16.0 examples/s  2048 tokens/s  106.0 TFLOP/s (42% of the peak)  waiting 1.2%  10:00 left")


def test_the_time_spent_waiting_is_told():
    assert all(re.search(r"waiting \d+\.\d%", line) for line in lines(7, 3, ready=True)[1:])


def test_tokens_are_those_that_are_measured(tmp_path):
    """6 of a batch's 32; operations follow from them."""
    pace = Pace(4, 4, batch_size=2, batch_tokens=32, flops_of=lambda tokens: 100 * tokens, peak_flops=1e4)
    with tf.Graph().as_default():
        measures = host_measures({"input_mask": tf.constant([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])})
        step = tf.train.get_or_create_global_step()
        train_op = tf.assign_add(step, 1)
        hook = ProgressHook({"loss": tf.constant(0.0)}, {"learning_rate": tf.constant(0.5)}, pace, measures,
                            str(tmp_path), list)
        with tf.train.SingularMonitoredSession([hook]) as session:
            for _ in range(4):
                session.run(train_op)
    found = {value.tag: value.simple_value for path in tmp_path.iterdir()
             for event in tf.train.summary_iterator(str(path)) for value in event.summary.value}
    assert found["tokens_per_second"] == pytest.approx(3 * found["examples_per_second"])
    assert found["model_flops_per_second"] == pytest.approx(100 * found["tokens_per_second"])
    assert found["share_of_peak"] == pytest.approx(found["model_flops_per_second"] / 1e4)


def test_batches_behind_an_update_count_once():
    written = []
    with tf.Graph().as_default():
        step = tf.get_variable("global_step", initializer=np.int64(0), trainable=False, use_resource=True,
                               collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP])
        batch = tf.get_variable("batch", initializer=np.int64(0), trainable=False, use_resource=True)
        count = batch.assign_add(1, read_value=True)
        train_op = step.assign(count // 3)
        hook = ProgressHook({"loss": tf.cast(count, tf.float32)}, {"learning_rate": tf.constant(0.5)},
                            Pace(4, 2, 4, 32, accumulation_steps=3), write=written.append)
        with tf.train.SingularMonitoredSession([hook]) as session:
            for _ in range(12):
                session.run(train_op)
    assert [line.split("  ")[:2] for line in written] == [
        ["step 1/4", "loss 2.0000"], ["step 2/4", "loss 5.0000"], ["step 4/4", "loss 9.5000"]]
