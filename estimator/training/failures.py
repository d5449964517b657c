"""Turns TensorFlow errors that the user can fix into one-line errors, and checks that a step's values are
finite."""
import contextlib
import re
from typing import Iterator, Mapping, Optional

import tensorflow.compat.v1 as tf

from estimator.data import records
from estimator.data.records import PretrainingData
from estimator.weights import checkpoint_files
from etl.common.command_line import UserError

NOT_FINITE = "numbers that are not finite"

# Parts of TensorFlow's messages when a file cannot grow: it has no error class for that.
NO_ROOM = {"No space left on device": "no space left on the disk of --output_dir",
           "Disk quota exceeded": "the quota of the disk of --output_dir is used up",
           "File too large": "a file in --output_dir is larger than its disk or `ulimit -f` allows"}

_WHAT_TO_DO = "lower --learning_rate or lengthen the warm-up"


def require_finite(step: tf.Tensor, numbers: Mapping[str, tf.Tensor]) -> tf.Operation:
    """An op that fails, listing all of `numbers`, if one of them is NaN or infinite; `explained` turns that
    into one line.

    Args:
      step: integer scalar, updates so far.
      numbers: float scalars by name.
    """
    said = [NOT_FINITE, "step", step]
    for name, value in numbers.items():
        said += [name, value]
    return tf.debugging.Assert(tf.reduce_all(tf.is_finite(tf.stack(list(numbers.values())))), said,
                               summarize=1)


@contextlib.contextmanager
def explained(batch_size_flag: str, data: Optional[PretrainingData] = None, output_dir: Optional[str] = None
              ) -> Iterator[None]:
    """Turns a damaged record of `data`, non-finite numbers and exhausted memory or disks into UserErrors.

    Any other error is passed on: it is a bug.

    Args:
      batch_size_flag: the flag, with its value, to lower if memory is exhausted.
      data: the records being read.
      output_dir: the folder of checkpoints to return to.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        if NOT_FINITE in error.message:
            raise UserError(_not_finite(error.message) + _go_back(output_dir))
        if data is not None:                   # TensorFlow names neither file nor record: find it
            records.check_all(data.train_files + data.eval_files, data.features, data.vocab_size)
        raise
    except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:
        for reason, said in NO_ROOM.items():
            if reason in str(error):
                kept = checkpoint_files.kept_in(output_dir) if output_dir else []
                raise UserError(said + ("; %s is whole" % kept[-1] if kept else ""))
        if isinstance(error, tf.errors.OutOfRangeError):
            raise
        raise UserError("out of memory: %s is too large for this device; lower it" % batch_size_flag)
    except tf.train.NanLossDuringTrainingError:
        raise UserError("the loss is no longer a number: " + _WHAT_TO_DO + _go_back(output_dir))


def _go_back(output_dir: Optional[str]) -> str:
    """Names the checkpoints from which to continue: the newest may be finite but useless all the same."""
    kept = checkpoint_files.kept_in(output_dir) if output_dir else []
    if not kept:
        return ""
    return ("; start again in another folder with --init_checkpoint, one of %s, from before the loss rose"
            % ", ".join(kept))


def _not_finite(message: str) -> str:
    """From the message of `require_finite`'s op: `training stopped after step 3: loss nan, …`."""
    said = re.findall(r"\[([^\]]*)\]", message[message.index(NOT_FINITE) + len(NOT_FINITE):])
    values = dict(zip(said[::2], said[1::2]))
    step = values.pop("step", "?")
    return "training stopped after step %s, before a weight was changed: %s: %s" % (
        step, ", ".join("%s %s" % pair for pair in values.items()), _WHAT_TO_DO)
