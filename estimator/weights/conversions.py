"""Makes checkpoints from others: averages; conversion to and from Hugging Face's transformers; a model folder
for one fine-tuned with the older tools."""
import os
import tempfile
from dataclasses import replace
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.model import heads
from estimator.model import kinds
from estimator.weights import checkpoint_files, model_folder, transformers_layout
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError

CONVERTED_NAME = "model.ckpt"
_OF_TAGS = ("output_weights", "output_bias", heads.TRANSITIONS)


def average(checkpoints: Sequence[str], output: str) -> None:
    """Writes the mean of several checkpoints of one model under the prefix `output`, without slots and
    global_step.

    Raises UserError if they differ in a name or a shape, one is damaged, or there already is a checkpoint at
    `output`.
    """
    folder, name = os.path.split(os.path.abspath(output))
    if os.path.isdir(output) or os.path.exists(os.path.join(folder, name + ".index")):
        raise UserError("--output: %s is there already: name a prefix, such as "
                        "averaged/model.ckpt, that is free" % output)
    for checkpoint in checkpoints:
        checkpoint_files.require_float32(checkpoint)
    shapes = [{name: shape for name, shape in checkpoint_files.read_shapes(checkpoint).items()
               if checkpoint_files.is_weight(name)} for checkpoint in checkpoints]
    for checkpoint, other in zip(checkpoints[1:], shapes[1:]):
        odd = sorted({name for name, _ in set(shapes[0].items()) ^ set(other.items())})
        if odd:
            raise UserError("%s and %s are not of one model: %s"
                            % (checkpoints[0], checkpoint, checkpoint_files.listed(odd)))
    names = sorted(shapes[0])
    for checkpoint in checkpoints:
        checkpoint_files.check_data(checkpoint, names)
    readers = [checkpoint_files.open_reader(checkpoint) for checkpoint in checkpoints]
    means = {name: np.mean([reader.get_tensor(name) for reader in readers], axis=0, dtype=np.float64)
             for name in names}
    checkpoint_files.write(output, means, "output")


def to_transformers(checkpoint: str, description: ModelFolder, output_dir: str) -> str:
    """Writes a checkpoint in transformers' format and returns the name of its class there.

    A classifier if the checkpoint has one, otherwise a pretrained model with both heads.

    Raises UserError, before `output_dir` appears, for a model without a counterpart, a checkpoint that lacks
    a variable or is damaged, and a folder that is there already.
    """
    config = description.config
    transformers_layout.require_counterpart(config)
    with tf.Graph().as_default():
        heads.declare_variables(config,
                                checkpoint_files.read_shapes(checkpoint).get("output_weights", (None,))[0])
        names = list(checkpoint_files.plan_loading(checkpoint, config).assignment_map)
    checkpoint_files.check_data(checkpoint, names)
    reader = checkpoint_files.open_reader(checkpoint)
    with files.atomic_folder(output_dir, "output_dir") as folder:
        return transformers_layout.write(folder, description,
                                         {name: reader.get_tensor(name) for name in names})


def from_transformers(input_dir: str, output_dir: str, task: Optional[str] = None,
                      labels: Sequence[str] = (),
                      labels_of: Mapping[str, Optional[Sequence[str]]] = {}) -> List[str]:
    """Writes a transformers model as a model folder and returns notes for the user, one line each.

    Args:
      task: that its classifier was trained for; None: what it says, where that is a key of `labels_of`.
      labels: by class index, where they are not those that it says.
      labels_of: labels of each task, in its order; () of a regression, None where any will do.

    Raises UserError, before `output_dir` appears, for a model that has no place here, incomplete or damaged
    weights, a task that does not fit the classifier, and a folder that is there already.
    """
    weights = transformers_layout.read_weights(input_dir)
    with tempfile.TemporaryDirectory() as scratch:
        found = transformers_layout.read_description(input_dir, weights, scratch)
        with tf.Graph().as_default():
            heads.declare_variables(found.model.config, found.num_labels)
            shapes = {variable.op.name: tuple(variable.shape.as_list())
                      for variable in tf.trainable_variables()}
        try:
            values = transformers_layout.to_ours(found.model.config, weights, shapes, found.may_lack)
        except UserError as error:
            raise UserError("%s: %s" % (input_dir, error))
        model, order = _as_of_task(found, task, labels, labels_of)
        for name in ("output_weights", "output_bias"):
            if name in values:
                values[name] = values[name][order]
        _write_model(values, model, output_dir)
    new = sorted(set(shapes) - set(values))
    return found.notes + ["it has no %s: a training starts them anew, pretraining with --new_heads"
                          % ", ".join(new)] * bool(new)


