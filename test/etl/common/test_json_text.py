import json
import random

import pytest

from etl.common import json_text


@pytest.mark.parametrize("text, depth", [
    ("", 0), ("3", 0), ('"[["', 0), ("[]", 1), ("[[], []]", 2), ('{"a": [{"b": 1}]}', 3),
    ('["\\"[", "\\\\", ["\\\\\\"["]]', 2),
    ('[{"a": "[[\\"["}]', 2), ("]]]][", 0), ("[[[", 3), ('["[[', 1), ("[" * 150000, 150000)])
def test_depth(text, depth):
    assert json_text.depth(text.encode()) == depth


def test_depth_of_any_json_is_that_of_its_value():
    def depth_of(value):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inside is None else 1 + max(map(depth_of, inside), default=0)

    def made(rng, deep):
        if not deep or rng.random() < .3:
            return rng.choice([1, None, "".join(rng.choice('[]{}"\\,:字\n')
                                                for _ in range(rng.randrange(9)))])
        values = [made(rng, deep - 1) for _ in range(rng.randrange(4))]
        return values if rng.random() < .5 else {'"\\[%d' % number: value
                                                 for number, value in enumerate(values)}
    for seed in range(300):
        rng = random.Random(seed)
        value = made(rng, 6)
        assert json_text.depth(json.dumps(value, ensure_ascii=rng.random() < .5).encode()) == depth_of(value)


def nested(levels, opening="[", closing="]"):
    return opening * levels + closing * levels


def test_what_is_nested_too_deep_is_refused_before_a_parser_sees_it():
    assert json_text.loads(nested(json_text.MAX_DEPTH)) == json.loads(nested(json_text.MAX_DEPTH))
    for text in (nested(json_text.MAX_DEPTH + 1), "[" * 150000, '{"a":' * 65,
                 '["' + "x" * 9 + '", ' + nested(64)):
        for given in (text, text.encode()):
            with pytest.raises(ValueError, match="lists and objects are nested more than 64 deep"):
                json_text.loads(given)
            with pytest.raises(ValueError, match="nested more than 64 deep"):
                json_text.require_depth(text.encode())


def test_many_brackets_are_not_deep():
    wide, in_text = [[1]] * 1000, ["[" * 1000 + '"\\']
    assert json_text.loads(json.dumps(wide)) == wide and json_text.loads(json.dumps(in_text)) == in_text
    json_text.require_depth(json.dumps(wide).encode())


def test_values_lists_and_objects_are_counted_outside_strings():
    for text in ('[1, 2, {"a": 3}]', '["[[,,,,", "{{\\",\\\\", []]', '[[], {}]'):
        json_text.require_few(text.encode(), 4, 3)
    for text, message in (("[1, 2, 3, 4, 5]", "more than 4 values"),
                          ("[[], [], {}]", "more than 3 lists and objects"),
                          ('["a", "\\\\", "", "", ""]', "more than 4 values"),
                          ("[" + '"' * 100, "more than 4 values")):
        with pytest.raises(ValueError, match=message):
            json_text.require_few(text.encode(), 4, 3)


def test_integers_have_an_end():
    assert json_text.loads("1" * 4300) == int("1" * 4300)
    with pytest.raises(ValueError):            # Python's own, from 3.7.14 on
        json_text.loads("1" * 1000000)


def test_text_that_is_no_json():
    for text in (b"{", b"\xff", "[1,]", "", "\ud800"):
        with pytest.raises(ValueError):
            json_text.loads(text)
    assert json_text.loads('"\\ud800"') == "\ud800"


def test_half_characters_are_found():
    json_text.require_whole_characters(json_text.loads('{"\\ud83d\\ude00": ["字", 1]}'))
    for text in ('"x\\ud800"', '{"\\ud800": 1}', '[[["\\ud800"]]]'):
        with pytest.raises(ValueError, match=r"^\\ud800 is half a character: its other half is missing$"):
            json_text.require_whole_characters(json_text.loads(text))
