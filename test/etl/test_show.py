import os
import shutil

import numpy as np
import pytest

from etl.show import main, render
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer

TOKENIZER = WordPieceTokenizer(
    Vocabulary(list(SPECIAL_TOKENS) + ["我", "北", "京", "广", "ab", "##c"], "test"), True)
VALUES = {name: np.array(values) for name, values in {
    "input_ids": [2, 5, 4, 8, 3, 5, 3, 0], "input_mask": [1, 1, 1, 1, 1, 1, 1, 0],
    "segment_ids": [0, 0, 0, 0, 0, 1, 1, 0], "masked_lm_positions": [2, 3, 5, 0],
    "masked_lm_ids": [6, 7, 5, 0], "masked_lm_weights": [1.0, 1.0, 1.0, 0.0],
    "next_sentence_labels": [1]}.items()}


def first_shard(folder):
    return os.path.join(folder, "tf_examples-00000-of-00002.tfrecord")


def test_render():
    assert render(VALUES, TOKENIZER) == (
        "  7 tokens, 3 predicted, sentence label 1\n"
        "  A: [CLS] 我 [北] [京→广] [SEP]\n"
        "  B: [我=] [SEP]")


def test_words_are_shown_where_the_record_knows_them():
    values = dict(VALUES, token_boundary=np.array([1, 1, 1, 0, 1, 1, 1, 0]))
    assert "  A: [CLS] 我 [北]·[京→广] [SEP]\n" in render(values, TOKENIZER)


@pytest.mark.parametrize("objective, label, shown", [
    ("order", 0, "0 (in order)"), ("order", 1, "1 (swapped)"), ("next", 0, "0 (the next)"),
    ("next", 1, "1 (random)"), ("none", 0, "0"), (None, 1, "1")])
def test_what_the_label_means(objective, label, shown):
    values = dict(VALUES, next_sentence_labels=np.array([label]))
    assert render(values, TOKENIZER,
                  objective).split("\n")[0] == "  7 tokens, 3 predicted, sentence label " + shown


def test_pieces_stay_with_their_word():
    values = dict(VALUES, input_ids=np.array([2, 9, 10, 5, 9, 4, 3, 0]), segment_ids=np.zeros(8, np.int64),
                  masked_lm_positions=np.array([4, 5, 0, 0]), masked_lm_ids=np.array([9, 10, 0, 0]),
                  masked_lm_weights=np.array([1.0, 1, 0, 0]))
    assert render(values, TOKENIZER).split("\n")[1:] == ["  A: [CLS] ab##c 我 [ab=]·[##c] [SEP]"]


@pytest.mark.parametrize("flags, message", [(["--limit", "0"], "limit must be at least 1, got 0"),
                                            (["--skip", "-1"], "skip must be at least 0, got -1")])
def test_bad_flags(capsys, flags, message):
    with pytest.raises(SystemExit):
        main(flags)
    assert capsys.readouterr().err == "etl.show: error: %s (see --help)\n" % message


def test_no_record(built, tmp_path, capsys):
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    vocab_file = os.path.join(built, "vocab.txt")
    assert main([str(tmp_path / "empty.tfrecord"), "--vocab_file", vocab_file]) == 0
    assert main([first_shard(built), "--skip", "99999"]) == 0
    assert (capsys.readouterr().out
            == "%s/empty.tfrecord: no record\n\n%s: no record after the first 99999\n\n" % (
                tmp_path, first_shard(built)))


def test_one_segment():
    values = dict(VALUES, segment_ids=np.zeros(8, np.int64))
    assert render(values, TOKENIZER).split("\n")[1:] == ["  A: [CLS] 我 [北] [京→广] [SEP] [我=] [SEP]"]


def test_limit_and_skip(built, capsys):
    assert main([first_shard(built), "--limit", "2", "--skip", "1"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.split("\n") if ": record " in line] == [
        first_shard(built) + ": record %d" % number for number in (1, 2)]
    assert "[UNK]" not in out


@pytest.mark.parametrize("content, message",
                         [(b"text", "truncated in the header of record 0"), (None, "matches no file")])
def test_bad_file_is_one_line(built, tmp_path, capsys, content, message):
    folder = str(tmp_path / "copy")
    shutil.copytree(built, folder)
    os.remove(first_shard(folder))
    if content:
        with open(first_shard(folder), "wb") as stream:
            stream.write(content)
    assert main([first_shard(folder)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
