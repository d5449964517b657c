"""The best checkpoint so far, by one metric, in a separate model folder: `best/`.

It is kept when newer ones replace each other, and is the one to fine-tune or export.
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
    """Copies a checkpoint to `best/` if it is better than the one there; the list, which determines the
    checkpoint in effect, is replaced last.

    Wherever that is interrupted, `best/` has the previous or the new one, complete. Of equal ones the first
    is kept, otherwise a constant metric would look like progress. The same step is copied again, since the
    first copy may have been interrupted.

    Args:
      output_dir: the training run's folder, whose lock is held.
      checkpoint: prefix of the evaluated checkpoint.
      description: the files beside it.
      results: its evaluation, with global_step.
      metric: the deciding metric; names that end in "loss" and perplexity are better when lower.

    Returns:
      Whether it is the best so far.
    """
    folder = require_own(output_dir)
    before = _results_by(folder, metric)
    if before:
        gain = (float(results[metric]) - before[metric]) * (-1 if is_better_lower(metric) else 1)
        again = gain == 0 and results["global_step"] == int(before["global_step"])
        if not (gain > 0 or again):            # nor if it is NaN
            return False
    try:
        _copy(checkpoint, folder, description, results)
    finally:  # e.g. a full disk: the previous one still counts, and the partial copy must go
        with contextlib.suppress(OSError, UserError):
            tidy(output_dir)
    return True


def _copy(checkpoint: str, folder: str, description: ModelFolder, results: Mapping[str, Any]) -> None:
    """Copies a checkpoint into `folder`, with description and seal, and finally adds it to the list there."""
    source, name = os.path.split(checkpoint)
    parts = {file: os.path.join(source, file) for file in checkpoint_list.files_of(source, name)}
    is_described, listed = model_folder.is_described(folder, description), checkpoint_list.names(folder)
    if listed and not (is_described and _is_free(folder, name, parts)):
        # its checkpoint is overwritten: it no longer counts
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
                             + [name])      # from now on this one counts


def _is_free(folder: str, name: str, parts: Mapping[str, str]) -> bool:
    """Whether no other checkpoint of the name is in `folder`; one with the same index has the same values."""
    index = os.path.join(folder, name + ".index")
    return (not os.path.exists(index)
            or files.sha256_of_file(index) == files.sha256_of_file(parts[name + ".index"]))


def tidy(output_dir: str) -> None:
    """Makes `best/` match its list: removes earlier checkpoints and partial copies, writes the results that
    belong to it.

    Only for the holder of the lock of `output_dir`. Other files are kept.
    """
    folder = require_own(output_dir)
    if not os.path.isdir(folder):
        return
    files.remove_temporary(folder)
    listed = checkpoint_list.names(folder)
    if not listed:                             # perhaps lost: then the checkpoint in effect is unknown
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
    """The path of `best/`. Raises UserError if it is not a folder: otherwise files would be written
    elsewhere."""
    folder = os.path.join(output_dir, FOLDER)
    if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
        raise UserError("--output_dir: %s is %s, not a folder: the best checkpoint is kept there: rename it"
                        % (folder, "a link" if os.path.islink(folder) else "a file"))
    return folder


def is_better_lower(metric: str) -> bool:
    """Whether a lower value of `metric` is the better one."""
    return metric.endswith("loss") or metric == "perplexity"


def find(output_dir: str, check_data: bool = True) -> Optional[str]:
    """The prefix of the checkpoint in `best/`; None if there is none, or its copying was interrupted, so that
    no list names it.

    Raises UserError if it is damaged; damaged data is detected only with `check_data`, which reads all of it.
    """
    folder = os.path.join(output_dir, FOLDER)
    if not model_folder.has_checkpoint(folder):
        return None
    prefix = checkpoint_files.resolve(folder, "output_dir")
    if check_data:
        checkpoint_files.check_data(prefix, checkpoint_files.read_shapes(prefix))
    return prefix


def choose(folder: str, flag_name: str) -> str:
    """The checkpoint for commands that use the best one: that in `best/`, or the newest in `folder`.

    Prints a line if `best/` was not finished. Raises UserError if the one in `best/` is damaged, or if there
    is none at all.
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


def position_of_best(output_dir: str, metric: str, accumulation_steps: int) -> Optional[resume.Position]:
    """The progress of the training run at the checkpoint in `best/`; None if there is none that was judged by
    `metric`."""
    folder = os.path.join(output_dir, FOLDER)
    if not _results_by(folder, metric):
        return None
    return resume.position(folder, accumulation_steps, check_data=False)


def _results_by(folder: str, metric: str) -> Mapping[str, Any]:
    """The evaluation of the checkpoint in `folder`; empty if there is none, or `metric` is missing or not a
    number."""
    results = _results_of_best(folder)
    value = results.get(metric)
    return {} if value is None or math.isnan(value) else results


def _results_of_best(folder: str) -> Mapping[str, Any]:
    """The evaluation of the checkpoint in `folder`: from its seal or, for older versions, from the file of
    its step."""
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
