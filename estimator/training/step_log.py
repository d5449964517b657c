"""The log of a training run: a line every few steps with progress, losses, speed and time left; and points of
curves."""
import functools
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

from estimator.optimization import optimizers
from estimator.training import streaming_metrics
from etl.common.progress_line import clock


CALLS_THAT_PREPARE = 2  # the session: one with a line's fetches, one without


class Pace(NamedTuple):
    """The sizes and intervals of training steps."""
    num_train_steps: int                    # total updates
    log_steps: int                          # updates between lines
    batch_size: int                         # records of a batch
    batch_tokens: float                     # tokens per batch, padding included, unless measured
    accumulation_steps: int = 1             # batches per update
    batches_per_call: int = 1               # more than 1 in an offloaded loop
    start_step: int = 0                     # updates at the command's start, which may train in stretches
    flops_of: Callable[[float], float] = lambda tokens: 0.0    # operations of a batch of so many tokens
    peak_flops: Optional[float] = None         # peak operations per second of the devices


def host_measures(features: Mapping[str, tf.Tensor]) -> Dict[str, tf.Tensor]:
    """Measurements of a step on the host, for `ProgressHook`: the time it waited for its batch, float64 in
    seconds, and the batch's tokens without padding."""
    begin = tf.timestamp()
    with tf.control_dependencies([begin, next(iter(features.values()))]):
        return {"seconds_waiting": tf.timestamp() - begin, "tokens": tf.reduce_sum(features["input_mask"])}


