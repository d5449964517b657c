"""Describes checkpoints, averages them, converts them to and from transformers, adopts fine-tuned ones."""
import os
from typing import Any, Callable, Dict, Optional

from estimator.data.tasks import EARLIER, GENERIC, TASKS, Task
from estimator.finetuning.flags import KIND_DEFAULTS
from estimator.model import heads, kinds
from estimator.tools import tag_outputs
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
    of_texts = (kinds.CLASSES, kinds.MULTI_LABEL)
    if config.task_name and _task_named(config.task_name).kind not in of_texts:
        raise UserError("--task_name: %s is no task of classes, of labels or of a number" % config.task_name)
    labels_of = {name: None if name in GENERIC else task.labels for name, task in TASKS.items()
                 if task.kind in of_texts}
    for note in conversions.from_transformers(config.input_dir, config.output_dir, config.task_name,
                                              config.labels, labels_of):
        print("Note: " + note)
    print("Wrote %s: --init_checkpoint takes it" % config.output_dir)


def adopt(config: AdoptConfig) -> None:
    task = _task_named(config.task_name)
    checkpoint = checkpoint_files.resolve(config.checkpoint, "checkpoint")
    if checkpoint_files.read_shapes(checkpoint).get("output_weights", (0,))[0] == 2:
        task = EARLIER.get((task.name, kinds.CLASSES), task)
    found = _tag_outputs_of(config, task)
    labels = found.labels if found else config.labels or task.labels
    description = descriptions.describe(config, checkpoint, "checkpoint", flags_may_repeat=True,
                                        max_seq_length=config.max_seq_length, task=task.name,
                                        labels=labels, kind=task.kind,
                                        reading=_reading_of(task, config.max_seq_length),
                                        tagging=_tagging_of(task, config.max_seq_length, checkpoint),
                                        labelling=model_folder.Labelling() if (
                                            task.kind == kinds.MULTI_LABEL) else None)
    conversions.adopt(checkpoint, description, config.output_dir, found.outputs if found else ())
    if found and found.unused:
        print("Outputs left out, since they are labels of no character: %s" % ", ".join(found.unused))
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


def _tag_outputs_of(config: AdoptConfig, task: Task) -> Optional[tag_outputs.TagOutputs]:
    """What the outputs of a model of entities mean. Raises UserError where nothing says so."""
    if task.kind != kinds.TAGS:
        if config.label2id:
            raise UserError("--label2id is for tasks of entities; %s has no use for it" % task.name)
        return None
    if not config.label2id or config.labels:
        raise UserError("task %s: give --label2id, and no --labels: the numbers of the outputs say them"
                        % task.name)
    found = tag_outputs.read(config.label2id)
    if task.labels and sorted(found.labels) != sorted(task.labels):
        raise UserError("%s: its labels are %s, but those of %s are %s" % (
            config.label2id, ", ".join(found.labels), task.name, ", ".join(task.labels)))
    return found


def _tagging_of(task: Task, max_seq_length: int, checkpoint: str) -> Optional[model_folder.Tagging]:
    """How a model of the task labels entities: through windows that share as much as is usual."""
    if task.kind != kinds.TAGS:
        return None
    overlap = KIND_DEFAULTS[task.kind]["doc_stride"]
    try:
        check_windows(max_seq_length, overlap, 0, False)
    except ValueError as error:
        raise UserError("--max_seq_length: %s" % error)
    return model_folder.Tagging(overlap, heads.TRANSITIONS in checkpoint_files.read_shapes(checkpoint))


def _task_named(name: str) -> Task:
    if name not in TASKS:
        raise UserError("--task_name must be one of %s, got %s" % (", ".join(TASKS), name))
    return TASKS[name]


_TOOLS: Dict[type, Callable[[Any], None]] = {
    InspectConfig: inspect, AverageConfig: average, ToTransformersConfig: to_transformers,
    FromTransformersConfig: from_transformers, AdoptConfig: adopt}
