"""Fine-tuning: flags and labelled examples → a `job` for `run`; once, or once per seed."""
import dataclasses
import functools
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data import encoded, input_fn, tasks
from estimator.data.input_fn import InputFn
from estimator.data.tasks import DEV, TASKS, TEST, TRAIN, Task
from estimator.finetuning import epochs, scores
from estimator.finetuning.choices import CHOICE_KIND
from estimator.finetuning.classes import CLASSES
from estimator.finetuning.predictions import Part
from estimator.finetuning.flags import CACHE_FOLDER, NO_CHECKPOINT, FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.presets import PRESETS
from estimator.finetuning.spans import SPAN_KIND
from estimator.npu import devices
from estimator.training import failures, model_fn, result_files, resume, run
from estimator.training.jobs import Evaluation, Job, Results, Schedule
from estimator.weights import checkpoint_files, descriptions, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError

KINDS = {"classes": CLASSES, "spans": SPAN_KIND, "choices": CHOICE_KIND}        # by the name in a task
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
    files.require_folder(config.output_dir, "output_dir")
    finds_loop = config.iterations_per_loop is None
    device, config = config.on_device()
    config = config if config.do_train else as_trained(config)
    task = find_task(config)
    kind = KINDS[task.kind]
    config = config.with_defaults_of(task.kind)
    examples = {part: kind.read_examples(config, task, part) for part in wanted_parts(config, task)}
    task = kind.narrowed(task, examples)
    check_device(config, device)
    kind.check_flags(config, task, examples)
    init_checkpoint = find_init_checkpoint(config)
    folder = describe_model(config, task, init_checkpoint, kind)
    _check_segments(folder, task, examples)
    print("Task %s on %s: %s" % (task.name, device, ", ".join(
        "{:,} {} examples".format(len(found), part) for part, found in examples.items())))
    encoding = kind.encoding(config, folder)
    facts, start = run.find_start(
        config, device, folder, encoded.key(examples.get(TRAIN, []), encoding)[:12], init_checkpoint,
        functools.partial(model_fn.check_init_checkpoint, model=folder.config, num_labels=len(task.labels),
                          kind=task.kind))
    cache_dir = cache_dir_of(config)
    parts = {part: Part(part, found, encoded.load_or_make_rows(found, encoding, cache_dir, kind.make_rows))
             for part, found in examples.items()}
    num_units = len(parts[TRAIN].rows.unit_lengths) if config.do_train else 0
    config, schedule = epochs.find_schedule(config, device, num_units, finds_loop)
    setting = Setting(config, task, device, folder, parts, seq_length_of(config, device, folder))
    for part in parts.values():
        kind.tell_rows(setting, part)

    def keep_rows() -> None:
        for part in parts.values():
            encoded.save(part.rows, encoded.cache_path(part.examples, encoding, cache_dir))
    return _job(setting, kind, facts, start, init_checkpoint, schedule, keep_rows)


def _job(setting: Setting, kind: Kind, facts: Dict[str, str], start: resume.Position,
         init_checkpoint: Optional[str], schedule: Schedule, keep_rows: Callable[[], None]) -> Job:
    config, device = setting.config, setting.device

    def batches(taken: int) -> InputFn:
        return input_fn.train_on_rows(setting.parts[TRAIN].rows, config.train_batch_size, config.random_seed,
                                      taken, setting.seq_length, device.world)
    return Job(
        "estimator.finetune", "Fine-tuning: %s" % setting.task.name, config, device, setting.folder, facts,
        start, init_checkpoint, schedule, model_fn=functools.partial(kind.model_fn, setting), batches=batches,
        evaluate=functools.partial(evaluate, setting, kind),
        best_metric="eval_" + (config.best_metric or setting.task.metric), charts=kind.charts,
        next_command="serving.export --checkpoint_dir %s" % config.output_dir
        if kind.is_exported(setting.task) else None,
        before_training=keep_rows, conclude=functools.partial(conclude, setting, kind),
        predict=functools.partial(predict, setting, kind) if config.do_predict else None,
        patience=config.early_stopping)


def as_trained(config: FinetuneConfig) -> FinetuneConfig:
    """The same flags, completed from the model's folder; for evaluation and prediction only."""
    model = _finetuned(config)
    task_name = config.task_name or model.task
    labels = config.labels or (model.labels if task_name in tasks.GENERIC else ())
    known = model.reading._asdict() if model.reading else {
        "doc_stride": resume.flag_of_run(config.output_dir, "doc_stride")}
    return dataclasses.replace(config, task_name=task_name, labels=labels,
                               max_seq_length=config.max_seq_length or model.max_seq_length,
                               **{name: value if getattr(config, name) is None else getattr(config, name)
                                  for name, value in known.items()})


