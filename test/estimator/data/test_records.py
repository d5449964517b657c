import os

import numpy as np
import pytest

import tiny_training
from estimator.data import records
from etl.common.command_line import UserError
from etl.records.examples import pretraining_features
from etl.text.tokenization import TokenizerConfig
from tiny_training import record_values, write_records

FEATURES = pretraining_features(tiny_training.SEQ_LENGTH, tiny_training.PREDICTIONS)


@pytest.fixture
def build(tmp_path):
    return tiny_training.write_build(tmp_path / "data")


@pytest.fixture
def tokenizer(tmp_path):
    return TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))


def test_a_build_says_everything(build):
    data = records.from_build(build, max_seq_length=8)
    assert data.train_files == tuple(os.path.join(build, "tf_examples-0000%d-of-00002.tfrecord" % n)
                                     for n in (0, 1))
    assert data.eval_files == (os.path.join(build, "eval", "tf_examples-00000-of-00001.tfrecord"),)
    assert (data.num_train_records, data.num_eval_records) == (20, 5)
    assert (data.max_seq_length, data.max_predictions_per_seq, data.vocab_size) == (8, 2, 20)
    assert data.tokenizer == TokenizerConfig(os.path.join(build, "vocab.txt"))
    assert data.features == FEATURES
    assert data.has_sentence_order and len(data.manifest_sha256) == 64


def test_a_build_of_single_segments_has_no_sentence_order(tmp_path):
    folder = tiny_training.write_build(tmp_path / "data", flags={"sentence_objective": "none"})
    assert not records.from_build(folder).has_sentence_order


@pytest.mark.parametrize("objective, counters, tells_cuts", [
    ("order", {"cut_samples": 0}, True), ("order", {}, False), ("none", {"cut_samples": 0}, False)])
def test_a_build_may_tell_which_samples_are_cut(tmp_path, objective, counters, tells_cuts):
    folder = tiny_training.write_build(tmp_path / "data", flags={"sentence_objective": objective},
                                       counters=counters)
    data = records.from_build(folder)
    assert data.tells_cuts == tells_cuts
    assert [feature.name for feature in data.eval_features[len(data.features):]] == [
        "cut_inside_sentence"] * tells_cuts


@pytest.mark.parametrize("lengths, message", [
    (dict(max_seq_length=128), "--max_seq_length is 128, but the records have 8, says .*manifest.json"),
    (dict(max_predictions_per_seq=20), "--max_predictions_per_seq is 20, but the records have 2, says"),
])
def test_another_length_than_the_manifests_names_both(build, lengths, message):
    with pytest.raises(UserError, match=message):
        records.from_build(build, **lengths)


def test_folders_that_are_no_build(tmp_path):
    with pytest.raises(UserError, match="manifest.json: no such file; python -m etl.build_pretrain"):
        records.from_build(str(tmp_path))
    (tmp_path / ".work").mkdir()
    with pytest.raises(UserError,
                       match="holds an unfinished build: run the same python -m etl.build_pretrain again"):
        records.from_build(str(tmp_path))


def test_another_vocabulary_than_the_records_is_refused(build):
    with open(os.path.join(build, "vocab.txt"), "a") as stream:
        stream.write("more\n")
    with pytest.raises(UserError, match="vocab.txt: not the vocabulary that the records were made with"):
        records.from_build(build)


def test_shards_that_are_missing_or_cut_off(build):
    shard = os.path.join(build, "tf_examples-00001-of-00002.tfrecord")
    size = os.path.getsize(shard)
    with open(shard, "ab") as stream:
        stream.truncate(size - 1)
    with pytest.raises(UserError, match="00001-of-00002.tfrecord: %d bytes, but .* says %d"
                       % (size - 1, size)):
        records.from_build(build)
    os.remove(shard)
    with pytest.raises(UserError, match=r"00001-of-00002.tfrecord: no such file, but the manifest lists it"):
        records.from_build(build)


