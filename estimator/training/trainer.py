"""Trains a job from its start to the last batch, with evaluations in between.

Training runs in stretches, each from one evaluation to the next. A stretch begins with the batch and the
dropout that would have been next anyway, so that stretches, like interruptions, change nothing. Stretches,
evaluations and the end are counted in batches taken: an update that overflows also takes its batches, but
does not advance global_step.
"""
import contextlib
import os
import re
import shutil
import signal
import threading
import time
from typing import Any, Callable, ContextManager, Iterator, Optional, Sequence

import tensorflow.compat.v1 as tf

from estimator.optimization import optimizers
from estimator.training import best_checkpoint, curves, failures, result_files, resume
from estimator.training.jobs import Job
from estimator.training.resume import Position
from estimator.weights import checkpoint_files, checkpoint_list, model_folder
from etl.common import files
from etl.common.command_line import UserError
from etl.common.progress_line import clock
from etl.reports.page import Section

LOCK_FILE = ".lock"
PATIENCE_SECONDS = 3600                        # of the other ranks while rank 0 saves and evaluates

# Leftovers of files that TensorFlow was writing: a list, a graph, the parts of a checkpoint, their
# folder.
_HALF_WRITTEN_FILE = re.compile(r"(checkpoint|graph\.pbtxt|model\.ckpt-\d+\.meta)\.tmp[0-9a-f]{32}"
                                r"|model\.ckpt-\d+\.(index|data-\d{5}-of-\d{5})\.tempstate\d+")
_HALF_WRITTEN_FOLDER = re.compile(r"model\.ckpt-\d+_temp_[0-9a-f]{32}")


def locked(output_dir: str) -> ContextManager[None]:
    """Keeps a second training run out of the folder while the block runs. Raises UserError if there is one
    already."""
    return files.lock(os.path.join(output_dir, LOCK_FILE),
                      "--output_dir: another training is running in %s" % output_dir)


def train(job: Job, estimator: Any) -> bool:
    """Trains from the job's start to its last batch, and evaluates every `eval_every` steps but not after the
    last one.

    Returns:
      Whether it finished: False after SIGTERM, when the newest checkpoint is that of the last step.
    """
    output_dir, is_first = job.flags.output_dir, job.device.world.is_first
    steps, last = job.schedule.num_train_steps, job.num_batches
    if job.start.batches >= last:
        print("Nothing to train: %s is at step %d of %d"
              % (output_dir, _steps(job, job.start.batches), steps))
        return True
    _prepare_folder(job)
    if job.start.batches:
        print("Resuming from step %d of %d" % (_steps(job, job.start.batches), steps))
    begin, taken = time.time(), job.start.batches
    with _sigterm(is_first) as stop, _clean(
            output_dir, is_first), checkpoint_files.only_the_hook_removes(), failures.explained(
                    "--train_batch_size %d" % job.flags.train_batch_size, job.data, output_dir):
        if (_is_evaluated_at(job, taken) and is_first
            and not evaluate(job, estimator)):     # perhaps it was interrupted before that
            stop.set()
        while taken < last and not (stop.is_set() or _out_of_patience(job, taken)):
            end = _end_of_stretch(job, taken)
            stretch = _StretchHook(job, stop, end - taken)
            estimator.train(job.batches(taken), hooks=[stretch, _ReportHook(job)] if is_first else [stretch])
            if not is_first:
                if end < last:
                    _wait_for_rank_0(job, stretch.step)
                taken = end
                continue
            taken = _position(job).batches
            if end < last and not stop.is_set() and not evaluate(job, estimator):
                stop.set()
    if stop.is_set() and taken < last:
        print("Stopped by SIGTERM after step %d of %d, which is saved; run the same command to resume"
              % (_steps(job, taken), steps))
        return False
    if taken < last:
        print("Stopped early after step %d of %d: %s has not improved in %d evaluations"
              % (_steps(job, taken), steps, job.best_metric, job.patience))
    print("Trained %d steps in %s; checkpoints in %s"
          % (_steps(job, taken - job.start.batches), clock(time.time() - begin), output_dir))
    return True


