"""Checks whether a run may resume in a folder, and from where; writes `run_config.json`, the record of
each run."""
import dataclasses
import hashlib
import json
import os
import platform
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.optimization.optimizers import BATCHES_TAKEN
from estimator.weights import checkpoint_files, checkpoint_list, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import FIXED, SAME, UserError, describe, names_of
from etl.records import manifest

RUN_FILE = "run_config.json"


def check_model(folder: str, description: ModelFolder) -> None:
    """Raises UserError if `folder` has content that must not be overwritten: the samples of a build, whose
    vocabulary a model's would replace; checkpoints without a description, or of another model, naming the
    field and both values. Also for a folder whose name TensorFlow would treat as a pattern.
    """
    checkpoint_list.require_no_pattern(folder, "output_dir")
    if not model_folder.has_checkpoint(folder):
        if os.path.exists(os.path.join(folder, manifest.FILE_NAME)):
            raise UserError("--output_dir: %s holds samples of etl.build_pretrain: give another folder"
                            % folder)
        return
    if not os.path.exists(os.path.join(folder, model_folder.DESCRIPTION_FILE)):
        raise UserError("--output_dir: %s has a checkpoint, but no %s that describes it: give another "
                        "folder, and this one as --init_checkpoint" % (folder, model_folder.DESCRIPTION_FILE))
    before, now = _model_facts(model_folder.read(folder)), _model_facts(description)
    if before["labels"] and before["task"] is None:    # a classifier taken over, of any task with its labels
        del before["task"]
    for name, value in before.items():
        _require_same(folder, name, value, now[name])


def check_training(folder: str, flags: Any, facts: Mapping[str, str],
                   allow_changes: bool = False) -> List[str]:
    """Checks that the checkpoints in `folder`, if any, belong to the training run that is to resume there.

    Args:
      folder: the output folder, which may be missing.
      flags: the command's config; each field says how it behaves on resume. Content is compared in
        `check_model` or by facts.
      facts: what the run started from and what it reads; must equal what `write_run` wrote.
      allow_changes: whether it may continue although flags or facts have changed; FIXED ones never may.

    Returns:
      The allowed changes: `train_batch_size was 8, is now 16`.

    Raises UserError that lists all changes; also when the folder's list names a checkpoint elsewhere.
    """
    checkpoint_list.check(folder)
    path = os.path.join(folder, RUN_FILE)
    if not model_folder.has_checkpoint(folder) or not os.path.exists(path):
        return []  # nothing to resume, or no record of how it was made
    run = _read_run(path)
    before = dict(run["flags"], **run["facts"])
    now = dict(json.loads(json.dumps(dataclasses.asdict(flags))), **facts)      # tuples become lists as there
    for name in names_of(flags, on_resume=FIXED):
        if name in before:
            _require_same(folder, name, before[name], now[name])
    compared = [name for name in [*names_of(flags, on_resume=SAME), *facts] if name in before]
    changes = ["%s was %s, is now %s" % (name, before[name], now[name])
               for name in compared if before[name] != now[name]]
    if changes and not allow_changes:
        raise UserError("--output_dir: %s holds a different run: %s. Use another folder, the previous flags, "
                        "or --allow_changes to continue with the new ones" % (folder, "; ".join(changes)))
    return changes


def flag_of_run(folder: str, name: str) -> Any:
    """A flag's value in the last training run in `folder`; None if it is unknown."""
    path = os.path.join(folder, RUN_FILE)
    return _read_run(path)["flags"].get(name) if os.path.exists(path) else None


class Position(NamedTuple):
    """The progress of a training run.

    Attributes:
      step: updates, as counted by global_step.
      batches: batches taken, also those whose updates overflowed; the position in the data, in the schedule
        of evaluations and in the run.
    """
    step: int = 0
    batches: int = 0


def position(folder: str, accumulation_steps: int = 1, check_data: bool = True) -> Position:
    """The progress of the latest checkpoint in `folder`. One from an older release does not count batches:
    there they are `accumulation_steps` per update.

    Raises UserError if it is not from a training run or, with `check_data`, if a value in it is damaged.
    """
    if not model_folder.has_checkpoint(folder):
        return Position()
    prefix = checkpoint_files.resolve(folder, "output_dir")
    shapes = checkpoint_files.read_shapes(prefix)
    if "global_step" not in shapes:
        raise UserError("--output_dir: %s: not a training run's, since it has no global_step: give it as "
                        "--init_checkpoint, and another folder" % prefix)
    if check_data:
        checkpoint_files.check_data(prefix, shapes)
    step = int(tf.train.load_variable(prefix, "global_step"))
    counts = BATCHES_TAKEN in shapes
    return Position(step, int(tf.train.load_variable(prefix, BATCHES_TAKEN)) if counts
                    else step * accumulation_steps)


def write_run(folder: str, command: str, flags: Any, backend: str, facts: Mapping[str, str]) -> None:
    """Writes run_config.json: the command, all flags, the backend, library versions and `facts`."""
    files.write_json(os.path.join(folder, RUN_FILE), {
        "command": "python -m %s %s" % (command, describe(flags)), "flags": dataclasses.asdict(flags),
        "backend": backend, "facts": dict(facts),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                     "numpy": np.__version__}})


def file_fact(path: str) -> str:
    """A file's name and a fingerprint of its content, independent of its folder: `train.tsv
    (0123456789ab)`."""
    return "%s (%s)" % (os.path.basename(path), files.sha256_of_file(path)[:12])


def files_fact(paths: Sequence[str]) -> str:
    """SHA-256 of names, sizes, beginnings and ends of files; in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        found = files.fingerprint(path)
        digest.update(("%s %d %s\n" % (os.path.basename(path), found["bytes"],
                                       found["sha256_of_ends"])).encode())
    return digest.hexdigest()


def checkpoint_fact(prefix: Optional[str]) -> str:
    """Like `file_fact`, for a checkpoint: its index has the checksums of all values."""
    return file_fact(prefix + ".index") if prefix else "none"


def _read_run(path: str) -> Dict[str, Any]:
    run = files.read_json(path)
    if not isinstance(run, dict) or not all(isinstance(run.get(name), dict) for name in ("flags", "facts")):
        raise UserError("%s: wanted an object with flags and facts" % path)
    return run


def _model_facts(description: ModelFolder) -> Dict[str, Any]:
    """Everything that defines a model, by name."""
    tokenizer = description.tokenizer
    vocabulary = files.sha256_of_file(tokenizer.vocabulary_file)
    return dict(dataclasses.asdict(description.config), task=description.task, kind=description.kind,
                labels=description.labels,
                max_seq_length=description.max_seq_length, do_lower_case=tokenizer.do_lower_case,
                vocabulary="of SHA-256 %s" % vocabulary[:12])


def _require_same(folder: str, name: str, before: Any, now: Any) -> None:
    if before != now:
        raise UserError("--output_dir: %s holds a model whose %s is %s, not %s: give another "
                        "folder, or remove it" % (folder, name, before, now))
