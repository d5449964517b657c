import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.common.command_line import UserError
from etl.records.examples import (Feature, deserialize_example, frame, pretraining_features, read_frames,
                                  rewritten, serialize_examples)

VALUES = {"b": np.array([0, 1, -1, 1 << 40, -(1 << 63), (1 << 63) - 1]),
          "a": np.array([0.5, -2.0], np.float32),
          "空": np.array([], np.int64)}
ARRAYS = st.one_of(
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=6).map(lambda items: np.array(items, np.int64)),
    st.lists(st.integers(0, 40000), max_size=6).map(lambda items: np.array(items, np.int32)),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6).map(
        lambda items: np.array(items, np.float32)))


def serialized(values):
    record, = serialize_examples({name: array[None] for name, array in values.items()})
    return record


def frames_of(data, path="x.tfrecord"):
    return list(read_frames(io.BytesIO(data), path))


def test_features_of_a_pretraining_record():
    features = pretraining_features(128, 20)
    assert features == (Feature("input_ids", "int64", 128), Feature("input_mask", "int64", 128),
                        Feature("segment_ids", "int64", 128), Feature("masked_lm_positions", "int64", 20),
                        Feature("masked_lm_ids", "int64", 20), Feature("masked_lm_weights", "float32", 20),
                        Feature("next_sentence_labels", "int64", 1))
    assert pretraining_features(128, 20, True) == features + (Feature("token_boundary", "int64", 128),)


def test_tensorflow_reads_what_we_write(tmp_path):
    from etl.common.command_line import quiet_libraries
    quiet_libraries()
    import tensorflow.compat.v1 as tf
    parsed = tf.train.Example.FromString(serialized(VALUES)).features.feature
    assert sorted(parsed) == ["a", "b", "空"]
    assert list(parsed["b"].int64_list.value) == VALUES["b"].tolist()
    assert list(parsed["a"].float_list.value) == [0.5, -2.0]
    assert list(parsed["空"].int64_list.value) == []

    records = serialize_examples({"ids": np.array([[2, 300], [2, 9]], np.int32),
                                  "weights": np.array([[1], [0]], np.float32)})
    (tmp_path / "x.tfrecord").write_bytes(b"".join(map(frame, records)))
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = tf.data.TFRecordDataset(str(tmp_path / "x.tfrecord"))
        record = tf.data.make_one_shot_iterator(dataset).get_next()
        assert [session.run(record), session.run(record)] == records
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(record)

    unpacked = tf.train.Example()
    unpacked.features.feature["x"].int64_list.value.extend([3, -4])
    unpacked.features.feature["y"].float_list.value.extend([0.25])
    decoded = deserialize_example(unpacked.SerializeToString())
    assert decoded["x"].tolist() == [3, -4] and decoded["y"].tolist() == [0.25]


@given(st.dictionaries(st.text(max_size=5), ARRAYS, min_size=1, max_size=4))
def test_decoding_undoes_encoding(values):
    decoded = deserialize_example(serialized(values))
    assert sorted(decoded) == sorted(values)
    for name, array in values.items():
        np.testing.assert_array_equal(decoded[name], array)
        assert decoded[name].dtype == (np.float32 if array.dtype == np.float32 else np.int64)


def test_equal_values_equal_bytes():
    assert serialized(VALUES) == serialized(dict(reversed(list(VALUES.items()))))
    assert serialized({"x": np.array([1], np.int32)}) == serialized({"x": np.array([1], np.int64)})


def field(number, payload):
    return bytes([number << 3 | 2, len(payload)]) + payload


def example_of(*features, more=b""):
    return field(1, b"".join(field(1, field(1, b"x") + more + field(2, feature)) for feature in features))


@pytest.mark.parametrize("record, values", [
    (example_of(field(3, b"\x08\x07\x08\x81\x02")), [7, 257]),                                # not packed
    (example_of(field(3, field(1, b"\x07") + b"\x08\x08" + field(1, b"\x09"))), [7, 8, 9]),     # both
    (example_of(field(3, field(1, b"\x07")) + field(3, field(1, b"\x08"))), [7, 8]),  # in two lists
    (example_of(field(2, field(1, b"1234")) + field(3, field(1, b"\x08"))), [8]),  # of two kinds
    (example_of(field(3, field(1, b"\x08")) + field(1, field(1, b"bytes"))), []),
    (example_of(field(3, field(1, b"\x07")), field(3, field(1, b"\x08"))), [8]),                # a name twice
    (example_of(field(3, field(1, b"\x07")) + b"\x38\x01" + field(9, b"?"), more=b"\x3d1234\x391234567\x08"),
     [7]),    # unknown fields
    (example_of(field(3, field(1, b"\xff" * 9 + b"\x7f"))), [-1]),  # 70 bits, of which 64 count
    (example_of(field(2, b"\x0d\x00\x00\x80\x3f" + field(1, b"\x00\x00\x00\x40"))), [1.0, 2.0]),
    (example_of(b""), []),
])
def test_examples_as_other_tools_may_write_them(record, values):
    assert deserialize_example(record)["x"].tolist() == values
    for again in (rewritten(record, {"x"}), rewritten(rewritten(record, {"x"}), {"x"})):
        assert deserialize_example(again)["x"].tolist() == values
    if values not in ([], [-1]):
        array = np.array(values, np.float32 if isinstance(values[0], float) else np.int64)
        assert rewritten(record, {"x"}) == serialized({"x": array})
    assert deserialize_example(rewritten(record, ())) == {}