def evaluate(job: Job, estimator: Any) -> bool:
    """Evaluates the newest checkpoint, keeps it if it is the best, and writes the report.

    Returns:
      Whether it finished: False after SIGTERM, when nothing is written.
    """
    output_dir = job.flags.output_dir
    best_checkpoint.require_own(output_dir)
    checkpoint = checkpoint_files.resolve(output_dir, "output_dir")
    try:
        with _on_sigterm(_stop_at_once):
            found = job.evaluate(estimator, checkpoint)
    except _Stopped:
        print("Stopped by SIGTERM while evaluating; run the same command to resume")
        return False
    result_files.write_results(output_dir, found.results)
    if best_checkpoint.keep_if_best(output_dir, checkpoint, job.folder, found.results, job.best_metric):
        print("New best %s: saved in %s" % (job.best_metric,
                                            os.path.join(output_dir, best_checkpoint.FOLDER)))
    write_report(job, found.sections)
    return True


def write_report(job: Job, sections: Sequence[Section] = (), evaluated: str = "newest") -> None:
    """Writes the report of the training so far; `evaluated`: the checkpoint to which the results belong."""
    curves.write_report(job.flags.output_dir, job.title, job.charts, sections, evaluated)


def _prepare_folder(job: Job) -> None:
    """Makes the output folder one of this training run, or checks that it is unchanged since the job was
    created."""
    output_dir = job.flags.output_dir
    if not job.device.world.is_first:          # rank 0 does that, below
        _wait("prepare %s" % output_dir, lambda: checkpoint_list.stays_here(output_dir) and (
            not job.start.step or checkpoint_files.counts_batches(output_dir)))
        return
    if _position(job) != job.start:
        raise UserError("--output_dir: another process continued the training in %s in the meantime: run the "
                        "command again" % output_dir)
    remove_half_written(output_dir)
    for note in checkpoint_list.take_over(output_dir):
        print(note)
    best_checkpoint.tidy(output_dir)
    if job.start.step and not checkpoint_files.counts_batches(output_dir):
        checkpoint_files.add_batches_taken(checkpoint_files.resolve(output_dir, "output_dir"),
                                           job.start.batches)
    model_folder.write(output_dir, job.folder)
    resume.write_run(output_dir, job.command, job.flags, job.device.name, job.facts)


def _position(job: Job) -> Position:
    return resume.position(job.flags.output_dir, job.flags.gradient_accumulation_steps, check_data=False)


def _steps(job: Job, batches: int) -> int:
    """Batches in updates, those that overflowed included."""
    return batches // job.flags.gradient_accumulation_steps


def _batches_between_evaluations(job: Job) -> Optional[int]:
    every = job.schedule.eval_every
    return every and every * job.flags.gradient_accumulation_steps


def _is_evaluated_at(job: Job, batches: int) -> bool:
    every = _batches_between_evaluations(job)
    return bool(every) and 0 < batches < job.num_batches and batches % every == 0


