"""Describes checkpoints, averages them, converts them to and from transformers, adopts fine-tuned ones."""
import os
from typing import Any, Callable, Dict

from estimator.data.tasks import TASKS
from estimator.tools.flags import (AdoptConfig, AverageConfig, FromTransformersConfig, InspectConfig,
                                   ToTransformersConfig)
from estimator.weights import checkpoint_files, conversions, model_folder
from etl.common.command_line import UserError


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
    conversions.average(found, config.output)
    names = ", ".join(map(os.path.basename, found))
    print("%s: mean of %d checkpoints: %s" % (config.output, len(found), names))


def to_transformers(config: ToTransformersConfig) -> None:
    checkpoint = checkpoint_files.resolve(config.checkpoint, "checkpoint")
    description = model_folder.describe(config, checkpoint, "checkpoint")
    class_name = conversions.to_transformers(checkpoint, description, config.output_dir)
    print("Wrote %s: transformers.%s.from_pretrained takes it" % (config.output_dir, class_name))


def from_transformers(config: FromTransformersConfig) -> None:
    for note in conversions.from_transformers(config.input_dir, config.output_dir):
        print("Note: " + note)
    print("Wrote %s: --init_checkpoint takes it" % config.output_dir)


def adopt(config: AdoptConfig) -> None:
    if config.task_name not in TASKS:
        raise UserError("--task_name must be one of %s, got %s" % (", ".join(TASKS), config.task_name))
    task = TASKS[config.task_name]
    description = model_folder.describe(config, None, max_seq_length=config.max_seq_length, task=task.name,
                                        labels=config.labels or task.labels)
    conversions.adopt(checkpoint_files.resolve(config.checkpoint, "checkpoint"), description,
                      config.output_dir)
    print("Wrote %s. Next: python -m serving.export --checkpoint_dir %s"
          % (config.output_dir, config.output_dir))


_TOOLS: Dict[type, Callable[[Any], None]] = {
    InspectConfig: inspect, AverageConfig: average, ToTransformersConfig: to_transformers,
    FromTransformersConfig: from_transformers, AdoptConfig: adopt}