class ProgressHook(tf.train.SessionRunHook):
    """Writes a line after a command's first step, every `log_steps`, and after the last, and points of the
    curves.

    The losses in a line are means over the steps since the previous line. The rates exclude the calls that
    prepare a session; a call that is a loop takes so long that the second one counts.
    """

    def __init__(self, losses: Mapping[str, tf.Tensor], shown: Mapping[str, tf.Tensor], pace: Pace,
                 measures: Mapping[str, tf.Tensor] = {}, event_dir: Optional[str] = None,
                 write: Callable[[str], Any] = functools.partial(print, flush=True)) -> None:
        """
        Args:
          losses: scalars by name; their means are shown.
          shown: scalars by name, read only when a line is due, for the curves; "learning_rate" is also in the
            line.
          pace: sizes and intervals.
          measures: see `host_measures`; without them the time spent waiting is not shown.
          event_dir: folder of the curves; None: no curves.
          write: takes each line.
        """
        self._losses, self._shown = dict(losses), dict(shown)
        self._pace = pace
        self._measures = dict(measures)
        self._event_dir = event_dir
        self._write = write
        self._before = self._batches = 0       # batches taken before this session, and in it
        self._sums: Dict[str, float] = {}      # since the previous line, like the two below
        self._calls = 0
        self._measured: Dict[str, float] = {}  # sums since the pace begins
        self._timed: Optional[Tuple[int, float]] = None  # batches and time where the pace begins

    def begin(self) -> None:
        self._batches_taken = optimizers.batches_taken()

    def after_create_session(self, session: tf.Session, coord: Any) -> None:
        step, self._before = map(int, session.run([tf.train.get_global_step(), self._batches_taken]))
        if self._event_dir and step:           # what an interrupted run wrote after this step is invalid
            self._writer().add_session_log(tf.SessionLog(status=tf.SessionLog.START), step)

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        wanted: Dict[str, Any] = {"losses": self._losses, "measures": self._measures}
        if self._batches == 0 or self._is_due(self._batches, self._batches + self._pace.batches_per_call):
            wanted["shown"] = self._shown
        return tf.train.SessionRunArgs(wanted)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        found = run_values.results
        before, self._batches = self._batches, self._batches + self._pace.batches_per_call
        self._calls += 1
        for sums, values in ((self._sums, found["losses"]), (self._measured, found["measures"])):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        if self._is_due(before, self._batches):
            self._tell(int(run_context.session.run(tf.train.get_global_step())),
                       {name: float(value) for name, value in found["shown"].items()})
        elif self._timed is None:
            self._time_from_here()

    def end(self, session: tf.Session) -> None:
        if self._event_dir:
            self._writer().flush()

    def _is_due(self, batches_before: int, batches: int) -> bool:
        """Whether a line is due between these two numbers of batches."""
        first, before, after = map(self._updates_after, (0, batches_before, batches))
        begins = first == self._pace.start_step == before < after
        ends = before < self._pace.num_train_steps <= after
        return begins or before // self._pace.log_steps != after // self._pace.log_steps or ends

    def _updates_after(self, batches: int) -> int:
        """Updates of the whole run after so many batches of this session, including those that overflowed."""
        return (self._before + batches) // self._pace.accumulation_steps

    def _tell(self, step: int, shown: Dict[str, float]) -> None:
        """Writes a line, and points of the curves at `step`, which counts the updates that did
        not overflow."""
        means = {name: total / self._calls for name, total in self._sums.items()}
        updates = self._updates_after(self._batches)
        text = step_line(updates, self._pace.num_train_steps, means, shown["learning_rate"])
        points = dict(means, **shown)
        if "masked_lm_loss" in means:
            points["perplexity"] = streaming_metrics.perplexity(means["masked_lm_loss"])
        if self._timed is not None:
            batches, begin = self._batches - self._timed[0], self._timed[1]
            seconds = max(1e-9, time.time() - begin)
            tokens = self._measured.get("tokens", batches * self._pace.batch_tokens)
            flops = batches * self._pace.flops_of(tokens / batches)
            points.update(examples_per_second=batches * self._pace.batch_size / seconds,
                          tokens_per_second=tokens / seconds, model_flops_per_second=flops / seconds)
            if self._pace.peak_flops:
                points["share_of_peak"] = flops / seconds / self._pace.peak_flops
            if "seconds_waiting" in self._measured:
                points["share_of_time_waiting_for_input"] = self._measured["seconds_waiting"] / seconds
            batches_left = max(0, self._pace.num_train_steps - updates) * self._pace.accumulation_steps
            text += "  " + pace_text(points, batches_left * seconds / batches)
        if updates > step:
            text += "  %d updates overflowed" % (updates - step)
            points["overflows"] = float(updates - step)
        self._write(text)
        if self._event_dir:
            self._writer().add_summary(tf.Summary(value=[
                tf.Summary.Value(tag=name, simple_value=value) for name, value in points.items()]), step)
            self._writer().flush()
        self._sums, self._calls = {}, 0
        self._time_from_here()

    def _time_from_here(self) -> None:
        calls = self._batches // self._pace.batches_per_call
        if calls >= CALLS_THAT_PREPARE or self._pace.batches_per_call > 1:
            self._timed, self._measured = (self._batches, time.time()), {}

    def _writer(self) -> tf.summary.FileWriter:
        return tf.summary.FileWriterCache.get(self._event_dir)


def step_line(step: int, total_steps: int, losses: Mapping[str, float], learning_rate: float) -> str:
    """`step 100/2000  loss 9.1234  masked_lm_loss 8.4302  lr 0.00012`."""
    names: List[str] = sorted(losses,
                              key=lambda name: name != "loss")   # the sum first, the parts as they come
    parts = ["step %d/%d" % (step, total_steps)] + ["%s %.4f" % (name, losses[name]) for name in names]
    return "  ".join(parts + ["lr %.3g" % learning_rate])


def pace_text(points: Mapping[str, float], seconds_left: float) -> str:
    """`12.3 examples/s  1574 tokens/s  85.2 GFLOP/s (60% of the peak)  waiting 0.1%  5:21 left`."""
    text = "%.1f examples/s  %.0f tokens/s  " % (points["examples_per_second"], points["tokens_per_second"])
    rate = points["model_flops_per_second"]
    text += "%.1f TFLOP/s" % (rate / 1e12) if rate >= 1e12 else "%.1f GFLOP/s" % (rate / 1e9)
    if "share_of_peak" in points:
        text += " (%.0f%% of the peak)" % (100 * points["share_of_peak"])
    if "share_of_time_waiting_for_input" in points:
        text += "  waiting %.1f%%" % (100 * points["share_of_time_waiting_for_input"])
    return "%s  %s left" % (text, clock(seconds_left))
