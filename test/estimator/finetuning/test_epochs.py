import dataclasses

import pytest

from estimator.finetuning import epochs
from estimator.finetuning.flags import FinetuneConfig
from estimator.npu import devices
from etl.common.command_line import UserError

CONFIG = FinetuneConfig()


def test_steps_are_whole_batches_of_all_epochs():
    assert epochs.count_steps(CONFIG, devices.Device(), 396, 3.0) == 37
    assert epochs.count_steps(CONFIG, devices.Device(), 396, 0.01) == 1
    with pytest.raises(UserError, match="--iterations_per_loop is 10, but --num_train_epochs 3 are 37 steps, "
                       "and 40 in whole loops: try 1, or leave the flag out"):
        epochs.count_steps(dataclasses.replace(CONFIG, iterations_per_loop=10), devices.Device("npu"), 396,
                           3.0)


@pytest.mark.parametrize("num_rows, loop, steps",
                         [(32 * 12, 4, 36), (32 * 10, 10, 30), (32 * 7461, 100, 22400), (32 * 37, 1, 111)])
def test_a_loop_that_was_not_asked_for_fits_the_epochs(num_rows, loop, steps):
    device = devices.Device("npu")
    assert epochs.fitting_loop(CONFIG, device, num_rows) == loop
    config = dataclasses.replace(CONFIG, iterations_per_loop=loop)
    assert epochs.count_steps(config, device, num_rows, 3.0) == steps
    assert epochs.steps_between_evaluations(config, device, num_rows) % loop == 0
