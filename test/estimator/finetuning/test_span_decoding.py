import numpy as np

from estimator.finetuning.span_decoding import best_of_window, best_of_windows, has_answer

SPANS = np.int32([[0, 0], [0, 1], [1, 3], [3, 4], [0, 0]])


def best(start, end, longest=3, count=9, spans=SPANS):
    return [(found.begin, found.end, float(found.score))
            for found in best_of_window(np.float32(start), np.float32(end), spans, longest, count)]


def test_answers_are_parts_of_the_text_in_order_and_not_too_long():
    start, end = [9, 1, 2, 0, 9], [9, 0, 3, 1, 9]
    assert best(start, end) == [(1, 3, 5.0), (0, 3, 4.0), (1, 4, 3.0), (0, 4, 2.0), (0, 1, 1.0), (3, 4, 1.0)]
    assert best(start, end, longest=1) == [(1, 3, 5.0), (0, 1, 1.0), (3, 4, 1.0)]
    assert best(start, end, count=2) == [(1, 3, 5.0), (0, 3, 4.0)]


def test_of_equal_ones_the_first_is_best():
    assert best([0] * 5, [0] * 5, count=1) == [(0, 1, 0.0)]
    assert best([0, 0, 5e-5, 0, 0], [0] * 5, count=1)[0][:2] == (0, 1)
    assert best([0, 0, 5e-3, 0, 0], [0] * 5, count=1)[0][:2] == (1, 3)


def test_a_window_without_text():
    assert best([1, 2], [1, 2], spans=np.zeros((2, 2), np.int32)) == []


def test_an_answer_of_several_windows_counts_with_the_one_where_it_is_best():
    windows = [best_of_window(np.float32([0, value, 0, 0, 0]), np.zeros(5, np.float32), SPANS, 1, 2)
               for value in (1, 3)]
    found = best_of_windows(windows, 2)
    assert [(candidate.begin, candidate.end, float(candidate.score)) for candidate in found] == [
        (0, 1, 3.0), (1, 3, 0.0)]


def test_whether_there_is_an_answer():
    candidate = best_of_window(np.float32([0, 1, 0, 0, 0]), np.zeros(5, np.float32), SPANS, 1, 1)[0]
    assert has_answer(candidate, np.float32(99), None) and not has_answer(None, np.float32(0), None)
    assert has_answer(candidate, np.float32(3), 2.0) and not has_answer(candidate, np.float32(3), 1.9)
