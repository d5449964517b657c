"""The steps of a training command, in order: find the start, train in stretches, evaluate the best
checkpoint, report.

What is trained, and on which data, is a `Job`, created by pretraining and each kind of fine-tuning.
"""
import os
from typing import Any, Callable, Dict, Optional, Tuple

import tensorflow.compat.v1 as tf

from estimator.npu import devices
from estimator.training import best_checkpoint, curves, result_files, resume, trainer
from estimator.training.flags import TrainingFlags
from estimator.training.jobs import Job, Results
from estimator.training.resume import Position
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError


def find_start(flags: TrainingFlags, device: devices.Device, folder: ModelFolder, training_data: str,
               init_checkpoint: Optional[str], check_init_checkpoint: Callable[[str], str]
               ) -> Tuple[Dict[str, str], Position]:
    """Compares a command with its output folder, and finds where to resume. Writes nothing.

    Args:
      flags, device, folder, init_checkpoint: see `jobs.Job`.
      training_data: a fingerprint of the data.
      check_init_checkpoint: reports what a new run would load from it, or raises UserError.

    Returns:
      The facts and the start of `jobs.Job`.

    Raises UserError if the folder has another model or another training run, or nothing to evaluate.
    """
    resume.check_model(flags.output_dir, folder)
    facts = {"training data": "of SHA-256 " + training_data,
             "initial values": resume.checkpoint_fact(init_checkpoint),
             "number of devices": str(device.world.size)}
    if flags.do_train:
        for change in resume.check_training(flags.output_dir, flags, facts, flags.allow_changes):
            print("Changed since the previous run: " + change)
    start = resume.position(flags.output_dir, flags.gradient_accumulation_steps)
    best_checkpoint.find(flags.output_dir)     # refuses a damaged one before anything is written
    if not (flags.do_train or model_folder.has_checkpoint(flags.output_dir)):
        raise UserError("--output_dir: %s has no checkpoint: train first" % flags.output_dir)
    if init_checkpoint and not start.step:
        print(check_init_checkpoint(init_checkpoint))
    return facts, start


def make_estimator(job: Job) -> tf.estimator.Estimator:
    """The Estimator of the job's model, on its device."""
    if job.flags.do_train:
        job.batches(0)  # refuses data that does not fill a batch before anything is written
    return job.device.make_estimator(job.model_fn(job.training_config()), job.flags.output_dir,
                                     job.flags.run_options())


def run(job: Job) -> Optional[Results]:
    """Trains, evaluates, reports and predicts, according to the flags.

    Returns:
      The results of the best checkpoint, if the job concludes with that one; None on ranks other than the
      first, and after SIGTERM.
    """
    flags, estimator = job.flags, make_estimator(job)
    if not job.device.world.is_first:
        if flags.do_train:
            trainer.train(job, estimator)
        return None
    with trainer.locked(flags.output_dir):
        job.before_training()
        if flags.do_train and not trainer.train(job, estimator):
            return None
        wants_newest = flags.do_train or not job.conclude or not _best(job)
        if flags.do_eval and wants_newest and not trainer.evaluate(job, estimator):
            return None
        results = _conclude(job, estimator) if flags.do_eval and job.conclude else None
        if not flags.do_eval:
            trainer.write_report(job)
        if job.predict:
            job.predict(estimator, best_checkpoint.choose(flags.output_dir, "output_dir"))
    print("Wrote %s" % os.path.join(flags.output_dir, curves.FILE))
    print("Next: python -m %s" % job.next_command)
    return results


def _best(job: Job) -> Optional[str]:
    """The prefix of the best checkpoint, which `find_start` has checked."""
    return best_checkpoint.find(job.flags.output_dir, check_data=False)


def _conclude(job: Job, estimator: Any) -> Results:
    """Evaluates the best checkpoint, whose metrics and report are the final ones."""
    found = job.conclude(estimator, _best(job))
    result_files.write_results(job.flags.output_dir, found.results)
    trainer.write_report(job, found.sections, "best")
    return found.results
