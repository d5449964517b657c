"""The best checkpoint so far, by one metric, in a model folder of its own: `best/`.

It stays when the newest ones replace each other, and is what one would fine-tune or export.
"""
import contextlib
import math
import os
import re
from typing import Any, Mapping, Optional

from estimator.training import result_files, resume
from estimator.weights import checkpoint_files, checkpoint_list, model_folder, seals
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError

FOLDER = "best"


def keep_if_best(output_dir: str, checkpoint: str, description: ModelFolder, results: Mapping[str, Any],
                 metric: str) -> bool:
    """Copies a checkpoint to `best/` when it is better than the one there; the list, which says which one
    counts, is replaced last.

    Wherever that is cut off, `best/` holds the one before or the new one, whole. Of equal ones the first
    stays, or a number that does not move would pass for progress. The same step is copied again, since
    copying it may have been cut off.

    Args:
      output_dir: the training's folder, whose lock is held.
      checkpoint: prefix of the checkpoint that was evaluated.
      description: what stands beside it.
      results: its evaluation; global_step among them.
      metric: the number that decides; names that end in "loss" and perplexity are better when lower.

    Returns:
      Whether it is the best so far.
    """
    folder = require_own(output_dir)
    before = _results_by(folder, metric)
    if before:
        gain = (float(results[metric]) - before[metric]) * (-1 if is_better_lower(metric) else 1)
        again = gain == 0 and results["global_step"] == int(before["global_step"])
        if not (gain > 0 or again):            # nor when the number is none
            return False
    try:
        _copy(checkpoint, folder, description, results)
    finally:  # a full disk: the one before still counts, and half a copy is in the way
        with contextlib.suppress(OSError, UserError):
            tidy(output_dir)
    return True


def _copy(checkpoint: str, folder: str, description: ModelFolder, results: Mapping[str, Any]) -> None:
    """Copies a checkpoint into `folder`, described and sealed, and at last puts it on the list there."""
    source, name = os.path.split(checkpoint)
    parts = {file: os.path.join(source, file) for file in checkpoint_list.files_of(source, name)}
    is_described, listed = model_folder.is_described(folder, description), checkpoint_list.names(folder)
    if listed and not (is_described and _is_free(folder, name, parts)):
        # what it names is overwritten: it no longer counts
        os.remove(os.path.join(folder, model_folder.STATE_FILE))
        listed = []
    if not is_described:
        model_folder.write(folder, description)
    described = {file: os.path.join(folder, file) for file in model_folder.files_in(folder)}
    seals.write(folder, name, dict(parts, **described), result_files.plain(results))
    for file, path in parts.items():
        files.copy(path, os.path.join(folder, file))
    result_files.write_results(folder, results)     # `tidy` takes them back if this ends here
    model_folder.write_state(folder, [other for other in listed if other != name]
                             + [name])      # from here on this one counts


def _is_free(folder: str, name: str, parts: Mapping[str, str]) -> bool:
    """Whether no other checkpoint of the name is in `folder`; one with the same index has the same values."""
    index = os.path.join(folder, name + ".index")
    return (not os.path.exists(index)
            or files.sha256_of_file(index) == files.sha256_of_file(parts[name + ".index"]))


def tidy(output_dir: str) -> None:
    """Brings `best/` to what its list says: removes the checkpoints of before and half copies, writes the
    results that belong to it.

    For who holds the lock of `output_dir`. Files of others stay.
    """
    folder = require_own(output_dir)
    if not os.path.isdir(folder):
        return
    files.remove_temporary(folder)
    listed = checkpoint_list.names(folder)
    if not listed:                             # lost, perhaps: then nothing can be told from what counts
        return
    for name in sorted(set(listed).union(seals.sealed_in(folder)) - set(listed[-1:])):
        checkpoint_list.remove(folder, name)
        seals.remove(folder, name)
    if listed[:-1]:
        model_folder.write_state(folder, listed[-1:])
    results, path = seals.read_results(folder, listed[-1]), os.path.join(folder, result_files.JSON_FILE)
    if results and not (os.path.isfile(path) and _same(files.read_json(path), results)):
        result_files.write_results(folder, results)


def require_own(output_dir: str) -> str:
    """The path of `best/`. Raises UserError when that is something else than a folder: what is written there
    would lie elsewhere."""
    folder = os.path.join(output_dir, FOLDER)
    if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
        raise UserError("--output_dir: %s is %s, not a folder: the best checkpoint is kept there: rename it"
                        % (folder, "a link" if os.path.islink(folder) else "a file"))
    return folder


def is_better_lower(metric: str) -> bool:
    """Whether a lower value of `metric` is the better one."""
    return metric.endswith("loss") or metric == "perplexity"


def find(output_dir: str, check_data: bool = True) -> Optional[str]:
    """The prefix of the checkpoint in `best/`; None when there is none, or its copying was cut off, so that
    no list names it.

    Raises UserError when it is damaged; that its data is, is seen only with `check_data`, which reads all
    of it.
    """
    folder = os.path.join(output_dir, FOLDER)
    if not model_folder.has_checkpoint(folder):
        return None
    prefix = checkpoint_files.resolve(folder, "output_dir")
    if check_data:
        checkpoint_files.check_data(prefix, checkpoint_files.read_shapes(prefix))
    return prefix


def choose(folder: str, flag_name: str) -> str:
    """The checkpoint that a command takes which wants the best one: that in `best/`, else the newest
    in `folder`.

    A line says so where there is a `best/` that was not finished. Raises UserError when the one in `best/` is
    damaged, or there is none at all.
    """
    found = find(folder, check_data=False)
    if found:
        return found
    newest = checkpoint_files.resolve(folder, flag_name)
    best = os.path.join(folder, FOLDER)
    if os.path.isdir(best) and os.listdir(best):
        print("%s was not finished (it has no file %s): taking the newest, %s"
              % (best, model_folder.STATE_FILE, os.path.basename(newest)))
    return newest


def step_of_best(output_dir: str, metric: str) -> Optional[int]:
    """The step of the checkpoint in `best/`; None when there is none that was judged by `metric`."""
    before = _results_by(os.path.join(output_dir, FOLDER), metric)
    return int(before["global_step"]) if before else None


def position_of_best(output_dir: str, metric: str, accumulation_steps: int) -> Optional[resume.Position]:
    """How far the training had come at the checkpoint in `best/`; None when there is none that was judged
    by `metric`."""
    folder = os.path.join(output_dir, FOLDER)
    if not _results_by(folder, metric):
        return None
    return resume.position(folder, accumulation_steps, check_data=False)


def _results_by(folder: str, metric: str) -> Mapping[str, Any]:
    """The evaluation of the checkpoint in `folder`; empty when there is none, or `metric` was never counted
    or is no number there."""
    results = _results_of_best(folder)
    value = results.get(metric)
    return {} if value is None or math.isnan(value) else results


def _results_of_best(folder: str) -> Mapping[str, Any]:
    """The evaluation of the checkpoint in `folder`: by its seal, else, as older versions left it, by the file
    of its step."""
    listed = checkpoint_list.names(folder)
    if not listed:
        return {}
    results, path = seals.read_results(folder, listed[-1]), os.path.join(folder, result_files.JSON_FILE)
    if results is not None or not os.path.exists(path):
        return results or {}
    found, step = files.read_json(path), re.search(r"-(\d+)$", listed[-1])
    return found if step and found.get("global_step") == int(step.group(1)) else {}


def _same(found: Any, wanted: Any) -> bool:
    return repr(found) == repr(wanted)         # a NaN is the same, too
