from estimator.data.entities import Entity, TaggedText
from estimator.finetuning.entity_baselines import dictionary_of, look_up

TEXTS = [
    TaggedText("天地人", (Entity(0, 1, "x"), Entity(1, 3, "y")), 1),
    TaggedText("天", (Entity(0, 1, "z"),), 2),
    TaggedText("天天", (Entity(0, 1, "z"), Entity(1, 2, "x")), 3),
    TaggedText("人", None, 4),
]


def test_the_most_frequent_label_of_an_entity():
    assert dictionary_of(TEXTS) == {"天": "x", "地人": "y"} and dictionary_of([]) == {}


def test_the_longest_entry_from_left_to_right():
    dictionary = {"天地": "x", "天": "y", "地人": "z"}
    assert look_up(dictionary, "天地人天") == [Entity(0, 2, "x"), Entity(3, 4, "y")]
    assert look_up({}, "天") == []
