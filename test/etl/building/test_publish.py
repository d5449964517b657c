import json
import os
import shutil

import pytest

from etl.building.publish import verify
from etl.common.command_line import UserError
from etl.records.examples import frame


@pytest.fixture
def folder(built, tmp_path):
    copy = str(tmp_path / "copy")
    shutil.copytree(built, copy)
    return copy


def first_shard(folder):
    return os.path.join(folder, "tf_examples-00000-of-00002.tfrecord")


def change_manifest(folder, change):
    path = os.path.join(folder, "manifest.json")
    with open(path, encoding="utf-8") as stream:
        fields = json.load(stream)
    change(fields)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(fields, stream)


def replace_first_shard(folder, content):
    with open(first_shard(folder), "wb") as stream:
        stream.write(content)
    change_manifest(folder, lambda fields: fields["train"][0].__setitem__("bytes", len(content)))


def failure(folder):
    with pytest.raises(UserError) as error:
        verify(folder)
    return str(error.value)


def test_a_build_is_as_its_manifest_says(built):
    assert verify(built).startswith("%s: 3 shards, " % built)
    assert verify(built).endswith(" MB: all as the manifest says")


def test_missing_shard(folder):
    os.remove(first_shard(folder))
    assert failure(folder) == first_shard(folder) + ": missing, but the manifest lists it"


def test_truncated_shard(folder):
    size = os.path.getsize(first_shard(folder))
    os.truncate(first_shard(folder), size - 1)
    assert failure(folder) == first_shard(folder) + ": has %d bytes, the manifest says %d" % (size - 1, size)


@pytest.mark.parametrize("name", ["tf_examples-00002-of-00003.tfrecord",
                                  "eval/tf_examples-00001-of-00002.tfrecord"])
def test_shard_of_another_build(folder, name):
    shutil.copy(first_shard(folder), os.path.join(folder, name))
    assert failure(folder) == os.path.join(folder, name) + ": not in the manifest"


def test_damaged_record(folder):
    with open(first_shard(folder), "r+b") as stream:
        stream.seek(40)
        byte = stream.read(1)[0]
        stream.seek(40)
        stream.write(bytes([byte ^ 1]))
    assert (failure(folder)
            == first_shard(folder) + ": record 0 does not match its checksum: the file is damaged")


def test_record_of_another_shape(folder):
    change_manifest(folder, lambda fields: fields["features"].__setitem__(2, ["segment_ids", "int64", 25]))
    assert failure(folder).endswith(": record 0: feature segment_ids has 24 values, the manifest says 25")


def test_record_that_is_no_example(folder):
    replace_first_shard(folder, frame(b"\xff"))
    assert failure(folder) == first_shard(folder) + ": record 0: not a serialized tf.train.Example"


def test_record_without_a_feature(folder):
    replace_first_shard(folder, frame(b"\x0a\x00"))
    assert failure(folder).endswith(": record 0: feature input_ids has 0 values, the manifest says 24")


def test_records_of_another_build(folder):
    with open(os.path.join(folder, "tf_examples-00001-of-00002.tfrecord"), "rb") as stream:
        replace_first_shard(folder, stream.read())
    assert failure(folder).startswith(first_shard(folder) + ": sha256 is ")


def test_number_of_records(folder):
    change_manifest(folder, lambda fields: fields["train"][0].__setitem__("records", 7))
    assert failure(folder).endswith(" records, the manifest says 7")


def test_another_vocabulary(folder):
    with open(os.path.join(folder, "vocab.txt"), "a") as stream:
        stream.write("x\n")
    assert failure(folder) == os.path.join(folder,
                                           "vocab.txt") + ": not the vocabulary that the manifest names"


def test_size_of_the_vocabulary(folder):
    change_manifest(folder, lambda fields: fields.__setitem__("vocab_size", 7))
    assert failure(folder).startswith(os.path.join(folder, "vocab.txt") + ": holds ")
    assert failure(folder).endswith(" entries, the manifest says 7")


def test_nothing_to_verify(tmp_path):
    assert "manifest.json: no such file" in failure(str(tmp_path))
