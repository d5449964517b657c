import json
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.data import input_fn, records
from estimator.training import failures
from etl.common.command_line import UserError
from etl.records import examples
from etl.records.examples import frame, serialize_examples
from tiny_training import record_values, write_records


def rewrite_shard(folder, values):
    """Puts other records into the first shard of a build and makes the manifest agree; returns the
    shard's path."""
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


def read_held_out(folder):
    """Reads all records held out, as an evaluation would."""
    data = records.from_build(str(folder))
    with tf.Graph().as_default(), tf.Session() as session, failures.explained("--eval_batch_size 5", data):
        batch = tf.data.make_one_shot_iterator(input_fn.evaluate_on_records(data, 5)()).get_next()
        while True:
            session.run(batch)


@pytest.fixture
def folder(tmp_path):
    tiny_training.write_build(tmp_path / "data", num_train=20, num_eval=5, num_shards=2)
    return tmp_path / "data"


@pytest.mark.parametrize("changes, message", [
    ({"input_ids": np.zeros(9, np.int64)}, "record 4: feature input_ids holds 9 values, wanted 8"),
    ({"segment_ids": None}, "record 4: feature segment_ids is missing"),
    ({"masked_lm_positions": np.array([8, 0])},
     r"record 4: feature masked_lm_positions must be in \[0, 8\), got 8"),
    ({"input_ids": np.full(8, 1 << 32)}, r"record 4: feature input_ids must be in \[0, 20\), got 4294967296"),
    ({"input_mask": np.zeros(8, np.int64)},
     "record 4: feature input_mask is all zero: there is nothing to learn from"),
    ({"masked_lm_weights": np.zeros(2, np.float32)}, "record 4: feature masked_lm_weights is all zero"),
    ({"input_mask": np.zeros(8, np.float32)}, "record 4: feature input_mask is float32, wanted int64"),
    ({"masked_lm_weights": np.full(2, np.nan, np.float32)},
     r"record 4: feature masked_lm_weights must be in \[0, inf\), got nan"),])
def test_a_record_of_another_shape_or_range_is_named(folder, changes, message):
    values = [record_values(number) for number in range(10)]
    values[4] = {name: value for name, value in dict(values[4], **changes).items() if value is not None}
    rewrite_shard(folder, values)
    with pytest.raises(UserError, match="00000-of-00002.tfrecord: " + message):
        read_all(folder)


def bytes_of(number):
    return serialize_examples({name: array[None] for name, array in record_values(number).items()})[0]


@pytest.mark.parametrize("record, message", [
    (bytes_of(4)[:-1], "not a serialized tf.train.Example"),
    (bytes_of(4) + b"\xff", "not a serialized tf.train.Example"),  # bytes that TensorFlow dies of telling
    (b"\xff\xfe", "not a serialized tf.train.Example"),
    (bytes_of(4).replace(b"input_ids", b"input_\xff\xff\xff"), "not a serialized tf.train.Example"),
    (bytes_of(4).replace(b"input_ids", b"xxxxx_ids"), "feature input_ids is missing"),
    (bytes_of(4) + b"\x0c", "not a serialized tf.train.Example"),
    (b"", "feature input_ids is missing"),
], ids=["cut off", "a byte more", "none", "a name of bytes", "another name", "the end of a group", "empty"])
@pytest.mark.parametrize("part, path", [("train", "tf_examples-00000-of-00002.tfrecord"),
                                        ("eval", "eval/tf_examples-00000-of-00001.tfrecord")])
def test_a_malformed_record_of_a_right_checksum_is_named(folder, record, message, part, path):
    records_ = [bytes_of(number) for number in range(10)]
    records_[4] = record
    (folder / path).write_bytes(b"".join(map(frame, records_)))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[part][0].update(bytes=(folder / path).stat().st_size, records=10)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="%s: record 4: %s" % (path, message)):
        (read_all if part == "train" else read_held_out)(folder)


def test_records_that_other_tools_wrote_are_read(folder):
    """Features in another order, one more, numbers that are not packed, unknown fields."""
    def entry(name, feature):
        named = (b"\x0a" + bytes([len(name)]) + name.encode() + b"\x7a\x02xy\x12" + bytes([len(feature)])
                 + feature)
        return b"\x0a" + bytes([len(named)]) + named
    entries = [entry("unused", b"\x0a\x03\x0a\x01x")]
    for name, array in reversed(list(record_values(3).items())):
        numbers = b"".join(b"\x0d" + x.tobytes() if array.dtype.kind == "f" else b"\x08" + bytes([x])
                           for x in array)
        entries.append(entry(name, bytes([0x12 if array.dtype.kind == "f" else 0x1a,
                                          len(numbers)]) + numbers))
    content = b"".join(entries)
    record = b"\x0a" + bytes([len(content) & 0x7F | 0x80, len(content) >> 7]) + content
    data = records.from_build(str(folder))
    (folder / "tf_examples-00000-of-00002.tfrecord").write_bytes(frame(record) * 10)
    (folder / "tf_examples-00001-of-00002.tfrecord").write_bytes(frame(record) * 10)
    with tf.Graph().as_default(), tf.Session() as session:
        iterator = tf.data.make_initializable_iterator(input_fn.train_on_records(data, 5, seed=1)())
        session.run(iterator.initializer)
        found = session.run(iterator.get_next())
    for name, array in record_values(3).items():
        assert found[name].tolist() == [array.tolist()] * 5


def header_of(length):
    """That of a record of so many bytes, whose checksum is right."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", examples._masked_crc(packed))


@pytest.mark.parametrize("damage, message", [
    (lambda content: content[:-1], r"00000-of-00002.tfrecord: truncated in record 9: \d+ of \d+ bytes"),
    (lambda content: content[:40] + b"\xff" + content[41:],
     "00000-of-00002.tfrecord: record 0 does not match its checksum"),
    (lambda content: header_of(2 ** 40) + content[12:], "record 0 claims to have 1099511627776 bytes"),
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
    (tf.errors.ResourceExhaustedError, "No space left on device",
     "no space left on the disk of --output_dir"), (tf.errors.ResourceExhaustedError, "Disk quota exceeded",
                                                    "the quota of the disk of --output_dir is used up"),
    (tf.errors.OutOfRangeError, "File too large",
     "a file in --output_dir is larger than its disk or `ulimit -f` allows"),
])
def test_a_full_disk_is_told_from_full_memory(kind, reason, message):
    with pytest.raises(UserError, match="^%s$" % message):
        with failures.explained("--train_batch_size 5"):
            raise kind(None, None, "out/model.ckpt-7; " + reason)


def test_exhausted_memory_names_the_flag():
    with pytest.raises(UserError,
                       match="out of memory: --train_batch_size 4096 is too large for this device"):
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
        with pytest.raises(UserError, match="training stopped after step 7, before a weight was changed: "
                           "loss %s, learning_rate 0.5: lower --learning_rate" % bad):
            with failures.explained("--train_batch_size 5"):
                session.run(failures.require_finite(tf.constant(7), numbers))
