"""The best checkpoint so far, by one number of its evaluation, in a model folder of its own: `best/` beside the newest.

It stays when the newest ones replace each other, and is what one would fine-tune or export.
"""
import glob
import math
import os
from typing import Any, Mapping, Optional

from estimator import metrics, model_folder, resume
from estimator.model_folder import ModelFolder
from etl import files

FOLDER = "best"


def keep_if_best(output_dir: str, checkpoint: str, description: ModelFolder, results: Mapping[str, Any], metric: str) -> bool:
    """Copies a checkpoint to `best/` when it is better than the one there; the file that says which one counts comes last.

    Of equal ones the first stays, or a number that does not move would pass for progress. The same step is copied again,
    since copying it may have been cut off.

    Args:
      output_dir: the training's folder.
      checkpoint: prefix of the checkpoint that was evaluated.
      description: what stands beside it.
      results: its evaluation; global_step among them.
      metric: the number that decides; names that end in "loss" and perplexity are better when lower.

    Returns:
      Whether it is the best so far.
    """
    folder = os.path.join(output_dir, FOLDER)
    before = _value_of_best(folder, metric)
    if before is not None:
        gain = (float(results[metric]) - before) * (-1 if is_better_lower(metric) else 1)
        again = gain == 0 and results["global_step"] == step_of_best(output_dir, metric)
        if not (gain > 0 or again):            # nor when the number is none
            return False
    model_folder.write(folder, description)
    name = os.path.basename(checkpoint)
    for path in glob.glob(glob.escape(checkpoint) + ".*"):
        files.copy(path, os.path.join(folder, os.path.basename(path)))
    metrics.write_results(folder, results)
    model_folder.write_state(folder, [name])
    for path in glob.glob(os.path.join(glob.escape(folder), "model.ckpt-*")):
        if not os.path.basename(path).startswith(name + "."):
            os.remove(path)
    return True


def is_better_lower(metric: str) -> bool:
    """Whether a lower value of `metric` is the better one."""
    return metric.endswith("loss") or metric == "perplexity"


def find(output_dir: str, check_data: bool = True) -> Optional[str]:
    """The prefix of the checkpoint in `best/`; None when there is none, or its copying was cut off.

    Raises UserError when it is damaged; that its data is, is seen only with `check_data`, which reads all of it.
    """
    folder = os.path.join(output_dir, FOLDER)
    if not model_folder.has_checkpoint(folder):
        return None
    from estimator import checkpoint_files     # needs TensorFlow
    prefix = checkpoint_files.resolve(folder, "output_dir")
    if check_data:
        checkpoint_files.check_data(prefix, checkpoint_files.read_shapes(prefix))
    return prefix


def step_of_best(output_dir: str, metric: str) -> Optional[int]:
    """The step of the checkpoint in `best/`; None when there is none that was judged by `metric`."""
    folder = os.path.join(output_dir, FOLDER)
    if _value_of_best(folder, metric) is None:
        return None
    return int(files.read_json(os.path.join(folder, metrics.JSON_FILE))["global_step"])


def position_of_best(output_dir: str, metric: str, accumulation_steps: int) -> Optional[resume.Position]:
    """How far the training had come at the checkpoint in `best/`; None when there is none that was judged by `metric`."""
    if step_of_best(output_dir, metric) is None:
        return None
    return resume.position(os.path.join(output_dir, FOLDER), accumulation_steps, check_data=False)


def _value_of_best(folder: str, metric: str) -> Optional[float]:
    """The number that the checkpoint in `folder` reached; None when there is none, or it was never counted."""
    path = os.path.join(folder, metrics.JSON_FILE)
    if not (model_folder.has_checkpoint(folder) and os.path.exists(path)):
        return None
    value = files.read_json(path).get(metric)
    return None if value is None or math.isnan(value) else value
