"""Epochs → steps: the number of updates, in whole loops of a device."""
import dataclasses
import math
from typing import Optional, Tuple

from estimator.finetuning.flags import FinetuneConfig
from estimator.npu import devices
from estimator.training.jobs import Schedule
from etl.common.command_line import UserError

MOST_BEYOND = 0.02                             # the share of steps that may be added to complete a loop


def find_schedule(config: FinetuneConfig, device: devices.Device, num_rows: int,
                  finds_loop: bool) -> Tuple[FinetuneConfig, Schedule]:
    """The length of the training run, and the flags with a device loop that fits it, if none was given."""
    if config.do_train and finds_loop:
        config = dataclasses.replace(config, iterations_per_loop=fitting_loop(config, device, num_rows))
    steps = count_steps(config, device, num_rows, config.num_train_epochs)
    return config, Schedule(steps, int(steps * config.warmup_proportion),
                            steps_between_evaluations(config, device, num_rows))


def fitting_loop(config: FinetuneConfig, device: devices.Device, num_rows: int) -> int:
    """The default number of batches per loop: up to the device's preference, but a divisor of the steps
    between checkpoints, and so few that an epoch, and all epochs, are hardly longer in whole loops.
    """
    k = config.gradient_accumulation_steps
    lengths = [steps_in(config, device, num_rows, epochs) for epochs in (1.0, config.num_train_epochs)]
    for updates in range(max(1, device.loop(None, k) // k), 0, -1):
        divides = all(interval % updates == 0
                      for interval in (config.save_checkpoints_steps, config.eval_every or 0))
        if divides and all(-steps % updates <= MOST_BEYOND * steps for steps in lengths):
            break
    return updates * k


def count_steps(config: FinetuneConfig, device: devices.Device, num_rows: int, epochs: float) -> int:
    """Steps in so many epochs; on the NPU in whole loops, thus a few more.

    Raises UserError if the given loop is too long for that.
    """
    if config.do_train:
        config.check_steps(device, "save_checkpoints_steps", "eval_every")
    steps = steps_in(config, device, num_rows, epochs)
    whole = in_whole_loops(config, steps)
    if whole - steps > MOST_BEYOND * steps:
        raise UserError("--iterations_per_loop is %d, but --num_train_epochs %g are %d steps, and %d in "
                        "whole loops: try %d, or leave the flag out"
                        % (config.iterations_per_loop, epochs, steps, whole,
                           fitting_loop(config, device, num_rows)))
    return whole


def steps_in(config: FinetuneConfig, device: devices.Device, num_rows: int, epochs: float) -> int:
    """Updates in so many epochs, at least one."""
    rows = config.train_batch_size * device.world.size * config.gradient_accumulation_steps
    return max(1, int(num_rows * epochs / rows))


def in_whole_loops(config: FinetuneConfig, steps: int) -> int:
    """So many steps, or a few more, that end with a loop."""
    return math.ceil(steps / config.updates_per_loop) * config.updates_per_loop


def steps_between_evaluations(config: FinetuneConfig, device: devices.Device, num_rows: int) -> Optional[int]:
    """--eval_every, by default the steps of an epoch, in whole loops; None without evaluation."""
    if not config.do_eval:
        return None
    return config.eval_every or in_whole_loops(config, steps_in(config, device, num_rows, 1.0))
