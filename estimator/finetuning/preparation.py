"""Flags → device, task, examples and model of a fine-tuning run, checked against each other, before its
output folder is looked at."""
import dataclasses
import os
from typing import Any, Dict, List, NamedTuple, Optional

from estimator.data import tasks
from estimator.data.rows import RowsConfig
from estimator.data.tasks import DEV, TASKS, TEST, TRAIN, Task
from estimator.finetuning.choices import CHOICE_KIND
from estimator.finetuning.classes import CLASS_KIND
from estimator.finetuning.flags import NO_CHECKPOINT, FinetuneConfig
from estimator.finetuning.kind import Kind
from estimator.finetuning.multi_label import MULTI_LABEL_KIND
from estimator.finetuning.presets import PRESETS
from estimator.finetuning.spans import SPAN_KIND
from estimator.finetuning.tags import TAG_KIND
from estimator.model import kinds
from estimator.npu import devices
from estimator.training import resume
from estimator.weights import checkpoint_files, descriptions, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError

KINDS_BY_NAME = {kinds.CLASSES: CLASS_KIND, kinds.SPANS: SPAN_KIND, kinds.CHOICES: CHOICE_KIND,
                 kinds.TAGS: TAG_KIND, kinds.MULTI_LABEL: MULTI_LABEL_KIND}


class Prepared(NamedTuple):
    """What a run needs that follows from its flags and its data.

    Attributes:
      config: the flags, but for the loops that fit the epochs.
      finds_loop: whether these are still to be found.
      examples: by the part's name, for the parts that the flags ask for.
      init_checkpoint: its prefix; None for random values, or without training.
      folder: the files to be written beside the checkpoints or, without training, those already there.
      rows_config: how examples become rows.
      seq_length: the length to which all batches are padded; None: each to its longest row.
    """
    config: FinetuneConfig
    finds_loop: bool
    device: devices.Device
    task: Task
    kind: Kind
    examples: Dict[str, List[Any]]
    init_checkpoint: Optional[str]
    folder: ModelFolder
    rows_config: RowsConfig
    seq_length: Optional[int]


def prepare(config: FinetuneConfig) -> Prepared:
    """Raises UserError for flags, data and a model that do not fit each other."""
    files.require_folder(config.output_dir, "output_dir")
    finds_loop = config.iterations_per_loop is None
    device, config = config.on_device()
    model = None if config.do_train else find_trained(config)
    config = as_trained(config, model) if model else config
    task = find_task(config, model)
    kind = KINDS_BY_NAME[task.kind]
    config = config.with_defaults_of(task.kind)
    examples = {part: kind.read_examples(config, task, part) for part in _wanted_parts(config, task)}
    task = kind.narrowed(task, examples)
    _check_device(config, device)
    kind.check_flags(config, task, examples)
    init_checkpoint = find_init_checkpoint(config)
    folder = describe_model(config, task, init_checkpoint, kind)
    _check_segments(folder, task, examples)
    print("Task %s on %s: %s" % (task.name, device, ", ".join(
        "{:,} {} examples".format(len(found), part) for part, found in examples.items())))
    return Prepared(
        config=config, finds_loop=finds_loop, device=device, task=task, kind=kind, examples=examples,
        init_checkpoint=init_checkpoint, folder=folder, rows_config=kind.rows_config(config, folder),
        seq_length=_seq_length_of(config, device, folder))


def as_trained(config: FinetuneConfig, model: ModelFolder) -> FinetuneConfig:
    """The same flags, completed from the model that is there; for evaluation and prediction only."""
    task_name = config.task_name or model.task
    labels = config.labels or (model.labels if task_name in tasks.GENERIC else ())
    how = model.reading or model.tagging or model.labelling
    known = how._asdict() if how else {"doc_stride": resume.flag_of_run(config.output_dir, "doc_stride")}
    return dataclasses.replace(config, task_name=task_name, labels=labels,
                               max_seq_length=config.max_seq_length or model.max_seq_length,
                               **{name: value if getattr(config, name) is None else getattr(config, name)
                                  for name, value in known.items()})


def find_trained(config: FinetuneConfig) -> ModelFolder:
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


def find_task(config: FinetuneConfig, model: Optional[ModelFolder]) -> Task:
    """The task that the flags name, with their columns and labels, or what the model was trained on; prints
    the source of a preset."""
    if config.preset:
        print("Preset %s. Published by the authors of the weights: %s"
              % (config.preset, PRESETS[config.preset].published))
    task = TASKS[config.task_name]
    if model:                                  # it stays what it was trained as
        task = tasks.EARLIER.get((task.name, model.kind), task)
        if model.tagging:
            task = dataclasses.replace(task, labels=model.labels)
        if model.reading and model.reading.null_score_diff_threshold is None:
            task = dataclasses.replace(task, may_be_impossible=False)
    if task.name not in tasks.GENERIC:
        return task
    task = tasks.with_columns(task, config.columns_by_role(), config.labels)
    if config.do_train and task.kind == kinds.CLASSES and not (config.labels or config.columns):
        return tasks.with_found_labels(task, config.data_dir)
    return task


def _wanted_parts(config: FinetuneConfig, task: Task) -> List[str]:
    """Names of the parts that the flags ask for, of those that the task has."""
    return [part for part in task.parts
            if (part == TRAIN and config.do_train) or (part.startswith(DEV) and config.do_eval)
            or (part.startswith(TEST) and config.do_predict)]


def _check_device(config: FinetuneConfig, device: devices.Device) -> None:
    """Raises UserError for flags that do not fit the device."""
    if config.early_stopping and device.world.size > 1:
        raise UserError("--early_stopping works on one device, not on %d" % device.world.size)
    if config.pad_to_max_length is False and not device.on_host:
        raise UserError("--pad_to_max_length must not be false on the NPU: it needs static lengths")


def _check_segments(folder: ModelFolder, task: Task, examples: Dict[str, List[Any]]) -> None:
    """Raises UserError for pairs if the model has only one segment type."""
    has_pairs = any(example.text_b is not None for found in examples.values() for example in found) if (
        task.kind == kinds.CLASSES) else task.kind in (kinds.SPANS, kinds.CHOICES)
    if folder.config.type_vocab_size < 2 and has_pairs:
        raise UserError("type_vocab_size is %d in the model's config: it takes single texts, and the "
                        "examples are pairs" % folder.config.type_vocab_size)


def _seq_length_of(config: FinetuneConfig, device: devices.Device, folder: ModelFolder) -> Optional[int]:
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
                                 **{"reading": None, "tagging": None, "labelling": None,
                                    **kind.describe(config, task)})
