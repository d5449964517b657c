"""One training, whatever the model learns: from where the folder stands to the last step, with evaluations in between.

The training goes in parts, each from one evaluation to the next. A part begins with the batch and the dropout that would
have come next anyway, so that parts, like an interruption, change nothing.
"""
import contextlib
import os
import re
import shutil
import signal
import threading
import time
from typing import Any, Callable, ContextManager, Dict, Iterator, Mapping, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from estimator import best_checkpoint, checkpoint_files, checkpoint_list, failures, metrics, model_folder, npu, resume
from estimator.input_fn import InputFn
from estimator.model_folder import ModelFolder
from estimator.records import PretrainingData
from estimator.training_flags import TrainingFlags
from etl import files
from etl.command_line import UserError
from etl.progress import clock

Results = Dict[str, Any]

LOCK_FILE = ".lock"
PATIENCE_SECONDS = 3600                        # of the other ranks while rank 0 saves and evaluates

# What TensorFlow leaves of a file that it was writing: a list, a graph, the parts of a checkpoint, their folder.
_HALF_WRITTEN_FILE = re.compile(r"(checkpoint|graph\.pbtxt|model\.ckpt-\d+\.meta)\.tmp[0-9a-f]{32}"
                                r"|model\.ckpt-\d+\.(index|data-\d{5}-of-\d{5})\.tempstate\d+")
_HALF_WRITTEN_FOLDER = re.compile(r"model\.ckpt-\d+_temp_[0-9a-f]{32}")


class Training(NamedTuple):
    """What a command wants trained, and how it is evaluated."""
    command: str                               # such as "estimator.pretrain"
    flags: TrainingFlags
    facts: Mapping[str, str]                   # see resume.check_training
    folder: ModelFolder                        # what stands beside the checkpoints
    device: npu.Device
    estimator: Any
    batches: Callable[[int], InputFn]          # from the number of batches done to those that come next
    batch_size_flag: str                       # with its value, for the message when memory runs out
    num_train_steps: int
    evaluate: Callable[[], Results]            # of the newest checkpoint; writes the results and says them
    eval_every: Optional[int]                  # steps between evaluations; None: at the end alone
    best_metric: str
    patience: Optional[int] = None             # evaluations without a better one after which the training ends
    data: Optional[PretrainingData] = None     # the records that are read, to name the one that is damaged


def locked(output_dir: str) -> ContextManager[None]:
    """Keeps a second training out of the folder while the block runs. Raises UserError when there is one already."""
    return files.lock(os.path.join(output_dir, LOCK_FILE), "--output_dir: another training is at work in %s" % output_dir)


