"""Fine-tuning: flags and labelled examples → a `job` for `run`; once, or once per seed."""
import dataclasses
import functools
import os
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data import input_fn, rows
from estimator.data.input_fn import InputFn
from estimator.data.tasks import DEV, TEST, TRAIN
from estimator.finetuning import epochs, scores
from estimator.finetuning.predictions import Part
from estimator.finetuning.flags import CACHE_FOLDER, FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.preparation import prepare
from estimator.training import failures, model_fn, result_files, resume, run
from estimator.training.jobs import Evaluation, Job, Results, Schedule
from etl.common import files

SEEDS_FILE = "seeds_results.txt"


def finetune(config: FinetuneConfig) -> Optional[Results]:
    """One run; with --seeds one for each, then mean and standard deviation of each metric.

    Returns:
      The results of the best checkpoint of the only or the last run; None without evaluation, on ranks other
      than the first, or after SIGTERM.
    """
    if not config.seeds:
        return run.run(make_job(config))
    cache_dir = cache_dir_of(config)
    found: Dict[int, Results] = {}
    for seed in config.seed_list():
        print("Seed %d" % seed)
        folder = os.path.join(config.output_dir, "seed-%d" % seed)
        results = run.run(make_job(dataclasses.replace(config, seeds=None, random_seed=seed,
                                                       cache_dir=cache_dir, output_dir=folder)))
        if results is None:                    # on another rank, or stopped by a signal
            return None
        found[seed] = results
    names = [name for name in next(iter(found.values()))
             if all(name in results for results in found.values())]
    text = "".join("%s = %s\n" % (name, scores.mean_and_deviation(
        [results[name] for results in found.values()])) for name in sorted(names))
    path = os.path.join(config.output_dir, SEEDS_FILE)
    files.write_text(path, text)
    print("Means and standard deviations over seeds %s:\n%sWrote %s" % (config.seeds, text, path))
    return results


def make_job(config: FinetuneConfig) -> Job:
    """Reads and encodes the examples and checks checkpoint and output folder. Writes nothing."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    found = prepare(config)
    kind, folder, rows_config = found.kind, found.folder, found.rows_config
    cache_dir = cache_dir_of(found.config)
    facts, start = run.find_start(
        found.config, found.device, folder, rows.key(found.examples.get(TRAIN, []), rows_config)[:12],
        found.init_checkpoint, functools.partial(model_fn.check_init_checkpoint, model=folder.config,
                                                 num_labels=len(found.task.labels), kind=found.task.kind,
                                                 crf=bool(found.config.crf)))
    parts = {name: Part(name, examples, rows.load_or_make_rows(examples, rows_config, cache_dir,
                                                               kind.make_rows))
             for name, examples in found.examples.items()}
    num_units = len(parts[TRAIN].rows.unit_lengths) if config.do_train else 0
    config, schedule = epochs.find_schedule(found.config, found.device, num_units, found.finds_loop)
    setting = Setting(config, found.task, found.device, folder, parts, found.seq_length)
    for part in parts.values():
        kind.tell_rows(setting, part)

    def keep_rows() -> None:
        for part in parts.values():
            rows.save(part.rows, rows.cache_path(part.examples, rows_config, cache_dir))
    return _job(setting, kind, facts, start, found.init_checkpoint, schedule, keep_rows)


def _job(setting: Setting, kind: Kind, facts: Dict[str, str], start: resume.Position,
         init_checkpoint: Optional[str], schedule: Schedule, keep_rows: Callable[[], None]) -> Job:
    config, device = setting.config, setting.device

    def batches(taken: int) -> InputFn:
        return input_fn.train_on_rows(setting.parts[TRAIN].rows, config.train_batch_size, config.random_seed,
                                      taken, setting.seq_length, device.world)
    return Job(
        command="estimator.finetune", title="Fine-tuning: %s" % setting.task.name, flags=config,
        device=device, folder=setting.folder, facts=facts, start=start, init_checkpoint=init_checkpoint,
        schedule=schedule, model_fn=functools.partial(kind.model_fn, setting), batches=batches,
        evaluate=functools.partial(evaluate, setting, kind),
        best_metric="eval_" + (config.best_metric or setting.task.metric), charts=kind.charts,
        next_command="serving.export --checkpoint_dir %s" % config.output_dir,
        before_training=keep_rows, conclude=functools.partial(conclude, setting, kind),
        predict=functools.partial(predict, setting, kind) if config.do_predict else None,
        patience=config.early_stopping)


def cache_dir_of(config: FinetuneConfig) -> str:
    """The folder of encoded examples."""
    return config.cache_dir or os.path.join(config.output_dir, CACHE_FOLDER)


def evaluate(setting: Setting, kind: Kind, estimator: Any, checkpoint: str) -> Evaluation:
    """Evaluates a checkpoint on all dev examples, and adds its metrics to the curves."""
    results, outputs = evaluate_part(setting, kind, estimator, DEV, checkpoint)
    result_files.write_curve_points(os.path.join(setting.config.output_dir, "eval"), results["global_step"],
                                    dict(results, loss=results["eval_loss"]))
    print("Step %d, %s" % (results["global_step"], kind.results_line(setting.task, results)))
    return Evaluation(results, kind.sections(setting, setting.parts[DEV], outputs))


def conclude(setting: Setting, kind: Kind, estimator: Any, checkpoint: str) -> Evaluation:
    """Evaluates the best checkpoint on all dev parts, and writes its predictions."""
    results: Results = {}
    sections: Sequence[Any] = ()
    paths = [os.path.join(setting.config.output_dir, result_files.TEXT_FILE)]
    for name in [part for part in setting.parts if part.startswith(DEV)]:
        found, outputs = evaluate_part(setting, kind, estimator, name, checkpoint)
        results.update(found)
        paths += kind.write_predictions(setting.config.output_dir, setting, setting.parts[name], outputs)
        if name == DEV:
            sections = kind.sections(setting, setting.parts[DEV], outputs)
    print("Best checkpoint, step %d, %s" % (results["global_step"], kind.results_line(setting.task, results)))
    print("Wrote %s" % ", ".join(paths))
    return Evaluation(results, sections)


def evaluate_part(setting: Setting, kind: Kind, estimator: Any, name: str,
                  checkpoint: str) -> Tuple[Results, np.ndarray]:
    """The metrics of a dev part, and the outputs from which they are computed."""
    part, batch_size = setting.parts[name], setting.config.eval_batch_size
    with failures.explained("--eval_batch_size %d" % batch_size):
        outputs = kind.run_model(setting, estimator, part, batch_size, checkpoint)
    step = int(tf.train.load_variable(checkpoint, "global_step"))
    return dict(kind.score(setting, part, outputs), global_step=step), outputs


def predict(setting: Setting, kind: Kind, estimator: Any, checkpoint: str) -> None:
    """Writes the predictions for all test examples, in the file's order."""
    batch_size = setting.config.predict_batch_size
    for part in [part for name, part in setting.parts.items() if name.startswith(TEST)]:
        with failures.explained("--predict_batch_size %d" % batch_size):
            outputs = kind.run_model(setting, estimator, part, batch_size, checkpoint)
        paths = kind.write_predictions(setting.config.output_dir, setting, part, outputs)
        if part.has_labels:
            metric = setting.task.metric
            number = kind.score(setting, part._replace(name=DEV), outputs)["eval_" + metric]
            print("Test: %s %.4f of %d examples" % (metric, number, len(part.examples)))
        print("Wrote %s" % ", ".join(paths))
