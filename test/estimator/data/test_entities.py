import json

import pytest

from estimator.data.entities import Entity, TaggedText, apart, found_labels, read_entities, runs_of
from etl.common.command_line import UserError

TEXT = "浙商银行叶老桂用iPad2"


def write(tmp_path, *lines, name="train.json"):
    path = tmp_path / name
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n",
        encoding="utf-8",
    )
    return str(path)


def test_three_forms_give_the_same_entities(tmp_path):
    wanted = (Entity(0, 4, "company"), Entity(4, 7, "name"), Entity(8, 13, "product"))
    by_mention = {
        "company": {"浙商银行": [[0, 3]]},
        "product": {"iPad2": [[8, 12]]},
        "name": {"叶老桂": [[4, 6]]},
    }
    listed = [
        {"start": 4, "end": 7, "label": "name"},
        {"start": 0, "end": 4, "label": "company", "text": "浙商银行"},
        {"start": 8, "end": 13, "label": "product"},
    ]
    path = write(tmp_path, {"text": TEXT, "label": by_mention, "id": 7}, {"text": TEXT, "entities": listed})
    assert read_entities(path, False, ()) == [TaggedText(TEXT, wanted, 7), TaggedText(TEXT, wanted, None)]
    inclusive = [dict(entity, end=entity["end"] - 1) for entity in listed]
    path = write(tmp_path, {"text": TEXT, "entities": inclusive}, name="dev.jsonl")
    assert read_entities(path, False, (), inclusive_ends=True) == [TaggedText(TEXT, wanted, None)]
    columns = [
        "浙 B-company",
        "商\tI-company",
        "银 I-company",
        "行 I-company",
        "叶 B-name",
        "老 I-name",
        "桂 I-name",
        "用 O",
        "iPad2 B-product",
    ]
    for name, lines in (
        ("bio", columns),
        (
            "bioes",
            [
                "浙 B-company",
                "商 I-company",
                "银 I-company",
                "行 E-company",
                "叶 B-name",
                "老 I-name",
                "桂 E-name",
                "用 O",
                "iPad2 S-product",
            ],
        ),
        (
            "bmes",
            [
                "浙 B-company",
                "商 M-company",
                "银 M-company",
                "行 E-company",
                "叶 B-name",
                "老 M-name",
                "桂 E-name",
                "用 O",
                "iPad2 S-product",
            ],
        ),
    ):
        path = write(tmp_path, "-DOCSTART- O", *lines, "", "", *lines[:1], "", name=name + ".txt")
        assert [example.label for example in read_entities(path, False, ())] == [
            wanted,
            (Entity(0, 1, "company"),),
        ]
    assert found_labels([TaggedText(TEXT, wanted, None), TaggedText(TEXT, None, None)]) == [
        "company",
        "name",
        "product",
    ]


def test_characters_of_columns_may_be_blanks_and_words(tmp_path, capsys):
    path = write(tmp_path, "New\tB-x", "York\tI-x", "\tO", "美 O", "2 I-y", "0 I-y", name="train.txt")
    assert read_entities(path, False, ()) == [
        TaggedText("New York 美20", (Entity(0, 8, "x"), Entity(10, 12, "y")), None)
    ]
    assert "1 entities that begin with neither B nor S" in capsys.readouterr().out
    path = write(tmp_path, "天 B-x", "地 I-x", "", "人 S-x", name="train.txt")
    read_entities(path, False, ())
    assert "1 entities that end with neither E nor S" in capsys.readouterr().out


def test_texts_without_labels(tmp_path):
    path = write(tmp_path, {"id": 3, "text": "天地"}, {"text": "人", "entities": []})
    assert read_entities(path, True, ()) == [TaggedText("天地", None, 3), TaggedText("人", (), None)]
    path = write(tmp_path, "天", "地", "", "人", name="test.txt")
    assert [example.text for example in read_entities(path, True, ())] == ["天地", "人"]
    with pytest.raises(UserError, match="line 1: no entities are given"):
        read_entities(path, False, ())


def nested():
    return {
        "text": "《招商银行传》",
        "label": {"book": {"《招商银行传》": [[0, 6]]}, "company": {"招商银行": [[1, 4]]}},
    }


