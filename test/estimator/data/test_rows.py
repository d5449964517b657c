import gc

import numpy as np
import pytest

import tiny_training
from estimator.data import rows as module
from estimator.data.rows import RowsConfig
from estimator.data.tasks import Example
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig

PAIR = [Example("天地人", "山", "是"), Example("水", None, None),
        Example("天地人山水火木", "天地人山水火木", "否")]


@pytest.fixture
def tokenizer(tmp_path):
    return TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))


def test_examples_become_rows_without_padding(tokenizer):
    rows = module.make_rows(PAIR, RowsConfig(tokenizer, 8, labels=("否", "是")))
    assert rows.starts.tolist() == [0, 7, 10, 18] and rows.lengths.tolist() == [7, 3, 8]
    assert rows.input_ids.tolist() == [2, 5, 6, 7, 3, 8, 3, 2, 9, 3, 2, 5, 6, 7, 3, 5, 6, 3]
    assert rows.label_ids.tolist() == [1, 0, 0] and rows.label_ids.dtype == np.int32
    batch = rows.batch(np.array([1, 0]))
    assert {name: (array.dtype, array.tolist()) for name, array in batch.items()} == {
        "input_ids": (np.int32, [[2, 9, 3, 0, 0, 0, 0], [2, 5, 6, 7, 3, 8, 3]]),
        "input_mask": (np.int32, [[1] * 3 + [0] * 4, [1] * 7]),
        "segment_ids": (np.int32, [[0] * 7, [0] * 5 + [1] * 2]),
        "label_ids": (np.int32, [0, 1])}
    assert rows.batch(np.array([2]), 10)["input_mask"].tolist() == [[1] * 8 + [0] * 2]


def test_a_regressions_labels_are_numbers(tokenizer):
    rows = module.make_rows([Example("天", "地", "3.8"), Example("天", "地", None)], RowsConfig(tokenizer, 8))
    assert rows.label_ids.tolist() == pytest.approx([3.8, 0]) and rows.label_ids.dtype == np.float32


def test_a_long_text_is_read_through_windows(tokenizer):
    examples = [Example("天地人山水", None, "是"), Example("火", None, "否")]
    rows = module.make_rows(examples, RowsConfig(tokenizer, 5, 2, ("否", "是")))
    assert [rows.input_ids[begin:end].tolist() for begin, end in zip(rows.starts, rows.starts[1:])] == [
        [2, 5, 6, 7, 3], [2, 7, 8, 9, 3], [2, 10, 3]]
    assert rows.example_numbers.tolist() == [0, 0, 1] and rows.label_ids.tolist() == [1, 1, 0]
    assert rows.first_rows.tolist() == [0, 2]


def test_rows_are_kept_under_all_they_depend_on(tokenizer, tmp_path):
    config, folder = RowsConfig(tokenizer, 8, None, ("否", "是")), str(tmp_path / "cache")
    path = module.cache_path(PAIR, config, folder)
    rows = module.load_or_make_rows(PAIR, config, folder, module.make_rows)
    assert not (tmp_path / "cache").exists()
    module.save(rows, path)
    for kept, made in zip(module.load_or_make_rows(PAIR, config, folder, module.make_rows), rows):
        assert kept.dtype == made.dtype and (kept == made).all()
    (tmp_path / "other.txt").write_text("\n".join(tiny_training.TOKENS[:-1] + ("雪",)) + "\n",
                                        encoding="utf-8")
    others = [(PAIR[:2], config), ([PAIR[0]._replace(text_b="水")] + PAIR[1:], config),
              ([PAIR[0]._replace(label="否")] + PAIR[1:], config),
              (PAIR, config._replace(max_seq_length=9)),
              (PAIR, config._replace(doc_stride=3)), (PAIR, config._replace(labels=("是", "否"))),
              (PAIR, config._replace(tokenizer=TokenizerConfig(str(tmp_path / "other.txt")))),
              (PAIR, config._replace(tokenizer=TokenizerConfig(tokenizer.vocab_file, do_lower_case=False)))]
    assert len({module.cache_path(*other, folder) for other in others} | {path}) == len(others) + 1


def test_a_damaged_file_is_named(tokenizer, tmp_path, capsys):
    config = RowsConfig(tokenizer, 8, labels=("否", "是"))
    path = module.cache_path(PAIR, config, str(tmp_path))
    module.save(module.make_rows(PAIR, config), path)
    with open(path, "rb") as stream:
        whole = stream.read()
    for content in (b"", b"PK\x03\x04 cut off", whole[:len(whole) // 2], whole[:-40] + b"\xff" * 40):
        with open(path, "wb") as stream:
            stream.write(content)
        with pytest.raises(UserError, match="npz: cannot be read, remove it: "):
            module.load_or_make_rows(PAIR, config, str(tmp_path), module.make_rows)
    gc.collect()                               # what is left half-made complains when it goes
    assert capsys.readouterr().err == ""
