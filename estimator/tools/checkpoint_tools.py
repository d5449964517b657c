"""Describes checkpoints, averages them, converts them to and from transformers, adopts fine-tuned ones."""
import os
from typing import Any, Callable, Dict, Optional

from estimator.data.tasks import EARLIER, GENERIC, TASKS, Task
from estimator.finetuning.flags import KIND_DEFAULTS
from estimator.model import kinds
from estimator.tools.flags import (AdoptConfig, AverageConfig, FromTransformersConfig, InspectConfig,
                                   ToTransformersConfig)
from estimator.weights import checkpoint_files, conversions, descriptions, model_folder
from etl.common.command_line import UserError
from etl.text.windows import check_windows


def use(config: Any) -> None:
    """Runs the tool whose flags these are."""
    _TOOLS[type(config)](config)


def inspect(config: InspectConfig) -> None:
    print(checkpoint_files.describe(checkpoint_files.resolve(config.checkpoint, "checkpoint")))


def average(config: AverageConfig) -> None:
    if config.last is None:
        found = [checkpoint_files.resolve(checkpoint, "checkpoint") for checkpoint in config.checkpoint]
    elif len(config.checkpoint) == 1:
        found = checkpoint_files.newest(config.checkpoint[0], config.last)
    else:
        raise UserError("--last takes one folder as --checkpoint, got %d" % len(config.checkpoint))
    first = model_folder.beside(found[0])
    for other in found[1:]:
        if first:
            descriptions.require_vocabulary(first.tokenizer, "--checkpoint: %s" % found[0], other)
    conversions.average(found, config.output)
    names = ", ".join(map(os.path.basename, found))
    print("%s: mean of %d checkpoints: %s" % (config.output, len(found), names))


def to_transformers(config: ToTransformersConfig) -> None:
    checkpoint = checkpoint_files.resolve(config.checkpoint, "checkpoint")
    description = descriptions.describe(config, checkpoint, "checkpoint")
    class_name = conversions.to_transformers(checkpoint, description, config.output_dir)
    print("Wrote %s: transformers.%s.from_pretrained takes it" % (config.output_dir, class_name))


def from_transformers(config: FromTransformersConfig) -> None:
    if config.task_name and _task_named(config.task_name).kind != kinds.CLASSES:
        raise UserError("--task_name: %s is no task of classes or of a number" % config.task_name)
    labels_of = {name: None if name in GENERIC else task.labels for name, task in TASKS.items()
                 if task.kind == kinds.CLASSES}
    for note in conversions.from_transformers(config.input_dir, config.output_dir, config.task_name,
                                              config.labels, labels_of):
        print("Note: " + note)
    print("Wrote %s: --init_checkpoint takes it" % config.output_dir)


def adopt(config: AdoptConfig) -> None:
    task = _task_named(config.task_name)
    checkpoint = checkpoint_files.resolve(config.checkpoint, "checkpoint")
    if checkpoint_files.read_shapes(checkpoint).get("output_weights", (0,))[0] == 2:
        task = EARLIER.get((task.name, kinds.CLASSES), task)
    description = descriptions.describe(config, checkpoint, "checkpoint", flags_may_repeat=True,
                                        max_seq_length=config.max_seq_length, task=task.name,
                                        labels=config.labels or task.labels, kind=task.kind,
                                        reading=_reading_of(task, config.max_seq_length))
    conversions.adopt(checkpoint, description, config.output_dir)
    print("Wrote %s. Next: python -m serving.export --checkpoint_dir %s"
          % (config.output_dir, config.output_dir))


def _reading_of(task: Task, max_seq_length: int) -> Optional[model_folder.Reading]:
    """How a model of the task reads passages, which the older tools did not write down: as is usual."""
    if task.kind != kinds.SPANS:
        return None
    usual = KIND_DEFAULTS[task.kind]
    try:
        check_windows(max_seq_length, usual["doc_stride"], usual["max_query_length"], True)
    except ValueError as error:
        raise UserError("--max_seq_length: %s" % error)
    return model_folder.Reading(usual["doc_stride"], usual["max_query_length"], usual["max_answer_length"],
                                0.0 if task.may_be_impossible else None)


def _task_named(name: str) -> Task:
    if name not in TASKS:
        raise UserError("--task_name must be one of %s, got %s" % (", ".join(TASKS), name))
    return TASKS[name]


_TOOLS: Dict[type, Callable[[Any], None]] = {
    InspectConfig: inspect, AverageConfig: average, ToTransformersConfig: to_transformers,
    FromTransformersConfig: from_transformers, AdoptConfig: adopt}
