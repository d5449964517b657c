import dataclasses
import json

import pytest

from estimator.data import label_lists, tasks
from estimator.data.tasks import TASKS, Example
from etl.common.command_line import UserError

TASK = TASKS["multi_label"]


def read(folder, part="train", task=TASK, separator="|"):
    return label_lists.read_label_lists(task, str(folder), part, separator)


def test_labels_in_a_column(tmp_path):
    rows = "label,content\n灾害/意外-洪灾| 人生-死亡,洪水来了\n,晴\n"
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
    assert read(tmp_path) == [Example("洪水来了", None, ("灾害/意外-洪灾", "人生-死亡")),
                              Example("晴", None, ())]
    assert label_lists.found_labels(read(tmp_path)) == ("灾害/意外-洪灾", "人生-死亡")
    assert read(tmp_path, separator="/")[0].label == ("灾害", "意外-洪灾| 人生-死亡")


def test_labels_in_a_list(tmp_path):
    rows = [{"text_a": "天", "label": ["x", 3], "id": "q"}, {"text_a": "地", "label": []},
            {"text_a": "人", "label": "x|y"}]
    (tmp_path / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read(tmp_path) == [Example("天", None, ("x", "3"), "q"), Example("地", None, ()),
                              Example("人", None, ("x", "y"))]


def test_columns_by_name_and_by_number(tmp_path):
    (tmp_path / "train.tsv").write_text("天\tx,y\n地\ty\n", encoding="utf-8")
    task = tasks.with_columns(TASK, {"text_a": "1", "label": "2"}, ["x", "y"])
    assert [example.label for example in read(tmp_path, task=task, separator=",")] == [("x", "y"), ("y",)]


def test_a_test_file_stands_in_for_dev_and_may_lack_labels(tmp_path, capsys):
    (tmp_path / "test.tsv").write_text("label\ttext_a\nx\t天\n\t地\n", encoding="utf-8")
    assert [example.label for example in read(tmp_path, "dev")] == [("x",), ()]
    assert "test.tsv: read as dev: there is no file of its own" in capsys.readouterr().out
    assert [example.label for example in read(tmp_path, "test")] == [("x",), ()]
    (tmp_path / "test.tsv").write_text("text_a\n天\n", encoding="utf-8")
    assert read(tmp_path, "test") == [Example("天", None, None)]


@pytest.mark.parametrize("row, message", [
    ('{"text_a": "天"}', "no label; there are: text_a"),
    ('{"text_a": "天", "label": ["x", "x"]}', "the label x twice in ['x', 'x']"),
    ('{"text_a": "天", "label": "x||y"}', "an empty label among 'x||y'"),
    ('{"text_a": "天", "label": ["x", null]}', "wanted a list of labels, got ['x', None]"),
    ('{"text_a": "天", "label": {"x": 1}}', "wanted a list of labels, got {'x': 1}"),
    ('{"text_a": " ", "label": "x"}', "text_a is empty"),
    ('{"text_a": "天", "label": "z"}', "unknown label 'z'; task multi_label has x, y")])
def test_rows_that_do_not_fit(tmp_path, row, message):
    (tmp_path / "train.json").write_text(row + "\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read(tmp_path, task=dataclasses.replace(TASK, labels=("x", "y")))
    assert str(raised.value) == "%s: line 1: %s" % (tmp_path / "train.json", message)
