import numpy as np

from estimator.finetuning.span_decoding import Candidate
from serving.exporting import reading_model
from serving.exporting.reading_model import Answer

PASSAGE = "天地人山水"


def answer(best, null_score=0.0, threshold=None):
    return reading_model._answer(PASSAGE, [Candidate(begin, end, np.float32(score), np.float32(0))
                                           for begin, end, score in best], np.float32(null_score), threshold)


def test_an_answer_and_what_is_about_as_good():
    wanted = answer([(1, 3, 5.0), (0, 1, 4.9995), (3, 4, 4.0)])
    assert wanted == Answer("地人", 1, 3, 5.0, frozenset({(1, 3), (0, 1)}), False)
    assert wanted.agrees(Answer("地人", 1, 3, 5.0001), PASSAGE) and wanted.agrees(
        Answer("天", 0, 1, 5.0), PASSAGE)
    for other in (Answer("山", 3, 4, 5.0), Answer("地人", 1, 3, 4.9), Answer("地", 1, 3, 5.0),
                  Answer("", 0, 0, 5.0)):
        assert not wanted.agrees(other, PASSAGE)


def test_no_answer_and_what_is_about_as_good():
    assert answer([], 3.0) == Answer("", 0, 0, 3.0)
    wanted = answer([(1, 3, 5.0)], 6.0, 0.5)
    assert wanted[:4] == ("", 0, 0, 5.0) and not wanted.agrees(Answer("地人", 1, 3, 5.0), PASSAGE)
    wanted = answer([(1, 3, 5.0)], 5.5, 0.5)
    assert wanted[:3] == ("地人", 1, 3) and wanted.agrees(Answer("", 0, 0, 5.0), PASSAGE)


def test_a_model_without_a_clue():
    wanted = answer([(0, 1, 0.0)] * 1 + [(1, end, 0.0) for end in range(2, 202)])
    assert len(wanted.places) >= reading_model.MOST_PLACES and wanted.agrees(Answer("山", 3, 4, 0.0), PASSAGE)
