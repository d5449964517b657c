"""May a run go on in a folder that is not empty, and from where? And the record of how each run was made."""
import dataclasses
import json
import os
import platform
from typing import Any, Dict, List, Mapping, Optional

from estimator import model_folder
from estimator.model_folder import ModelFolder
from etl import files
from etl.command_line import UserError, describe

RUN_FILE = "run_config.json"
CHECKPOINT_LIST = "checkpoint"                 # TensorFlow's file of the checkpoints beside it

# A checkpoint of one cannot be continued by another: an optimizer keeps slots of its own.
_MUST_NOT_CHANGE = ("optimizer",)
# Free to change while a run goes on, and no news when they do.
_OF_NO_ACCOUNT = ("do_train", "do_eval", "do_predict", "eval_batch_size", "predict_batch_size", "max_eval_steps",
                  "log_steps", "save_checkpoints_steps", "keep_checkpoint_max", "output_dir", "backend",
                  "iterations_per_loop")


def check_model(folder: str, description: ModelFolder) -> None:
    """Raises UserError, naming the field and both values, when the checkpoints in `folder` are of another model."""
    if not os.path.exists(os.path.join(folder, CHECKPOINT_LIST)):
        return
    before, now = _model_facts(model_folder.read(folder)), _model_facts(description)
    for name, value in before.items():
        _require_same(folder, name, value, now[name])


def check_training(folder: str, flags: Any, facts: Mapping[str, str]) -> List[str]:
    """Checks that the checkpoints in `folder`, if it has any, are of the very training that is to go on there.

    Args:
      folder: the output folder, which may be missing.
      flags: the command's config.
      facts: what the training started from; must be what `write_run` wrote.

    Returns:
      Remarks on flags that changed since the run before: `train_batch_size was 8, is now 16`.

    Raises UserError, naming the field and both values, when it is of another.
    """
    path = os.path.join(folder, RUN_FILE)
    if not os.path.exists(os.path.join(folder, CHECKPOINT_LIST)) or not os.path.exists(path):
        return []                              # nothing to go on from, or nothing is known about how it was made
    run = files.read_json(path)
    if not isinstance(run, dict) or not all(isinstance(run.get(name), dict) for name in ("flags", "facts")):
        raise UserError("%s: wanted an object with flags and facts" % path)
    before, now = run["flags"], json.loads(json.dumps(dataclasses.asdict(flags)))    # tuples become lists as there
    for name, value in facts.items():
        _require_same(folder, name, run["facts"].get(name, value), value)
    for name in _MUST_NOT_CHANGE:
        _require_same(folder, name, before.get(name, now[name]), now[name])
    return ["%s was %s, is now %s" % (name, before[name], now[name]) for name in now
            if name in before and before[name] != now[name] and name not in _OF_NO_ACCOUNT]


def latest_step(folder: str) -> int:
    """The step of the latest checkpoint in `folder`, 0 if it has none. Raises UserError when that one is damaged."""
    if not os.path.exists(os.path.join(folder, CHECKPOINT_LIST)):
        return 0
    import tensorflow.compat.v1 as tf          # here and below: --help need not wait for it
    from estimator import checkpoints
    prefix = checkpoints.resolve(folder, "output_dir")
    checkpoints.check_data(prefix, checkpoints.read_shapes(prefix))
    return int(tf.train.load_variable(prefix, "global_step"))


def write_run(folder: str, command: str, flags: Any, backend: str, facts: Mapping[str, str]) -> None:
    """Writes run_config.json: the command, all flags, the backend, library versions and `facts`."""
    import numpy
    import tensorflow.compat.v1 as tf
    files.write_json(os.path.join(folder, RUN_FILE), {
        "command": "python -m %s %s" % (command, describe(flags)), "flags": dataclasses.asdict(flags),
        "backend": backend, "facts": dict(facts),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__, "numpy": numpy.__version__}})


def file_fact(path: str) -> str:
    """A file's name and what tells its content from another's, wherever it lies: `train.tsv (0123456789ab)`."""
    return "%s (%s)" % (os.path.basename(path), files.sha256_of_file(path)[:12])


def checkpoint_fact(prefix: Optional[str]) -> str:
    """As `file_fact`, for a checkpoint: its index holds the checksums of all values."""
    return file_fact(prefix + ".index") if prefix else "none"


def _model_facts(description: ModelFolder) -> Dict[str, Any]:
    """All that makes a model, by name."""
    tokenizer = description.tokenizer
    vocabulary = files.sha256_of_file(tokenizer.spm_model_file or tokenizer.vocab_file)
    return dict(dataclasses.asdict(description.config), task=description.task, labels=description.labels,
                max_seq_length=description.max_seq_length, do_lower_case=tokenizer.do_lower_case,
                vocabulary="of SHA-256 %s" % vocabulary[:12])


def _require_same(folder: str, name: str, before: Any, now: Any) -> None:
    if before != now:
        raise UserError("--output_dir: %s holds a model whose %s is %s, not %s: give another folder, or remove it"
                        % (folder, name, before, now))