def train(training: Training, start_step: int) -> bool:
    """Trains from `start_step` to the last step, and evaluates every `eval_every` steps but not after the last one.

    Returns:
      Whether it came to the end: False after SIGTERM, when the newest checkpoint is of the step that was reached.
    """
    flags, last, world = training.flags, training.num_train_steps, training.device.world
    if start_step >= last:
        print("Nothing to train: %s is at step %d of %d" % (flags.output_dir, start_step, last))
        return True
    if world.is_first and resume.latest_step(flags.output_dir, check_data=False) != start_step:
        raise UserError("--output_dir: another training went on in %s meanwhile: run the command again" % flags.output_dir)
    if world.is_first:
        remove_half_written(flags.output_dir)
        for note in checkpoint_list.take_over(flags.output_dir):
            print(note)
        best_checkpoint.tidy(flags.output_dir)
        model_folder.write(flags.output_dir, training.folder)
        resume.write_run(flags.output_dir, training.command, flags, training.device.name, training.facts)
    else:
        _wait("take over the list of checkpoints", lambda: checkpoint_list.stays_here(flags.output_dir) or None)
    if start_step:
        print("Going on from step %d of %d" % (start_step, last))
    begin, step = time.time(), start_step
    with _sigterm(world.is_first) as stop, _clean(flags.output_dir, world.is_first), \
            checkpoint_files.only_the_hook_removes(), \
            failures.explained(training.batch_size_flag, training.data, flags.output_dir):
        cut_off = training.eval_every and 0 < step < last and step % training.eval_every == 0    # perhaps before evaluation
        if cut_off and world.is_first and not evaluate(training):
            stop.set()
        while step < last and not (stop.is_set() or _out_of_patience(training, step)):
            end = min(last, (step // training.eval_every + 1) * training.eval_every) if training.eval_every else last
            training.estimator.train(training.batches(step * flags.gradient_accumulation_steps), max_steps=end,
                                     hooks=[_StopHook(stop)])
            if not world.is_first:
                step = last if end == last else _wait_for_rank_0(flags.output_dir, end)
                continue
            step = resume.latest_step(flags.output_dir, check_data=False)
            if end < last and not stop.is_set() and not evaluate(training):
                stop.set()
    if stop.is_set() and step < last:
        print("Stopped by SIGTERM after step %d of %d, which is saved; the same command goes on from there" % (step, last))
        return False
    if step < last:
        print("Stopped early after step %d of %d: no better %s in %d evaluations"
              % (step, last, training.best_metric, training.patience))
    print("Trained %d steps in %s; checkpoints in %s" % (step - start_step, clock(time.time() - begin), flags.output_dir))
    return True


def evaluate(training: Training) -> bool:
    """Evaluates the newest checkpoint and keeps it if it is the best.

    Returns:
      Whether it came to the end: False after SIGTERM, when nothing is written.
    """
    output_dir = training.flags.output_dir
    best_checkpoint.require_own(output_dir)
    try:
        with _on_sigterm(_stop_at_once):
            results = training.evaluate()
    except _Stopped:
        print("Stopped by SIGTERM while evaluating; the same command goes on from there")
        return False
    checkpoint = checkpoint_files.resolve(output_dir, "output_dir")
    if best_checkpoint.keep_if_best(output_dir, checkpoint, training.folder, results, training.best_metric):
        print("Best %s so far: kept in %s" % (training.best_metric, os.path.join(output_dir, best_checkpoint.FOLDER)))
    return True


def _out_of_patience(training: Training, step: int) -> bool:
    """Whether the best evaluation is `patience` ones ago; from the files alone, so that a resumed run knows it, too."""
    if not (training.patience and training.eval_every):
        return False
    best_step = best_checkpoint.step_of_best(training.flags.output_dir, training.best_metric)
    return best_step is not None and step - best_step >= training.patience * training.eval_every


def remove_half_written(output_dir: str) -> None:
    """Removes what a process that was killed, or a full disk, left of a file it was writing; needs the folder's lock.

    Nothing but files and folders of the very names that we and TensorFlow give; a link of such a name stays, as all else does.
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


def _wait_for_rank_0(output_dir: str, step: int) -> int:
    """Waits until rank 0 has evaluated a checkpoint of `step` or later, and says of which."""
    results = os.path.join(output_dir, metrics.JSON_FILE)

    def evaluated() -> Optional[int]:
        found = int(files.read_json(results)["global_step"]) if os.path.exists(results) else -1
        return found if found >= step else None
    return _wait("evaluate step %d" % step, evaluated)


def _wait(what: str, look: Callable[[], Optional[int]]) -> int:
    """What `look` returns, once that is not None."""
    deadline = time.time() + PATIENCE_SECONDS
    while time.time() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.5)
    raise UserError("rank 0 did not %s within %d minutes" % (what, PATIENCE_SECONDS // 60))


class _StopHook(tf.train.SessionRunHook):
    """Ends the training after the step during which the event was set; the Estimator saves a checkpoint then."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def after_run(self, run_context: Any, run_values: Any) -> None:
        if self._stop.is_set():
            run_context.request_stop()


@contextlib.contextmanager
def _sigterm(is_first: bool) -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process, while the block runs.

    Other ranks than the first only ignore the signal: without them the first could not end the step that it is to save.
    """
    stop = threading.Event()
    with _on_sigterm(lambda number, frame: stop.set() if is_first else None):
        yield stop


class _Stopped(Exception):
    """SIGTERM came, and nothing is worth finishing first."""


def _stop_at_once(number: int, frame: Any) -> None:
    raise _Stopped()


@contextlib.contextmanager
def _on_sigterm(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():   # only there may a program listen to signals
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
