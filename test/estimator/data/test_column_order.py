import pytest

from estimator.data import column_order

PAIR, SINGLE = ("text_a", "text_b", "label"), ("label", "text_a")


@pytest.mark.parametrize("rows, order, names", [
    ([["1", "天", "地", "0"], ["2", "日", "月", "1"]], PAIR, ["id", "text_a", "text_b", "label"]),
    ([["1", "天", "地"], ["0", "日", "月"], ["1", "山", "水"]], PAIR, ["label", "text_a", "text_b"]),
    ([["天", "1"], ["地", "0"]], SINGLE, ["text_a", "label"]),
    ([["天", "1", "7"], ["地", "0", "8"], ["人", "0", "9"]], SINGLE, ["text_a", "label", "id"]),
])
def test_another_order_than_usual(rows, order, names):
    assert column_order.find_order(rows, order, ["0", "1"]) == names


@pytest.mark.parametrize("rows, order", [
    ([["天", "地", "0"], ["日", "月", "1"]], PAIR),                    # as usual
    ([["天", "地", "2"], ["日", "月", "1"]], PAIR),                    # a label that is none
    ([["天", "地", "x", "0"], ["日", "月", "y", "1"]], PAIR),          # three texts
    ([["0", "天"], ["1", "0"]], SINGLE), ([["天", "1"], ["地"]], SINGLE), ([], SINGLE)])
def test_what_shows_no_order(rows, order):
    assert column_order.find_order(rows, order, ["0", "1"]) is None


def test_texts_without_labels():
    rows = [["7", "天", "地"], ["8", "日", "月"]]
    assert column_order.find_order(rows, PAIR, ["0", "1"], may_lack=True) == ["id", "text_a", "text_b"]
    assert column_order.find_order([["天", "地"]], PAIR, ["0", "1"], may_lack=True) is None


@pytest.mark.parametrize("rows, num_texts, labels", [
    ([["天", "好"], ["地", "坏"], ["人", "好"], ["山", "坏"]], 1, ["好", "坏"]),
    ([["1", "b", "天"], ["2", "a", "地"], ["3", "b", "人"], ["4", "a", "水"]], 1, ["b", "a"]),
    ([["天", "好"], ["地", "坏"]], 1, None), ([["天", "天"], ["天", "天"]], 1, None),
    ([["天", "好"], ["地"]], 1, None)])
def test_labels_are_what_repeats_itself(rows, num_texts, labels):
    assert column_order.find_labels(rows, num_texts) == labels
