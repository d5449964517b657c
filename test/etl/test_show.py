import os
import shutil

import numpy as np
import pytest

from etl.show import main, render
from etl.tokenization import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary(list(SPECIAL_TOKENS) + ["我", "北", "京", "广"], "test")
VALUES = {name: np.array(values) for name, values in {
    "input_ids": [2, 5, 4, 8, 3, 5, 3, 0], "input_mask": [1, 1, 1, 1, 1, 1, 1, 0], "segment_ids": [0, 0, 0, 0, 0, 1, 1, 0],
    "masked_lm_positions": [2, 3, 5, 0], "masked_lm_ids": [6, 7, 5, 0], "masked_lm_weights": [1.0, 1.0, 1.0, 0.0],
    "next_sentence_labels": [1]}.items()}


def first_shard(folder):
    return os.path.join(folder, "tf_examples-00000-of-00002.tfrecord")


def test_render():
    assert render(VALUES, VOCABULARY) == (
        "  7 tokens, 3 predicted, sentence label 1\n"
        "  A: [CLS] 我 [北] [京→广] [SEP]\n"
        "  B: [我=] [SEP]")


def test_words_are_shown_where_the_record_knows_them():
    values = dict(VALUES, token_boundary=np.array([1, 1, 1, 0, 1, 1, 1, 0]))
    assert "  A: [CLS] 我 [北][京→广] [SEP]\n" in render(values, VOCABULARY)


def test_one_segment():
    values = dict(VALUES, segment_ids=np.zeros(8, np.int64))
    assert render(values, VOCABULARY).split("\n")[1:] == ["  A: [CLS] 我 [北] [京→广] [SEP] [我=] [SEP]"]


def test_limit_and_skip(built, capsys):
    assert main([first_shard(built), "--limit", "2", "--skip", "1"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.split("\n") if ": record " in line] == [first_shard(built) + ": record %d" % number for number in (1, 2)]
    assert "[UNK]" not in out


@pytest.mark.parametrize("content, message", [(b"text", "truncated in the header of record 0"), (None, "matches no file")])
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
