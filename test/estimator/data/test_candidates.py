import json

import pytest

from estimator.data import candidates, tasks
from estimator.data.candidates import ChoiceExample, filled
from estimator.data.tasks import TASKS
from etl.common.command_line import UserError


def read(task, folder, part="train"):
    paths, layout = tasks.find_files(TASKS[task], str(folder), part)
    return candidates.read_choices(paths, layout.read, part == "test")


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False),
                    encoding="utf-8")


@pytest.mark.parametrize("question, candidate, wanted", [
    ("谁来了？", "他", "谁来了？ 他"), ("他_了", "来", "他来了"), ("____好_", "你", "你好_"),
    ("", "来", " 来")])
def test_a_candidate_goes_where_the_gap_is(question, candidate, wanted):
    assert filled(question, candidate) == wanted


C3 = [[["女：你好", "男：好"], [{"question": "谁？", "choice": ["甲", "乙", "丙"], "answer": "乙"},
                                {"question": "何时？", "choice": ["早", "晚"], "answer": "早"}], "7-1"]]
RACE = {"article": "He left.", "questions": ["He _ .", "Who?"], "options": [["left", "came"], ["he", "she"]],
        "answers": ["A", "B"], "id": "middle1.txt"}
COPA = {"id": 0, "premise": "下雨", "choice0": "湿", "choice1": "干", "question": "effect", "label": 0}
OWN = {"question": "谁？", "candidates": ["甲", "乙"], "label": 1}

SHIPPED = [
    ("c3", {
        "m-train.json": C3,
        "d-train.json": [[["x"], [], "8"]]
    }, [
        ChoiceExample("谁？", "女：你好\n男：好", ("甲", "乙", "丙"), 1, None, "7-1-0"),
        ChoiceExample("何时？", "女：你好\n男：好", ("早", "晚"), 0, None, "7-1-1")
    ]),
    ("race", {
        "train/middle/1.txt": RACE,
        "train/high/2.txt": dict(RACE, questions=[], options=[], answers=[])
    }, [
        ChoiceExample("He _ .", "He left.", ("left", "came"), 0, None, "middle1.txt-0"),
        ChoiceExample("Who?", "He left.", ("he", "she"), 1, None, "middle1.txt-1")
    ]),
    ("copa", {
        "train.json": COPA
    }, [ChoiceExample("结果是什么？", "下雨", ("湿", "干"), 0, None, 0)]),
    ("choices", {
        "train.json": OWN
    }, [ChoiceExample("谁？", "", ("甲", "乙"), 1, None, None)]),
    ("choices", {
        "train.jsonl": OWN
    }, [ChoiceExample("谁？", "", ("甲", "乙"), 1, None, None)]),
    ("chid", {
        "train.json": {
            "content": ["他#idiom000001#。后来又#idiom000002#了，走了。"],
            "candidates": ["甲乙", "丙丁"]
        },
        "train_answer.json": {
            "#idiom000001#": 1,
            "#idiom000002#": 0
        }
    }, [
        ChoiceExample("他_。", "他○○○○。后来又○○○○了，走了。", ("甲乙", "丙丁"), 1, 1, "#idiom000001#"),
        ChoiceExample("后来又_了，走了。", "他○○○○。后来又○○○○了，走了。", ("甲乙", "丙丁"), 0, 1,
                      "#idiom000002#")
    ]),
    ("chid", {
        "train.json": {
            "content": "他#idiom#",
            "candidates": [["甲", "乙"]],
            "groundTruth": ["乙"]
        }
    }, [ChoiceExample("他_", "他○○○○", ("甲", "乙"), 1, None, "1-0")]),
]


@pytest.mark.parametrize("task, found, wanted", SHIPPED)
def test_files_as_they_are_shipped(tmp_path, task, found, wanted):
    for name, content in found.items():
        write(tmp_path, name, content)
    assert read(task, tmp_path) == wanted