def _as_of_task(found: transformers_layout.Description, task: Optional[str], labels: Sequence[str],
                labels_of: Mapping[str, Optional[Sequence[str]]]) -> Tuple[ModelFolder, List[int]]:
    """The model as one of its task, and the order in which its classes come there."""
    if found.num_labels is None:
        if task or labels:
            raise UserError("--%s: the model has no classifier" % ("task_name" if task else "labels"))
        return found.model, []
    if task and (task == kinds.MULTI_LABEL) != (found.model.kind == kinds.MULTI_LABEL):
        raise UserError("--task_name: %s, but the model's head gives %s" % (
            task, "several labels" if found.model.kind == kinds.MULTI_LABEL else "one label, or a number"))
    if labels and len(labels) != found.num_labels:
        raise UserError("--labels must be %d, as many as the classifier has outputs, got %d"
                        % (found.num_labels, len(labels)))
    named, said = tuple(labels) or found.model.labels, task or found.model.task
    known = said if said in labels_of else None
    wanted = labels_of[known] if known else None
    if found.num_labels == 0:
        if wanted != ():
            raise UserError("its head gives a number, not classes: name the task by --task_name, one of %s"
                            % ", ".join(name for name, its in labels_of.items() if its == ()))
        return replace(found.model, task=known, labels=()), [0]
    if wanted is None:
        return replace(found.model, task=known, labels=named), list(range(found.num_labels))
    if sorted(wanted) != sorted(named):
        raise UserError("its labels are %s, but those of %s are %s: give --labels, in the order of its "
                        "outputs" % (", ".join(named), known, ", ".join(wanted) or "numbers"))
    return replace(found.model, task=known, labels=tuple(wanted)), [named.index(label) for label in wanted]


def adopt(checkpoint: str, description: ModelFolder, output_dir: str, outputs: Sequence[int] = ()) -> None:
    """Writes a fine-tuned model that has no description beside it as a model folder, without the optimizer's
    moments.

    Args:
      outputs: of tags, the number of the checkpoint's output of each, in our order; others are left out.

    Raises UserError, before `output_dir` appears, for a checkpoint that lacks a variable, has another number
    of labels or is damaged, and for a folder that is there already.
    """
    is_spans = description.kind == kinds.SPANS
    name = "cls/squad/output_weights" if is_spans else "output_weights"
    found = checkpoint_files.read_shapes(checkpoint).get(name)
    wanted = 2 if is_spans else max(1, len(description.labels))
    if found is None:
        raise UserError("%s: holds no %s, so no %s: fine-tune from it with --init_checkpoint"
                        % (checkpoint, name, "head that finds answers" if is_spans else "classifier"))
    if outputs and found[0] <= max(outputs):
        raise UserError("%s: its head has %d outputs, but there is a label with the number %d"
                        % (checkpoint, found[0], max(outputs)))
    if not outputs and found[0] != wanted:
        raise UserError("%s: its classifier has %d outputs, but the task has %d"
                        % (checkpoint, found[0], wanted))
    with tf.Graph().as_default():
        tagging = description.tagging
        heads.declare_variables(description.config, len(description.labels), kind=description.kind,
                                crf=bool(tagging and tagging.crf))
        of_tags = _OF_TAGS if outputs else ()  # these have another shape there
        loading = checkpoint_files.plan_loading(checkpoint, description.config, new_prefixes=of_tags)
        names = sorted({*loading.assignment_map, *loading.new})
    checkpoint_files.check_data(checkpoint, names)
    reader = checkpoint_files.open_reader(checkpoint)
    values = {name: reader.get_tensor(name) for name in names}
    for name in of_tags:
        for axis in range(2 if name == heads.TRANSITIONS else 1) if name in values else ():
            values[name] = values[name].take(outputs, axis=axis)
    _write_model(values, description, output_dir)


def _write_model(values: Dict[str, np.ndarray], description: ModelFolder, output_dir: str) -> None:
    """A new model folder, as after a training run of no steps."""
    with files.atomic_folder(output_dir, "output_dir") as folder:
        checkpoint_files.write(os.path.join(folder, CONVERTED_NAME), dict(values, global_step=np.int64(0)),
                               "output_dir")
        model_folder.write(folder, description)
        model_folder.write_state(folder, [CONVERTED_NAME])
