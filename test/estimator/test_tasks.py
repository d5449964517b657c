import numpy as np
import pytest

import tiny_training
from estimator import metrics, tasks
from estimator.tasks import TASKS, Example
from etl.command_line import UserError
from etl.tokenization import TokenizerConfig, load_tokenizer


def write(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(folder)


def read(task, folder, part="train"):
    return tasks.read_examples(TASKS[task], str(folder), part)


@pytest.mark.parametrize("content", ["天地\t山水\t1\n日\t月\t0\n", "天地\t山水\t1\r\n日\t月\t0",
                                     "\ufefftext_a\ttext_b\tlabel\n天地\t山水\t1\n日\t月\t0\n"])
def test_pairs(tmp_path, content):
    write(tmp_path, "train.tsv", content)
    for task in ("sentence_pair", "lcqmc", "afqmc"):
        assert read(task, tmp_path) == [Example("天地", "山水", "1"), Example("日", "月", "0")]


def test_other_line_separators_are_text(tmp_path):
    write(tmp_path, "train.tsv", "天\u2028地\t山\x0b水\t1\n")
    assert read("lcqmc", tmp_path) == [Example("天\u2028地", "山\x0b水", "1")]


def test_single_sentences(tmp_path):
    write(tmp_path, "dev.tsv", "label\ttext_a\n1\t风云雨\n0\t日月\n")
    for task in ("single_sentence", "chnsenticorp"):
        assert read(task, tmp_path, "dev") == [Example("风云雨", None, "1"), Example("日月", None, "0")]


def test_json_lines_come_before_columns(tmp_path):
    write(tmp_path, "train.json", '{"sentence1": "天", "sentence2": "地", "label": "1"}\n'
                                  '{"sentence1": "日", "sentence2": "月", "label": 0, "id": 7}\n')
    write(tmp_path, "train.tsv", "山\t水\t1\n")
    assert read("afqmc", tmp_path) == [Example("天", "地", "1"), Example("日", "月", "0")]


def test_labels_may_be_absent_in_test_alone(tmp_path):
    for part in ("test", "dev"):
        write(tmp_path, part + ".json", '{"id": 0, "sentence1": "天", "sentence2": "地"}\n')
        write(tmp_path, part + ".tsv", "天\t地\n")
    assert read("afqmc", tmp_path, "test") == read("lcqmc", tmp_path, "test") == [Example("天", "地", None)]
    with pytest.raises(UserError, match="dev.json: line 1: no label"):
        read("afqmc", tmp_path, "dev")
    with pytest.raises(UserError, match="dev.tsv: line 1: no label"):
        read("lcqmc", tmp_path, "dev")


@pytest.mark.parametrize("task, line, message", [
    ("lcqmc", "天地山水\n", r"wanted text_a, text_b and label separated by tabs, got 1 field\(s\)"),
    ("lcqmc", "\n", r"wanted text_a, text_b and label separated by tabs, got 1 field\(s\)"),
    ("lcqmc", "天\t地\t1\t0\n", r"wanted text_a, text_b and label separated by tabs, got 4 field\(s\)"),
    ("lcqmc", "天\t地\t2\n", "unknown label '2'; task lcqmc has 0, 1"),
    ("lcqmc", "天\t \u3000\t1\n", "text_b is empty"),
    ("lcqmc", "\t地\t1\n", "text_a is empty"),
    ("lcqmc", b"\xcc\xec\t\xb5\xd8\t1\n", "not UTF-8: "),
    ("chnsenticorp", "1\t天\t地\n", "wanted label and text_a separated by a tab, got 3 fields"),
    ("chnsenticorp", "天地\n", "no label"),
])
def test_a_bad_line_is_named(tmp_path, task, line, message):
    good = b"1\t\xe5\xa4\xa9\n" if task == "chnsenticorp" else b"\xe5\xa4\xa9\t\xe5\x9c\xb0\t1\n"
    write(tmp_path, "train.tsv", good + (line if isinstance(line, bytes) else line.encode("utf-8")))
    with pytest.raises(UserError, match="train.tsv: line 2: " + message):
        read(task, tmp_path)


@pytest.mark.parametrize("line, message", [
    ("天\t地\t1", "not JSON: "),
    ("[1]", "wanted a JSON object, got list"),
    ('{"sentence1": "天", "label": "1"}', "wanted a text sentence2, got None"),
    ('{"sentence1": 3, "sentence2": "地"}', "wanted a text sentence1, got 3"),
])
def test_a_bad_json_line_is_named(tmp_path, line, message):
    write(tmp_path, "train.json", line + "\n")
    with pytest.raises(UserError, match="train.json: line 1: " + message):
        read("afqmc", tmp_path)


def test_files_that_are_missing_or_empty(tmp_path):
    with pytest.raises(UserError, match="task afqmc: no such file: .*dev.json or .*dev.tsv"):
        read("afqmc", tmp_path, "dev")
    write(tmp_path, "dev.tsv", "text_a\ttext_b\tlabel\n")
    with pytest.raises(UserError, match="dev.tsv: holds no example"):
        read("lcqmc", tmp_path, "dev")


def test_examples_become_arrays(tmp_path):
    tokenizer = load_tokenizer(TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt")))
    examples = [Example("天地人", "山", "是"), Example("水", None, None), Example("天地人山水火木", "天地人山水火木", "否")]
    arrays = tasks.encode_examples(examples, tokenizer, 8, ("否", "是"))
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "input_ids": (np.int32, (3, 8)), "input_mask": (np.int32, (3, 8)), "segment_ids": (np.int32, (3, 8)),
        "label_ids": (np.int32, (3,))}
    assert arrays["input_ids"].tolist() == [[2, 5, 6, 7, 3, 8, 3, 0],
                                            [2, 9, 3, 0, 0, 0, 0, 0],
                                            [2, 5, 6, 7, 3, 5, 6, 3]]
    assert arrays["input_mask"].tolist() == [[1] * 7 + [0], [1] * 3 + [0] * 5, [1] * 8]
    assert arrays["segment_ids"].tolist() == [[0] * 5 + [1, 1, 0], [0] * 8, [0] * 5 + [1] * 3]
    assert arrays["label_ids"].tolist() == [1, 0, 0]


def test_every_task_names_a_metric_that_exists():
    assert {name for name, task in TASKS.items() if task.metric not in metrics.BY_NAME or task.name != name} == set()