def test_files_of_older_tools_are_counted(tmp_path, tokenizer):
    for name, count in (("a.tfrecord", 3), ("b.tfrecord", 4), ("eval.tfrecord", 2)):
        write_records(tmp_path / name, [record_values(number) for number in range(count)])
    data = records.from_files([str(tmp_path / "[ab].tfrecord")], [str(tmp_path / "eval.tfrecord")], 8, 2,
                              tokenizer)
    assert (data.num_train_records, data.num_eval_records) == (7, 2)
    assert data.train_files == (str(tmp_path / "a.tfrecord"), str(tmp_path / "b.tfrecord"))
    assert data.vocab_size == 20 and data.manifest_sha256 is None


def test_files_without_a_manifest_need_flags(tmp_path, build, tokenizer):
    path = write_records(tmp_path / "a.tfrecord", [record_values(0)])
    with pytest.raises(UserError, match="do not say how they were made: give --max_seq_length, --vocab_file, "
                                        "--max_predictions_per_seq$"):
        records.from_files([path], [], None, None, None)
    with pytest.raises(UserError,
                       match="give --max_seq_length; or give the folder itself, --input_file .*/data"):
        records.from_files([os.path.join(build, "*.tfrecord")], [], None, 2, tokenizer)


def test_files_without_a_record(tmp_path, tokenizer):
    path = write_records(tmp_path / "a.tfrecord", [])
    with pytest.raises(UserError, match="a.tfrecord: has no records"):
        records.from_files([path], [], 8, 2, tokenizer)


def test_files_of_another_length(tmp_path, tokenizer):
    path = write_records(tmp_path / "a.tfrecord", [record_values(0, seq_length=10)])
    with pytest.raises(UserError, match="a.tfrecord: record 0: feature input_ids holds 10 values, wanted 8"):
        records.from_files([path], [], 8, 2, tokenizer)


@pytest.mark.parametrize("changes, message", [
    ({"segment_ids": None}, "feature segment_ids is missing"),
    ({"masked_lm_ids": np.zeros(3, np.int64)}, "feature masked_lm_ids holds 3 values, wanted 2"),
    ({"masked_lm_weights": np.ones(2, np.int64)}, "feature masked_lm_weights is int64, wanted float32"),
    ({"masked_lm_ids": np.array([20, 0])}, r"feature masked_lm_ids must be in \[0, 20\), got 20"),
    ({"input_ids": np.full(8, -1)}, r"feature input_ids must be in \[0, 20\), got -1"),
    ({"masked_lm_positions": np.array([8, 0])}, r"feature masked_lm_positions must be in \[0, 8\), got 8"),
    ({"segment_ids": np.full(8, 2)}, r"feature segment_ids must be in \[0, 2\), got 2"),
    ({"masked_lm_weights": np.array([-1, 0], np.float32)},
     r"feature masked_lm_weights must be in \[0, inf\), got -1.0"),
    ({"masked_lm_weights": np.array([np.nan, 0], np.float32)},
     r"feature masked_lm_weights must be in \[0, inf\), got nan"),])
def test_check_all_finds_the_one_bad_record(tmp_path, changes, message):
    bad = {name: value for name, value in dict(record_values(2), **changes).items() if value is not None}
    paths = [write_records(tmp_path / "a.tfrecord", [record_values(0)]),
             write_records(tmp_path / "b.tfrecord", [record_values(1), bad])]
    records.check_all(paths[:1], FEATURES, vocab_size=20)
    with pytest.raises(UserError, match="b.tfrecord: record 1: " + message):
        records.check_all(paths, FEATURES, vocab_size=20)


def test_label_counts_leave_padding_out_and_are_bounded(build):
    data = records.from_build(build)
    assert records.label_counts(data.train_files, data,
                                max_records=1000).tolist() == [0] * 5 + [2] * 5 + [1] * 10
    assert records.label_counts(data.train_files, data, max_records=6).sum() == 6


def test_a_record_that_is_no_example():
    with pytest.raises(UserError, match="here: not a serialized tf.train.Example"):
        records.check_record(b"\xff\xff", FEATURES, 20, "here")
