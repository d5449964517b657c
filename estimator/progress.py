"""One line every few steps: where the run is, how good, how fast, how long still."""
import functools
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import tensorflow.compat.v1 as tf

from etl.progress import clock


class ProgressHook(tf.train.SessionRunHook):
    """Writes a line after the first step, whenever `every_steps` are done, and after the last.

    The losses in a line are means over the steps since the line before; the pace leaves out the first step, which
    takes long.
    """

    def __init__(self, tensors: Mapping[str, tf.Tensor], total_steps: int, every_steps: int, examples_per_step: int,
                 tokens_per_step: int, steps_per_call: int = 1,
                 write: Callable[[str], Any] = functools.partial(print, flush=True)) -> None:
        """
        Args:
          tensors: what to show by name, scalars; "learning_rate" is shown as it last was, the rest as means.
          total_steps: where the run ends.
          every_steps, examples_per_step, tokens_per_step: counts; tokens include padding.
          steps_per_call: training steps behind each session call, as an offloaded loop has them.
          write: takes each line.
        """
        self._tensors = dict(tensors)
        self._total_steps = total_steps
        self._every_steps = every_steps
        self._examples_per_step = examples_per_step
        self._tokens_per_step = tokens_per_step
        self._steps_per_call = steps_per_call
        self._write = write
        self._step = 0
        self._sums: Dict[str, float] = {}      # since the line before
        self._calls = 0
        self._line: Optional[Tuple[int, float]] = None   # step and time of the line before

    def after_create_session(self, session: tf.Session, coord: Any) -> None:
        self._step = int(session.run(tf.train.get_global_step()))

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._tensors)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        before, self._step = self._step, self._step + self._steps_per_call
        self._calls += 1
        for name, value in run_values.results.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        due = before // self._every_steps != self._step // self._every_steps
        if due or self._line is None or self._step >= self._total_steps:
            self._step = int(run_context.session.run(tf.train.get_global_step()))   # loss scaling may skip an update
            self._write(self._next_line(float(run_values.results["learning_rate"])))

    def _next_line(self, learning_rate: float) -> str:
        means = {name: total / self._calls for name, total in self._sums.items() if name != "learning_rate"}
        text = progress_line(self._step, self._total_steps, means, learning_rate)
        now = time.time()
        if self._line is not None and self._step > self._line[0]:
            steps_per_second = (self._step - self._line[0]) / max(1e-9, now - self._line[1])
            text += "  " + pace_text(steps_per_second, self._examples_per_step, self._tokens_per_step,
                                     self._total_steps - self._step)
        self._sums, self._calls, self._line = {}, 0, (self._step, now)
        return text


def progress_line(step: int, total_steps: int, losses: Mapping[str, float], learning_rate: float) -> str:
    """`step 100/2000  loss 9.1234  masked_lm_loss 8.4302  lr 0.00012`."""
    parts = ["step %d/%d" % (step, total_steps)]
    parts += ["%s %.4f" % (name, losses[name]) for name in losses]
    return "  ".join(parts + ["lr %.3g" % learning_rate])


def pace_text(steps_per_second: float, examples_per_step: int, tokens_per_step: int, steps_left: int) -> str:
    """`12.3 examples/s  1574 tokens/s  5:21 left`."""
    return "%.1f examples/s  %.0f tokens/s  %s left" % (
        steps_per_second * examples_per_step, steps_per_second * tokens_per_step, clock(steps_left / steps_per_second))
