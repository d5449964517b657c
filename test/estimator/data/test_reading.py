import json

import pytest

from estimator.data import reading
from estimator.data.reading import Answer, ReadingExample
from etl.common.command_line import UserError

PASSAGE = "龙尖是鱼。它住在\U0002b6ad海里。"


def answer(text, start):
    return {"text": text, "answer_start": start}


def question(*answers, id="q1", question="龙尖是什么？", **more):
    return dict(more, id=id, question=question, answers=list(answers))


def write(tmp_path, *questions, context=PASSAGE):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"version": "v1", "data": [{"title": "鱼", "paragraphs": [
        {"context": context, "qas": list(questions)}]}]}), encoding="utf-8")
    return str(path)


def read(path, is_training=True, is_test=False, may_be_impossible=False, skip_bad_answers=False):
    return reading.read_squad(path, is_training, is_test, may_be_impossible, skip_bad_answers)


def test_a_question_with_its_answer(tmp_path):
    path = write(tmp_path, question(answer("鱼", 3)))
    assert read(path) == [ReadingExample("龙尖是什么？", PASSAGE, (Answer("鱼", 3),), "q1")]
    assert Answer("海里", 9).end == 11


BAD = [
    (question(answer("海里", 10)),
     r"question q1: the passage has '里。' at 10, .* units of UTF-16 are counted"),
    (question(answer("是鱼", 6)), "bytes of UTF-8 are counted, but characters are wanted"),
    (question(answer("鱼", -1)), "at -1, not the answer '鱼': it stands at 3; --skip_bad_answers"),
    (question(answer("马", 0)), "the passage does not hold it at all"),
    (question(answer("", 0)), "answer 1 must have text, not empty"),
    (question(answer("鱼", "3")), "answer 1 must have text.* a whole number"),
    (question(), r"answers must be a list with an element, got \[\]"),
    (question(is_impossible=True), "is impossible, but each question of this task has an answer"),
    (question(answer("鱼", 3), question=3), "question must be a text, got 3"),
    (question(answer("鱼", 3), question=" "), "holds no question that can be"),
    (question(answer("鱼", 3), id=""), "question 1: id must be a text"),
    (question(answer("鱼", 3), question="\ud800"), "half a character"),
]


@pytest.mark.parametrize("given, message", BAD)
def test_what_is_wrong_names_file_and_question(tmp_path, given, message):
    with pytest.raises(UserError, match="train.json: .*" + message):
        read(write(tmp_path, given))


def test_ids_are_unique(tmp_path):
    with pytest.raises(UserError, match="question q1: this id comes twice"):
        read(write(tmp_path, question(answer("鱼", 3)), question(answer("鱼", 3))))


def test_an_empty_passage(tmp_path):
    with pytest.raises(UserError, match=r"question q1: its passage \(context\) is empty"):
        read(write(tmp_path, question(answer("鱼", 0)), context=" "))


@pytest.mark.parametrize("content, message", [
    ("[]", "wanted SQuAD's form"), ('{"data": 1}', "wanted SQuAD's form"), ("{", "not JSON"),
    ('{"data": [{}]}', "data 1: paragraphs must be a list"), ('{"data": []}', "holds no question"),
    ('{"data": [{"paragraphs": [{"context": 1}]}]}', "data 1: a paragraph must have context")])
def test_other_files(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="x.json: " + message):
        read(str(tmp_path / "x.json"))


def test_bad_answers_are_skipped_and_counted(tmp_path, capsys):
    path = write(tmp_path, question(answer("鱼", 4), answer("龙尖", 0), answer("鱼", 3)),
                 question(answer("海", 10), id="q2"))
    assert read(path, skip_bad_answers=True)[0].label == (Answer("龙尖", 0), Answer("鱼", 3))
    assert capsys.readouterr().out.splitlines() == [
        path + ": 2 answers skipped: they do not stand at their offsets",
        path + ": 1 questions with several answers: the first is learned",
        path + ": 1 questions skipped: they have no other answer"]


def test_a_question_without_a_text_is_not_learned_but_answered(tmp_path, capsys):
    path = write(tmp_path, question(answer("鱼", 3), question=""), question(answer("鱼", 3), id="q2"))
    assert [example.id for example in read(path)] == ["q2"]
    assert [example.id for example in read(path, is_training=False)] == ["q1", "q2"]
    assert capsys.readouterr().out.splitlines() == [
        path + ": 1 questions skipped: they have no text",
        path + ": 1 questions without a text, answered from their passages alone"]


def test_where_nothing_is_learnt_texts_count(tmp_path, capsys):
    path = write(tmp_path, question(answer("鱼", 4), answer("鱼", 3)))
    assert read(path, is_training=False)[0].label == (Answer("鱼", -1), Answer("鱼", 3))
    assert "1 questions with an answer that does not stand at its offset" in capsys.readouterr().out


def test_no_answer_is_one_where_the_task_has_such(tmp_path):
    path = write(tmp_path, question(is_impossible=True), question(id="q2"))
    assert [example.label for example in read(path, may_be_impossible=True)] == [(), ()]
    assert [example.label for example in read(path, False, True, True)] == [(), None]


def test_a_test_part_may_leave_answers_out(tmp_path):
    path = write(tmp_path, question(answer("", -1), answer("", -1)), question(id="q2"),
                 question(answer("鱼", 3), id="q3"))
    assert [example.label for example in read(path, False, True)] == [None, None, (Answer("鱼", 3),)]


def test_passages_without_a_question_and_nul_are_counted(tmp_path, capsys):
    path = write(tmp_path, question(answer("鱼", 3)), context=PASSAGE + "\0")
    content = json.loads(open(path, encoding="utf-8").read())
    content["data"].append({"paragraphs": [{"context": "空", "qas": []}]})
    open(path, "w", encoding="utf-8").write("\ufeff" + json.dumps(content))
    assert len(read(path)) == 1
    assert capsys.readouterr().out.splitlines() == [
        path + ": 1 questions with NUL in their texts, which no token stands for",
        path + ": 1 passages without a question"]
