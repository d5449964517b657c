from estimator.data.entities import Entity, TaggedText
from estimator.finetuning.tag_report import Pair, confusion, excerpt, pairs_of, sections

TEXT = "天地人山水火木金土日月"


def kinds(gold, found):
    return sorted((pair.error or "" for pair in pairs_of(gold, found)))


def test_kinds_of_errors():
    one = Entity(0, 2, "x")
    assert kinds([one], [one]) == [""] and kinds([one], [Entity(0, 2, "y")]) == ["type"]
    assert kinds([one], [Entity(1, 3, "x")]) == ["border"] and kinds([one], [Entity(0, 1, "y")]) == [
        "border and type"
    ]
    assert kinds([one], [Entity(2, 3, "x")]) == ["invented", "missed"]
    assert kinds([one], []) == ["missed"] and kinds([], [one]) == ["invented"]


def test_each_entity_goes_with_the_one_that_it_shares_most_with():
    gold, found = [Entity(0, 4, "x"), Entity(4, 6, "y")], [Entity(0, 1, "x"), Entity(1, 6, "x")]
    assert pairs_of(gold, found) == [Pair(gold[0], found[1]), Pair(gold[1], None), Pair(None, found[0])]


def test_confused_labels():
    pairs = [
        Pair(Entity(0, 1, "x"), Entity(0, 1, "y")),
        Pair(Entity(0, 1, "y"), None),
        Pair(None, Entity(0, 1, "x")),
    ]
    assert confusion(pairs, ("x", "y")) == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_both_entities_are_marked_in_the_text():
    assert excerpt(TEXT, Pair(Entity(1, 3, "x"), Entity(2, 4, "x"))) == "天【地［人】山］水火木金土日月"
    assert excerpt(TEXT, Pair(Entity(1, 3, "x"), Entity(1, 3, "y"))) == "天【［地人】］山水火木金土日月"
    assert excerpt("天" * 60, Pair(None, Entity(30, 31, "x"))) == "…" + "天" * 20 + "［天］" + "天" * 20 + "…"


def test_the_page_shows_each_kind():
    examples = [TaggedText(TEXT, (Entity(0, 1, "x"), Entity(2, 4, "y")), 7), TaggedText(TEXT, (), None)]
    text = "".join(
        str(part)
        for section in sections(examples, [[Entity(2, 5, "y")], [Entity(9, 10, "x")]], ("x", "y"))
        for part in section.body
    )
    for wanted in (
        "人山 (y)",
        "人山水 (y)",
        "Missed: nothing was found there.",
        "Border:",
        "Invented:",
        "［日］",
    ):
        assert wanted in text, wanted
    assert "Type:" not in text
