import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator import failures, input_fn, records
from etl.command_line import UserError
from tiny_training import record_values, write_records


def rewrite_shard(folder, values):
    """Puts other records into the first shard of a build and makes the manifest agree; returns the shard's path."""
    path = folder / "tf_examples-00000-of-00002.tfrecord"
    write_records(path, values)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["train"][0]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return path


def read_all(folder):
    """Reads an epoch of training batches, as a training would."""
    data = records.from_build(str(folder))
    with tf.Graph().as_default(), tf.Session() as session, failures.explained("--train_batch_size 5", data):
        iterator = tf.data.make_initializable_iterator(input_fn.train_on_records(data, 5, seed=1)())
        batch = iterator.get_next()
        session.run(iterator.initializer)
        for _ in range(data.num_train_records // 5):
            session.run(batch)


@pytest.fixture
def folder(tmp_path):
    tiny_training.write_build(tmp_path / "data", num_train=20, num_eval=5, num_shards=2)
    return tmp_path / "data"


@pytest.mark.parametrize("changes, message", [
    ({"input_ids": np.zeros(9, np.int64)}, "record 4: feature input_ids holds 9 values, wanted 8"),
    ({"segment_ids": None}, "record 4: feature segment_ids is missing"),
    ({"masked_lm_positions": np.array([8, 0])}, r"record 4: feature masked_lm_positions must be in \[0, 8\), got 8"),
    ({"input_ids": np.full(8, 1 << 32)}, r"record 4: feature input_ids must be in \[0, 20\), got 4294967296"),
    ({"masked_lm_weights": np.full(2, np.nan, np.float32)}, r"record 4: feature masked_lm_weights must be in \[0, inf\), got nan"),
])
def test_a_record_of_another_shape_or_range_is_named(folder, changes, message):
    values = [record_values(number) for number in range(10)]
    values[4] = {name: value for name, value in dict(values[4], **changes).items() if value is not None}
    rewrite_shard(folder, values)
    with pytest.raises(UserError, match="00000-of-00002.tfrecord: " + message):
        read_all(folder)


@pytest.mark.parametrize("damage, message", [
    (lambda content: content[:-1], r"00000-of-00002.tfrecord: truncated in record 9: \d+ of \d+ bytes"),
    (lambda content: content[:40] + b"\xff" + content[41:],
     "00000-of-00002.tfrecord: record 0 does not match its checksum"),
])
def test_a_damaged_file_is_named(folder, damage, message):
    path = rewrite_shard(folder, [record_values(number) for number in range(10)])
    data = records.from_build(str(folder))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        with tf.Graph().as_default(), tf.Session() as session, failures.explained("", data):
            iterator = tf.data.make_initializable_iterator(input_fn.train_on_records(data, 20, seed=1)())
            batch = iterator.get_next()
            session.run(iterator.initializer)
            session.run(batch)


def test_other_errors_pass(folder):
    with pytest.raises(tf.errors.InvalidArgumentError, match="ours"):
        with failures.explained("--train_batch_size 5", records.from_build(str(folder))):
            raise tf.errors.InvalidArgumentError(None, None, "ours")


@pytest.mark.parametrize("kind, reason, message", [
    (tf.errors.ResourceExhaustedError, "No space left on device", "no space left on the disk of --output_dir"),
    (tf.errors.ResourceExhaustedError, "Disk quota exceeded", "the quota of the disk of --output_dir is used up"),
    (tf.errors.OutOfRangeError, "File too large", "a file in --output_dir is larger than its disk or `ulimit -f` allows"),
])
def test_a_full_disk_is_told_from_full_memory(kind, reason, message):
    with pytest.raises(UserError, match="^%s$" % message):
        with failures.explained("--train_batch_size 5"):
            raise kind(None, None, "out/model.ckpt-7; " + reason)


def test_exhausted_memory_names_the_flag():
    with pytest.raises(UserError, match="out of memory: --train_batch_size 4096 is too large for this device"):
        with failures.explained("--train_batch_size 4096"):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


def test_a_loss_that_is_no_number_names_the_learning_rate():
    with pytest.raises(UserError, match="the loss is no longer a number: lower --learning_rate"):
        with failures.explained("--train_batch_size 5"):
            raise tf.train.NanLossDuringTrainingError()


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_numbers_that_are_not_finite_are_said_with_the_step(bad):
    numbers = {"loss": tf.constant(float(bad)), "learning_rate": tf.constant(0.5)}
    with tf.Session() as session, failures.explained("--train_batch_size 5"):
        session.run(failures.require_finite(tf.constant(7), dict(numbers, loss=tf.constant(1.0))))
        with pytest.raises(UserError, match="training stopped after step 7, before a weight was changed: loss %s, "
                                            "learning_rate 0.5: lower --learning_rate" % bad):
            with failures.explained("--train_batch_size 5"):
                session.run(failures.require_finite(tf.constant(7), numbers))