def test_overlaps_are_refused_or_counted(tmp_path, capsys):
    path = write(tmp_path, {"text": "天", "entities": []}, nested())
    with pytest.raises(
        UserError,
        match=r"train.json: line 2: '《招商银行传》' \(book, 0 to 7\) and '招商银行' "
        r"\(company, 1 to 5\) overlap: --overlaps first or longest",
    ):
        read_entities(path, False, ())
    assert read_entities(path, False, (), "longest")[1].label == (Entity(0, 7, "book"),)
    assert (
        "train.json: 1 entities left out: they overlap another (--overlaps longest)"
        in capsys.readouterr().out
    )
    twice = {"start": 0, "end": 1, "label": "x"}
    assert read_entities(write(tmp_path, {"text": "天", "entities": [twice, twice]}), False, ())[0].label == (
        Entity(0, 1, "x"),
    )
    assert "1 entities given twice" in capsys.readouterr().out


def test_the_first_and_the_longest_of_several():
    chain = [Entity(0, 2, "x"), Entity(1, 4, "y"), Entity(3, 5, "z"), Entity(3, 5, "a")]
    assert apart(chain, "first") == [Entity(0, 2, "x"), Entity(3, 5, "z")]
    assert apart(chain, "longest") == [Entity(1, 4, "y")]


BAD = [
    (
        {"text": "天地", "label": {"x": {"地": [[0, 0]]}}},
        "the text has '天' at 0, not the entity '地': it stands at 1",
    ),
    (
        {"text": "天地", "label": {"x": {"天": [[0, 1]]}}},
        "'天' has 1 characters, but its places are 2, 0 to 1",
    ),
    ({"text": "天地", "label": {"x": [[0, 1]]}}, "label must be as"),
    ({"text": "天地", "label": "x"}, "label must be as"),
    ({"text": "天地", "entities": {}}, "entities must be a list"),
    (
        {"text": "天地", "entities": [{"start": 0, "end": "1", "label": "x"}]},
        "entity 1 must have start and end",
    ),
    (
        {"text": "天地", "entities": [{"start": 0, "end": True, "label": "x"}]},
        "entity 1 must have start and end",
    ),
    (
        {"text": "天地", "entities": [{"start": 1, "end": 3, "label": "x"}]},
        "which has 2 characters, got 1 to 3",
    ),
    ({"text": "天地", "entities": [{"start": -1, "end": 1, "label": "x"}]}, "got -1 to 1"),
    ({"text": "天地", "entities": [{"start": 1, "end": 1, "label": "x"}]}, "got 1 to 1"),
    ({"text": "天地", "entities": [{"start": 0, "end": 1, "label": " "}]}, "an empty label"),
    ({"text": "天地", "entities": [{"start": 0, "end": 1, "label": "y"}]}, "unknown label 'y'; there are x"),
    (
        {"text": "天地", "entities": [{"start": 0, "end": 0, "label": "x", "text": "天"}]},
        "--inclusive_ends: end 0 of entity 1, '天', is the place of its last character",
    ),
    (
        {"text": "天地", "entities": [{"start": 0, "end": 1, "label": "x", "text": "地"}]},
        "not the entity '地'",
    ),
    ({"text": " ", "entities": []}, "its text is empty"),
    ({"text": 1, "entities": []}, "wanted a text as text"),
    ({"text": "天地"}, "no entities are given"),
]


@pytest.mark.parametrize("row, message", BAD)
def test_what_is_wrong_names_file_and_line(tmp_path, row, message):
    with pytest.raises(UserError, match="train.json: line 2: .*" + message):
        read_entities(write(tmp_path, {"text": "天", "entities": []}, row), False, ("x",))


@pytest.mark.parametrize(
    "lines, message",
    [
        (("天 B-x", "地 X"), "line 2: label must be O.* got 'X'; it is one of tokens"),
        (("天 B-x", "地 ORG"), "line 2: label must be O.* got 'ORG'$"),
        (("天 B-x", "地 B-"), "line 2: label must be O"),
        (("天 B-x", "地"), "line 2: wanted a character and its label"),
        (("", ""), "holds no text"),
    ],
)
def test_what_is_wrong_with_columns(tmp_path, lines, message):
    with pytest.raises(UserError, match="train.txt: " + message):
        read_entities(write(tmp_path, *lines, name="train.txt"), False, ())


@pytest.mark.parametrize(
    "labels, wanted",
    [
        ("B-x I-x O I-y S-y", [(0, 2, "x"), (3, 4, "y"), (4, 5, "y")]),
        ("B-x B-x I-y", [(0, 1, "x"), (1, 2, "x"), (2, 3, "y")]),
        ("B-x M-x E-x I-x", [(0, 3, "x"), (3, 4, "x")]),
        ("E-x O", [(0, 1, "x")]),
        ("B_x I_x", [(0, 2, "x")]),
        ("", []),
    ],
)
def test_runs_of_labels(labels, wanted):
    assert runs_of(labels.split()) == wanted
