import json
import os

import pytest

from etl import manifest
from etl.command_line import UserError
from etl.manifest import Manifest, Shard
from etl.tokenization import TokenizerConfig

BUILT = Manifest(
    train=(Shard("tf_examples-00000-of-00001.tfrecord", 2, 90, "ab"),), eval=(), max_seq_length=8, max_predictions_per_seq=2,
    tokenizer=TokenizerConfig("vocab.txt", False), vocab_size=21, vocab_sha256="cd", features=(("input_ids", "int64", 8),),
    flags={"random_seed": 1}, inputs=({"path": "a.txt", "bytes": 3},), versions={"python": "3.7.16"}, counters={"documents": 1})


@pytest.fixture
def folder(tmp_path):
    manifest.write(str(tmp_path), BUILT)
    return str(tmp_path)


def change(folder, **changes):
    path = os.path.join(folder, "manifest.json")
    fields = json.load(open(path, encoding="utf-8"))
    fields.update(changes)
    json.dump({name: value for name, value in fields.items() if value != "gone"}, open(path, "w"))


def test_round_trip_puts_the_folder_before_the_vocabulary(folder):
    read = manifest.read(folder)
    assert read.tokenizer == TokenizerConfig(os.path.join(folder, "vocab.txt"), False)
    assert read.train == BUILT.train and read.features == BUILT.features and read.inputs == BUILT.inputs
    assert (read.eval, read.max_seq_length, read.max_predictions_per_seq, read.vocab_size, read.vocab_sha256, read.flags,
            read.versions, read.counters) == ((), 8, 2, 21, "cd", BUILT.flags, BUILT.versions, BUILT.counters)


def test_later_fields_are_not_minded(folder):
    change(folder, later=1)
    assert manifest.read(folder).vocab_size == 21


@pytest.mark.parametrize("changes, message", [
    ({"format": "other/1"}, "not a manifest of format chinese-albert-pretraining-data/1"),
    ({"format": "gone"}, "not a manifest of format chinese-albert-pretraining-data/1"),
    ({"eval": "gone", "counters": "gone"}, "missing field counters, eval"),
    ({"tokenizer": {"vocab_file": None}}, "vocab_file or spm_model_file must be given, got neither"),
    ({"train": [{"path": "a"}]}, "missing 3 required positional arguments"),
    ({"train": 3}, "'int' object is not iterable"),
])
def test_bad_manifest_names_the_file(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(UserError) as error:
        manifest.read(folder)
    assert str(error.value).startswith(os.path.join(folder, "manifest.json") + ": ")
    assert message in str(error.value)


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="manifest.json: no such file; python -m etl.build_pretrain writes it"):
        manifest.read(str(tmp_path))


def test_a_list_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        manifest.read(str(tmp_path))