def _end_of_stretch(job: Job, batches: int) -> int:
    """The end of the stretch that begins after so many batches."""
    every = _batches_between_evaluations(job)
    return min(job.num_batches, (batches // every + 1) * every) if every else job.num_batches


def _out_of_patience(job: Job, batches: int) -> bool:
    """Whether the best evaluation was `patience` evaluations ago; from files only, so that a resumed run
    knows it, too."""
    every = _batches_between_evaluations(job)
    if not (job.patience and every):
        return False
    best = best_checkpoint.position_of_best(job.flags.output_dir, job.best_metric,
                                            job.flags.gradient_accumulation_steps)
    return best is not None and batches - best.batches >= job.patience * every


def remove_half_written(output_dir: str) -> None:
    """Removes partially written files that a killed process or a full disk left; needs the folder's lock.

    Only files and folders with exactly the names that we and TensorFlow give; a link with such a name is
    kept, like everything else.
    """
    files.remove_temporary(output_dir)
    for entry in list(os.scandir(output_dir)):
        if _HALF_WRITTEN_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif _HALF_WRITTEN_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            os.remove(entry.path)


@contextlib.contextmanager
def _clean(output_dir: str, is_first: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if is_first:                           # the others write nothing
            remove_half_written(output_dir)
        raise


def _wait_for_rank_0(job: Job, step: int) -> None:
    """Waits until rank 0 has evaluated a checkpoint of `step` or later."""
    path = os.path.join(job.flags.output_dir, result_files.JSON_FILE)
    _wait("evaluate step %d" % step,
          lambda: os.path.exists(path) and files.read_json(path)["global_step"] >= step)


def _wait(what: str, is_done: Callable[[], bool]) -> None:
    """Returns once rank 0 has done it."""
    deadline = time.time() + PATIENCE_SECONDS
    while not is_done():
        if time.time() > deadline:
            raise UserError("rank 0 did not %s within %d minutes" % (what, PATIENCE_SECONDS // 60))
        time.sleep(0.5)


class _StretchHook(tf.train.SessionRunHook):
    """Ends a stretch of training after so many batches, or after the update during which the event is set.

    The Estimator's own saver saves at the end, but not if the last updates overflowed, since global_step is
    that of an existing checkpoint: then this hook saves that one again, with the batches taken and the new
    loss scale.

    Attributes:
      step: global_step at the end.
    """

    def __init__(self, job: Job, stop: threading.Event, num_batches: int) -> None:
        self._stop, self._left = stop, num_batches
        self._batches_per_call = job.flags.iterations_per_loop or 1
        self._accumulation_steps = job.flags.gradient_accumulation_steps
        self._saves_overflows = job.device.scales_loss and job.device.world.is_first
        self._output_dir = job.flags.output_dir
        self.step = 0

    def begin(self) -> None:
        self._position = tf.train.get_global_step(), optimizers.batches_taken()
        if self._saves_overflows:
            self._saver = tf.train.Saver(max_to_keep=None)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._left -= self._batches_per_call
        is_whole_update = self._left % self._accumulation_steps == 0
        if self._left <= 0 or (self._stop.is_set() and is_whole_update):
            run_context.request_stop()

    def end(self, session: tf.Session) -> None:
        self.step, taken = map(int, session.run(self._position))
        if self._saves_overflows and model_folder.has_checkpoint(self._output_dir):
            saved = resume.position(self._output_dir, check_data=False)
            if saved.step == self.step and saved.batches < taken:
                prefix = checkpoint_files.resolve(self._output_dir, "output_dir")
                self._saver.save(session, prefix, write_meta_graph=False, write_state=False)


class _ReportHook(tf.train.SessionRunHook):
    """Writes the report after each checkpoint, so that curves can be watched. With evaluations during the
    run these do so, and it writes only the first one."""

    def __init__(self, job: Job) -> None:
        self._job, self._seen = job, checkpoint_list.state(job.flags.output_dir)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        folder = self._job.flags.output_dir
        if self._job.schedule.eval_every and os.path.exists(os.path.join(folder, curves.FILE)):
            return
        state = checkpoint_list.state(folder)
        if state != self._seen:
            self._seen = state
            write_report(self._job)


@contextlib.contextmanager
def _sigterm(is_first: bool) -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process, while the block runs.

    Ranks other than the first only ignore the signal: without them the first could not finish the step that
    it is to save.
    """
    stop = threading.Event()
    with _on_sigterm(lambda number, frame: stop.set() if is_first else None):
        yield stop


class _Stopped(Exception):
    """SIGTERM arrived, and there is nothing to finish first."""


def _stop_at_once(number: int, frame: Any) -> None:
    raise _Stopped()


@contextlib.contextmanager
def _on_sigterm(handler: Callable[[int, Any], None]) -> Iterator[None]:
    # only there can a program handle signals
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
