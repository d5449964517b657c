import pytest

from estimator.finetuning import answer_scores
from estimator.finetuning.answer_scores import (best_null_threshold, cmrc, longest_common_string,
                                                mixed_segmentation, squad_v1, squad_v2)


@pytest.mark.parametrize("text, wanted", [
    ("《战国无双3》 OK?", ["战", "国", "无", "双", "3", "ok", "?"]),
    ("a-b 3.5%", ["ab", "3.5", "%"]),
    ("Mr. Smith (b. 1950)", ["mr.", "smith", "(", "b.", "1950", ")"]),
    ("It's done. I can't!", ["it", "'s", "done", ".", "i", "ca", "n't", "!"]),
    ('他说"ok, go".', ["他", "说", "``", "ok", ",", "go", "''", "."]),
    ("we cannot 去", ["we", "can", "not", "去"]), ("", []), ("，。", [])])
def test_mixed_segmentation(text, wanted):
    assert list(mixed_segmentation(text)) == wanted


def test_longest_common_string():
    assert longest_common_string("abcd", "xbcy") == 2 and longest_common_string("aaa", "aa") == 2
    assert longest_common_string("", "a") == longest_common_string("a", "b") == 0


@pytest.mark.parametrize("right, answer, exact, f1", [
    (["光荣和ω-force"], "光荣", 0, 2 * 1 * .5 / 1.5), (["村雨城", "任天堂"], "“村雨城”。", 1, 1),
    (["天"], "地", 0, 0), ([], "", 1, 1), ([], "天", 0, 0), (["天"], "", 0, 0)])
def test_cmrc(right, answer, exact, f1):
    found = cmrc(right, answer)
    assert found.exact == exact and found.f1 == pytest.approx(f1)


@pytest.mark.parametrize("measure, right, answer, exact, f1", [
    (squad_v1, ["The cat."], "cat", 1, 1), (squad_v1, ["big cat sat"], "a cat sat", 0, .8),
    (squad_v1, ["the"], "a", 1, 0), (squad_v2, ["the"], "", 1, 1), (squad_v2, [], "", 1, 1),
    (squad_v2, [], "cat", 0, 0), (squad_v2, ["the", "cat"], "a", 0, 0), (squad_v2, ["x y", "y"], "y", 1, 1)])
def test_squad(measure, right, answer, exact, f1):
    found = measure(right, answer)
    assert found.exact == exact and found.f1 == pytest.approx(f1)


def test_the_best_threshold_of_no_answer():
    # by difference: -2 right, -1 wrong where there is none, 1 right
    assert best_null_threshold([1.0, -2.0, -1.0], [1.0, 1.0, 0.0], [True, True, False],
                               ["a", "b", "c"]) == (-2.0, 2 / 3)
    assert best_null_threshold([5.0, -2.0], [1.0, 0.0], [False, True], ["a", "b"]) == (0.0, 0.5)


def test_all_measures_have_names():
    assert set(answer_scores.MEASURES) == {"cmrc", "squad_v1", "squad_v2"}
