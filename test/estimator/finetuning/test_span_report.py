import numpy as np
import pytest

from estimator.data.reading import Answer, ReadingExample
from estimator.finetuning import answer_scores, passage_baselines, span_report

EXAMPLE = ReadingExample("它是什么？", "龙尖是鱼。它住在海里！还有", (Answer("海里", 8),), "q1")


def test_groups_by_length():
    assert span_report.by_length([3, 5, 6, 200], np.array([1, 0, 1, 0]), np.array([1, .5, 1, .25])) == [
        ("0–5", 2, 1, 0.5, 0.75), ("6–10", 1, 0, 1.0, 1.0), ("from 101", 1, 1, 0.0, 0.25)]


def test_an_excerpt_marks_the_right_answer():
    assert span_report.excerpt(EXAMPLE) == "龙尖是鱼。它住在【海里】！还有"
    long = EXAMPLE._replace(passage="天" * 50 + "海里" + "地" * 50, label=(Answer("海里", 50),))
    assert span_report.excerpt(long) == "…%s【海里】%s…" % ("天" * 40, "地" * 40)
    assert span_report.excerpt(EXAMPLE._replace(label=())) == EXAMPLE.passage


def test_sections_show_questions_that_were_answered_wrong():
    sections = span_report.sections(answer_scores.cmrc, [EXAMPLE, EXAMPLE._replace(id="q2")], ["鱼", "海里"],
                                    [[], []])
    assert [section.title for section in sections] == ["Errors by length", "Hardest questions"]
    text = str(sections[1])
    assert "q1" in text and "q2" not in text


def test_baselines():
    assert passage_baselines.sentences_of(EXAMPLE.passage) == ["龙尖是鱼。", "它住在海里！", "还有"]
    asked = EXAMPLE._replace(question="它住在哪里？")
    assert passage_baselines.sentence_like_the_question(asked) == "它住在海里！"
    found = passage_baselines.scores_of(answer_scores.cmrc, [asked], [["海里"]])
    assert found["f1_of_first_sentence"] == 0 and found["exact_match_of_passage"] == 0
    assert found["f1_of_sentence_like_the_question"] == pytest.approx(2 * (2 / 5) / (1 + 2 / 5))