def test_names_of_other_distributors(tmp_path):
    """C3's own names have c3- before them; CLUE ships its newer test files beside older ones."""
    write(tmp_path, "c3-m-train.json", C3)
    write(tmp_path, "test1.0.json", [])
    write(tmp_path, "test1.1.json", [[["x"], [{"question": "谁？", "choice": ["甲", "乙"], "id": 7}], "1"]])
    assert [example.id for example in read("c3", tmp_path)] == ["7-1-0", "7-1-1"]
    assert [(example.id, example.label) for example in read("c3", tmp_path, "test")] == [(7, None)]
    write(tmp_path, "test1.1.json", {"content": ["他#idiom000001#"], "candidates": ["甲", "乙"]})
    assert read("chid", tmp_path, "test")[0].id == "#idiom000001#"


def test_answers_of_chid_may_stand_in_columns(tmp_path):
    write(tmp_path, "train.json", {"content": ["他#idiom000001#"], "candidates": ["甲", "乙"]})
    write(tmp_path, "train_answer.csv", "#idiom000001#,1\n")
    assert read("chid", tmp_path)[0].label == 1
    write(tmp_path, "train_answer.csv", "#idiom000001#,x\n")
    with pytest.raises(UserError, match="train_answer.csv: line 1: wanted #idiom000000#,3"):
        read("chid", tmp_path)


def test_ids_are_unique(tmp_path):
    line = json.dumps(dict(OWN, id=3)) + "\n"
    write(tmp_path, "train.json", line + line)
    with pytest.raises(UserError, match="train.json: question 3: this id comes twice"):
        read("choices", tmp_path)
    write(tmp_path, "train.json", dict(OWN, id=[3]))
    with pytest.raises(UserError, match="its id must be a text or a number"):
        read("choices", tmp_path)


def test_nul_is_counted(tmp_path, capsys):
    write(tmp_path, "train.json", dict(OWN, passage="甲\0"))
    assert len(read("choices", tmp_path)) == 1
    assert capsys.readouterr().out == (
        "%s: 1 questions with NUL in their texts, which no token stands for\n" % (tmp_path / "train.json"))


def test_a_test_part_has_no_labels(tmp_path):
    write(tmp_path, "test.json", {"question": "谁？", "candidates": ["甲", "乙"]})
    assert read("choices", tmp_path, "test")[0].label is None


@pytest.mark.parametrize("task, name, content, message", [
    ("choices", "train.json", dict(OWN, label=None), "question 1: it has no label"),
    ("choices", "train.json", dict(OWN,
                                   label=2), "line 1: its label must be one of its 2 candidates, got 2"),
    ("choices", "train.json", dict(OWN, label=True), "its label must be one of its 2 candidates, got True"),
    ("choices", "train.json", dict(OWN, candidates=["甲"]), "there must be at least two candidates"),
    ("choices", "train.json", dict(OWN, candidates=["甲", ""]), "there must be at least two candidates"),
    ("choices", "train.json", dict(OWN, question="", passage=" "), "question and passage are empty"),
    ("choices", "train.json", dict(OWN, passage=3), "question and passage must be texts"),
    ("copa", "train.json", dict(COPA,
                                question="why"), "line 1: wanted cause or effect as question, got 'why'"),
    ("c3", "m-train.json", {
        "a": 1
    }, "wanted a list of"),
    ("c3", "m-train.json", [[["x"], 3, "1"]], "item 1: wanted .texts, questions, id."),
    ("c3", "m-train.json", [[["x"], [{
        "question": "谁？",
        "choice": ["甲", "乙"],
        "answer": "丙"
    }], "1"]], "question 1-0: its label must be one of its 2 candidates, got '丙'"),
    ("race", "train/high/1.txt", dict(RACE, answers=["A"]), "of equal number"),
    ("race", "train/high/1.txt", dict(RACE, answers=2), "of equal number"),
    ("chid", "train.json", {
        "content": 3,
        "candidates": []
    }, "line 1: wanted content"),
    ("chid", "train.json", {
        "content": "他#idiom#，又#idiom#",
        "candidates": [["甲", "乙"]],
        "groundTruth": ["甲"]
    }, "line 1: there are more blanks than the 1 lists of candidates"),
    ("c3", "m-train.json", [], "holds no question"),
])
def test_what_is_wrong_is_named(tmp_path, task, name, content, message):
    write(tmp_path, name, content)
    with pytest.raises(UserError, match=name.split("/")[-1] + ".*" + message):
        read(task, tmp_path)
