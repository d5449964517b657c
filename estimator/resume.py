"""May a run go on in a folder that is not empty, and from where? And the record of how each run was made."""
import dataclasses
import os
import platform
from typing import Any, Dict, List, Mapping

from estimator import model_folder
from estimator.model_folder import ModelFolder
from etl import files
from etl.command_line import UserError

RUN_FILE = "run_config.json"
CHECKPOINT_LIST = "checkpoint"                 # TensorFlow's file of the checkpoints beside it

# A checkpoint of one cannot be continued by another: an optimizer keeps slots of its own.
_MUST_NOT_CHANGE = ("optimizer",)
# Free to change while a run goes on, and no news when they do.
_OF_NO_ACCOUNT = ("do_train", "do_eval", "do_predict", "eval_batch_size", "predict_batch_size", "max_eval_steps", "log_steps",
                  "save_checkpoints_steps", "keep_checkpoint_max", "output_dir", "backend", "iterations_per_loop")


def check_folder(folder: str, description: ModelFolder, flags: Any) -> List[str]:
    """Checks that the checkpoints in `folder`, if it has any model, are of the model that is to be trained there.

    Args:
      folder: the output folder, which may be missing.
      description: of the model to be trained.
      flags: the command's config.

    Returns:
      Remarks on flags that changed since the run before: `train_batch_size was 8, is now 16`.

    Raises UserError, naming the field and both values, when the checkpoints are of another model.
    """
    if not os.path.exists(os.path.join(folder, CHECKPOINT_LIST)):
        return []
    before = model_folder.read(folder)
    for name, ours, theirs in [("task", description.task, before.task), ("labels", description.labels, before.labels),
                               ("max_seq_length", description.max_seq_length, before.max_seq_length),
                               ("do_lower_case", description.tokenizer.do_lower_case, before.tokenizer.do_lower_case),
                               ("vocabulary", _vocabulary(description), _vocabulary(before))] + [
            (field.name, getattr(description.config, field.name), getattr(before.config, field.name))
            for field in dataclasses.fields(description.config)]:
        if ours != theirs:
            raise UserError("--output_dir: %s holds a model whose %s is %s, not %s: give another folder, or remove it"
                            % (folder, name, theirs, ours))
    return _changes(folder, dataclasses.asdict(flags))


def latest_step(folder: str) -> int:
    """The step of the latest checkpoint in `folder`, 0 if it has none. Raises UserError when that one is damaged."""
    if not os.path.exists(os.path.join(folder, CHECKPOINT_LIST)):
        return 0
    import tensorflow.compat.v1 as tf          # here and below: --help need not wait for it
    from estimator import checkpoints
    prefix = checkpoints.resolve(folder, "output_dir")
    checkpoints.check_data(prefix, checkpoints.read_shapes(prefix))
    return int(tf.train.load_variable(prefix, "global_step"))


def write_run(folder: str, command: str, flags: Any, backend: str, facts: Mapping[str, Any]) -> None:
    """Writes run_config.json: the command, all flags, the backend, library versions and `facts`."""
    import numpy
    import tensorflow.compat.v1 as tf
    files.write_json(os.path.join(folder, RUN_FILE), {
        "command": command, "flags": dataclasses.asdict(flags), "backend": backend,
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__, "numpy": numpy.__version__},
        **facts})


def _changes(folder: str, flags: Dict[str, Any]) -> List[str]:
    path = os.path.join(folder, RUN_FILE)
    before = files.read_json(path)["flags"] if os.path.exists(path) else {}
    changed = {name: before[name] for name, value in flags.items()
               if name in before and before[name] != (list(value) if isinstance(value, tuple) else value)}
    for name in _MUST_NOT_CHANGE:
        if name in changed:
            raise UserError("--output_dir: %s was trained with --%s %s and cannot go on with %s: give another folder"
                            % (folder, name, changed[name], flags[name]))
    return ["%s was %s, is now %s" % (name, value, flags[name]) for name, value in changed.items()
            if name not in _OF_NO_ACCOUNT]


def _vocabulary(description: ModelFolder) -> str:
    """What tells one vocabulary from another."""
    tokenizer = description.tokenizer
    return files.sha256_of_file(tokenizer.spm_model_file or tokenizer.vocab_file)[:12]