def test_what_the_builder_wrote_is_rewritten_as_it_stood():
    assert rewritten(serialized(VALUES), VALUES) == serialized(VALUES)
    assert rewritten(serialized(VALUES), {"a"}) == serialized({"a": VALUES["a"]})


def test_any_bytes_are_refused_or_read_as_tensorflow_s_messages_read_them():
    import tensorflow.compat.v1 as tf
    from google.protobuf.message import DecodeError
    num_read = 0
    for seed in range(3000):
        rng = np.random.RandomState(seed)
        damaged = bytearray(example_of(field(3, field(1, b"\x07\x81\x02")), field(
            2, b"\x0d1234" + field(1, b"12345678"))) + field(9, b"?"))
        for _ in range(rng.randint(1, 4)):
            place = rng.randint(len(damaged))
            damaged[place:place + rng.randint(2)] = rng.choice([bytes([rng.randint(256)]), b"",
                                                                b"\x0a\x01\x07", b"\x08\x07"])
        try:
            safe = rewritten(bytes(damaged), {"x", ""})
        except ValueError:
            continue
        wanted, found = tf.train.Example(), tf.train.Example.FromString(safe)
        try:
            wanted.MergeFromString(bytes(damaged))
        except DecodeError:  # for the sake of a list that another one replaces, which nobody reads here
            continue
        num_read += 1
        for name in ("x", ""):
            read = [feature.features.feature[name] for feature in (wanted, found)]
            for kind in ("int64_list", "float_list"):
                assert len({getattr(feature, kind).SerializeToString()
                            for feature in read}) == 1, bytes(damaged)
    assert num_read > 200


@pytest.mark.parametrize("record", [
    b"\xff", b"\x0a\x05abc", serialized(VALUES)[:-1], b"\x0b\x00", b"\x0a\x05\x0a\x03\x0a\x01\xff",
    b"\x00\x01", b"\x3d123", b"\x39\x00",
    example_of(field(3, field(1, b"\x80"))), example_of(field(3, field(1, b"\x80") + field(1, b"\x01"))),
    example_of(field(2, field(1, b"123"))), example_of(field(2, field(1, b"12") + field(1, b"34"))), b"\x0c",
    b"\x0b\x0c",
    b"\x0a\x17\x0a\x15\x0a\x01x\x12\x10\x1a\x0e\x0a\x0c" + b"\xff" * 11 + b"\x01",    # a number of 78 bits
])
def test_what_is_no_example(record):
    with pytest.raises(ValueError):
        deserialize_example(record)


@given(st.integers(0, len(serialized(VALUES)) - 1), st.integers(1, 255))
def test_a_damaged_example_decodes_or_is_refused(place, change):
    damaged = bytearray(serialized(VALUES))
    damaged[place] ^= change
    try:
        assert isinstance(deserialize_example(bytes(damaged)), dict)
    except ValueError as error:
        assert str(error)


def test_frame_without_its_checksums():
    framed = frame(b"abc")
    assert framed[:8] == struct.pack("<Q", 3) and framed[12:15] == b"abc" and len(framed) == 19


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_frames_round_trip(records):
    assert frames_of(b"".join(map(frame, records))) == records


WHOLE = frame(b"first") + frame(b"second")


@pytest.mark.parametrize("data, message", [
    (WHOLE[:-1], "x.tfrecord: truncated in record 1: 9 of 10 bytes"),
    (WHOLE[:len(frame(b"first")) + 12], "x.tfrecord: truncated in record 1: 0 of 10 bytes"),
    (WHOLE[:len(frame(b"first")) + 5], "x.tfrecord: truncated in the header of record 1"),
    (WHOLE[:3], "x.tfrecord: truncated in the header of record 0"),
    (b"plain text, no records at all",
     "x.tfrecord: record 0: the length does not match its checksum: no TFRecord, or damaged"),
    (WHOLE.replace(b"second", b"sEcond"),
     "x.tfrecord: record 1 does not match its checksum: the file is damaged"),
    (WHOLE.replace(b"first", b"First"),
     "x.tfrecord: record 0 does not match its checksum: the file is damaged"),
])
def test_damage_names_file_and_record(data, message):
    with pytest.raises(UserError) as error:
        frames_of(data)
    assert str(error.value) == message


def header(length):
    data = struct.pack("<Q", length)
    return data + frame(data)[-4:]


class Counted(io.BytesIO):
    """Remembers the most that was asked for at once."""
    most = 0

    def read(self, size=-1):
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize("length, message", [
    (1 << 40, "claims to have 1099511627776 bytes, more than the 268435456 that are read"),
    ((1 << 64) - 1, "claims to have 18446744073709551615 bytes, more than the 268435456 that are read"),
    (1 << 28, "5 of 268435460 bytes"), (6, "5 of 10 bytes")])
def test_a_length_that_is_only_claimed_takes_no_memory(length, message):
    stream = Counted(frame(b"first") + header(length) + b"abcde")
    frames = read_frames(stream, "x")
    assert next(frames) == b"first"
    with pytest.raises(UserError, match="record 1.*" + message):
        next(frames)
    assert stream.most <= 1 << 20


def test_records_that_are_read_in_pieces():
    records = [bytes([number]) * ((1 << 20) + number - 6) for number in range(9)] + [b"x" * (5 << 20)]
    assert frames_of(b"".join(map(frame, records))) == records


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found(place, change):
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    with pytest.raises(UserError):
        frames_of(bytes(damaged))


def test_records_before_the_damage_are_given():
    frames = read_frames(io.BytesIO(WHOLE[:-1]), "x")
    assert next(frames) == b"first"
    with pytest.raises(UserError):
        next(frames)
