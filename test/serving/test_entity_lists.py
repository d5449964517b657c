from serving.entity_lists import entities_of, left_out
from serving.version_files import MAX_ENTITIES

ROW = {"count": 1, "text": ["天", ""], "label": ["x", ""], "start": [3, 0], "end": [4, 0], "score": [.5, 0.0]}


def test_a_row_has_as_many_entities_as_it_counts():
    assert entities_of(ROW) == [{"text": "天", "label": "x", "start": 3, "end": 4, "score": .5}]
    assert entities_of(dict(ROW, count=0)) == [] and left_out(ROW) == 0


def test_what_has_no_place_is_counted():
    assert left_out(dict(ROW, count=MAX_ENTITIES + 2)) == 2
