import json
import os

import pytest

from etl.common.command_line import UserError
from etl.records import manifest
from etl.records.manifest import Manifest, Shard
from etl.text.tokenization import TokenizerConfig

BUILT = Manifest(
    train=(Shard("tf_examples-00000-of-00001.tfrecord", 2, 90, "ab"),), eval=(), max_seq_length=8,
    max_predictions_per_seq=2, tokenizer=TokenizerConfig("vocab.txt", False), vocab_size=21,
    vocab_sha256="cd", features=(("input_ids", "int64", 8), ("masked_lm_ids", "int64", 2)),
    flags={"random_seed": 1}, inputs=({"path": "a.txt", "bytes": 3},), versions={"python": "3.7.16"},
    counters={"documents": 1})


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
    assert (read.eval, read.max_seq_length, read.max_predictions_per_seq, read.vocab_size, read.vocab_sha256,
            read.flags,
            read.versions, read.counters) == ((), 8, 2, 21, "cd", BUILT.flags, BUILT.versions, BUILT.counters)


def test_later_fields_are_not_minded(folder):
    change(folder, later=1)
    assert manifest.read(folder).vocab_size == 21


@pytest.mark.parametrize("changes, message", [
    ({"format": "other/1"}, "not a manifest of format chinese-albert-pretraining-data/1"),
    ({"format": "gone"}, "not a manifest of format chinese-albert-pretraining-data/1"),
    ({"eval": "gone", "counters": "gone"}, "missing field eval, counters"),
    ({"tokenizer": {"vocab_file": None, "do_lower_case": True, "spm_model_file": None}},
     "vocab_file or spm_model_file must be given, got neither"),
    ({"tokenizer": {"vocab_file": "a\0b", "do_lower_case": True, "spm_model_file": None}},
     "the name of a file holds a NUL character, which no name can have: 'a\\x00b'"),
    ({"train": [{"path": "\ud800", "records": 1, "bytes": 1, "sha256": ""}]},
     "the name of a file holds half a surrogate pair, which is no character: '\\ud800'"),
    ({"tokenizer": {"vocab_file": "x"}}, "missing field tokenizer.do_lower_case, tokenizer.spm_model_file"),
    ({"tokenizer": {"vocab_file": 3, "do_lower_case": True, "spm_model_file": None}},
     "tokenizer.vocab_file must be a string, got 3"),
    ({"train": [{"path": "a"}]}, "missing field train[0].records, train[0].bytes, train[0].sha256"),
    ({"train": 3}, "train must be a list, got 3"),
    ({"train": [{"path": 3, "records": 1, "bytes": 1, "sha256": ""}]},
     "train[0].path must be a string, got 3"),
    ({"eval": [{"path": "a", "records": 1, "bytes": "x", "sha256": ""}]},
     "eval[0].bytes must be an integer of at least 0, got 'x'"),
    ({"max_seq_length": "512"}, "max_seq_length must be an integer of at least 0, got '512'"),
    ({"max_predictions_per_seq": True}, "max_predictions_per_seq must be an integer of at least 0, got True"),
    ({"vocab_size": -1}, "vocab_size must be an integer of at least 0, got -1"),
    ({"vocab_size": 1 << 63}, "vocab_size must be an integer of at least 0, got 9223372036854775808"),
    ({"flags": None}, "flags must be an object, got None"),
    ({"inputs": ["a"]}, "inputs[0] must be an object, got 'a'"),
    ({"features": [["input_ids", "int64"]]}, "features[0] must hold 3 values, got 2"),
    ({"features": ["input_ids"]}, "features[0] must be a list, got 'input_ids'"),
    ({"features": [["input_ids", "int64", "8"]]}, "features[0][2] must be an integer of at least 0, got '8'"),
    ({"max_seq_length": 9}, "features must hold input_ids of length 9, which is max_seq_length, got 8"),
    ({"features": [["input_ids", "int64", 8]]},
     "features must hold masked_lm_ids of length 2, which is max_predictions_per_seq, got None"),])
def test_bad_manifest_names_the_file(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(UserError) as error:
        manifest.read(folder)
    assert str(error.value) == "%s: %s" % (os.path.join(folder, "manifest.json"), message)


def test_no_manifest(tmp_path):
    with pytest.raises(UserError,
                       match="manifest.json: no such file; python -m etl.build_pretrain writes it"):
        manifest.read(str(tmp_path))


def test_a_list_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        manifest.read(str(tmp_path))