def _finetuned(config: FinetuneConfig) -> ModelFolder:
    """The model in --output_dir. Raises UserError where there is none that can be evaluated."""
    folder, start = config.output_dir, config.init_checkpoint
    described = [os.path.isfile(os.path.join(place, model_folder.DESCRIPTION_FILE))
                 for place in (folder, start)]
    if described == [False, True]:
        advice = ("--do_train, since %s is pretrained and has no classifier"
                  if _is_pretrained(model_folder.read(start)) else "--output_dir %s")
        raise UserError("--output_dir: %s: no model here, and without --do_train --init_checkpoint is not "
                        "read: give %s" % (folder, advice % start))
    model = model_folder.read(folder)
    if _is_pretrained(model):
        raise UserError("--output_dir: %s is pretrained and has no classifier: give --do_train, this folder "
                        "as --init_checkpoint, and another as --output_dir" % folder)
    if (model.task or config.task_name) not in TASKS:
        raise UserError("--output_dir: %s holds a model of the task %s: %s" % (
            folder, model.task, "name it by --task_name, one of those of --list_tasks" if model.task is None
            else "only tasks of --list_tasks can be evaluated"))
    return model


def _is_pretrained(model: ModelFolder) -> bool:
    return model.task is None and not model.labels


def find_task(config: FinetuneConfig) -> Task:
    """The task that the flags name, with their columns and labels; prints the source of a preset."""
    if config.preset:
        print("Preset %s. Published by the authors of the weights: %s"
              % (config.preset, PRESETS[config.preset].published))
    task = TASKS[config.task_name]
    if not config.do_train:                    # a model stays what it was trained as
        model = model_folder.read(config.output_dir)
        task = tasks.EARLIER.get((task.name, model.kind), task)
        if model.reading and model.reading.null_score_diff_threshold is None:
            task = dataclasses.replace(task, may_be_impossible=False)
    if task.name not in tasks.GENERIC:
        return task
    task = tasks.with_columns(task, config.columns_by_role(), config.labels)
    if config.do_train and not (config.labels or config.columns):
        return tasks.with_found_labels(task, config.data_dir)
    return task


def wanted_parts(config: FinetuneConfig, task: Task) -> List[str]:
    """Names of the parts that the flags ask for, of those that the task has."""
    return [part for part in task.parts
            if (part == TRAIN and config.do_train) or (part.startswith(DEV) and config.do_eval)
            or (part.startswith(TEST) and config.do_predict)]


def check_device(config: FinetuneConfig, device: devices.Device) -> None:
    """Raises UserError for flags that do not fit the device."""
    if config.early_stopping and device.world.size > 1:
        raise UserError("--early_stopping works on one device, not on %d" % device.world.size)
    if config.pad_to_max_length is False and not device.on_host:
        raise UserError("--pad_to_max_length must not be false on the NPU: it needs static lengths")


def _check_segments(folder: ModelFolder, task: Task, examples: Dict[str, List[Any]]) -> None:
    """Raises UserError for pairs if the model has only one segment type."""
    if folder.config.type_vocab_size < 2 and (task.kind != model_folder.CLASSES or any(
            example.text_b is not None for found in examples.values() for example in found)):
        raise UserError("type_vocab_size is %d in the model's config: it takes single texts, and the "
                        "examples are pairs" % folder.config.type_vocab_size)


def seq_length_of(config: FinetuneConfig, device: devices.Device, folder: ModelFolder) -> Optional[int]:
    """The length to which all batches are padded; None: each to its longest row."""
    pads = config.pad_to_max_length
    return folder.max_seq_length if pads or (pads is None and not device.on_host) else None


def find_init_checkpoint(config: FinetuneConfig) -> Optional[str]:
    """The prefix of --init_checkpoint; None for random values, or without training."""
    if not config.do_train or config.init_checkpoint == NO_CHECKPOINT:
        return None
    if not (os.path.exists(config.init_checkpoint) or os.path.exists(config.init_checkpoint + ".index")):
        raise UserError("--init_checkpoint: %s: no such file or folder: run python -m estimator.pretrain "
                        "first, give a checkpoint, or %s to start from random values"
                        % (config.init_checkpoint, NO_CHECKPOINT))
    return checkpoint_files.resolve(config.init_checkpoint)


def describe_model(config: FinetuneConfig, task: Task, init_checkpoint: Optional[str],
                   kind: Kind) -> ModelFolder:
    """The files to be written beside the checkpoints or, without training, those already there."""
    checkpoint = init_checkpoint if config.do_train else os.path.join(config.output_dir,
                                                                      model_folder.STATE_FILE)
    return descriptions.describe(config,
                                 checkpoint,
                                 flags_may_repeat=True,
                                 max_seq_length=config.max_seq_length,
                                 task=task.name,
                                 **kind.describe(config, task))


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
