"""What TensorFlow raises while it runs, when the user can mend it, becomes one line."""
import contextlib
from typing import Iterator, Optional

import tensorflow.compat.v1 as tf

from estimator import records
from estimator.records import PretrainingData
from etl.command_line import UserError


@contextlib.contextmanager
def explained(batch_size_flag: str, data: Optional[PretrainingData] = None) -> Iterator[None]:
    """Turns a damaged record of `data`, a loss that is no number and exhausted memory or disks into UserErrors.

    Any other error passes: it is ours.

    Args:
      batch_size_flag: the flag, with its value, that a smaller memory wants lower.
      data: the records that are read meanwhile.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        if data is not None:                   # TensorFlow says neither file nor record: look for it
            records.check_all(data.train_files + data.eval_files, data.features, data.vocab_size)
        raise
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in str(error):      # TensorFlow has one class for memory and for disks
            raise UserError("no space left on the disk of --output_dir; the last whole checkpoint is kept")
        raise UserError("out of memory: %s is too large for this device; lower it" % batch_size_flag)
    except tf.train.NanLossDuringTrainingError:
        raise UserError("the loss is no longer a number: lower --learning_rate or lengthen the warm-up; "
                        "the last checkpoint is from before")
