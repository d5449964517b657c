import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from served import LIMITS

from serving.service import rest
from serving.service.errors import RequestError

TEXT = tf.saved_model.build_tensor_info(tf.placeholder(tf.string, [None], "t"))
IDS = tf.saved_model.build_tensor_info(tf.placeholder(tf.int32, [None, None], "i"))
FLOAT = tf.saved_model.build_tensor_info(tf.placeholder(tf.float32, [None], "f"))
PAIR = {"text_a": TEXT, "text_b": TEXT}


def lists(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


@pytest.mark.parametrize("request_, wanted, found", [
    ({"instances": [{"text_a": "北", "text_b": ""}, {"text_a": {"b64": "/w=="}, "text_b": "京"}]}, PAIR,
     {"text_a": ["北".encode(), b"\xff"], "text_b": [b"", "京".encode()]}),
    ({"inputs": {"text_a": ["北"], "text_b": [{"b64": ""}], "other": 1}}, PAIR,
     {"text_a": ["北".encode()], "text_b": [b""]}),
    ({"instances": ["北", {"b64": "eA=="}]}, {"text": TEXT}, {"text": ["北".encode(), b"x"]}),
    ({"inputs": ["北"]}, {"text": TEXT}, {"text": ["北".encode()]}),
    ({"instances": [[1, 2], [3, 4]]}, {"ids": IDS}, {"ids": [[1, 2], [3, 4]]}),
    ({"inputs": []}, {"text": TEXT}, {"text": []}),
])
def test_predict_inputs(request_, wanted, found):
    assert lists(rest.predict_inputs(request_, wanted, LIMITS)) == found


@pytest.mark.parametrize("request_, wanted, message", [
    ({}, PAIR, "Missing 'inputs' or 'instances' key"),
    ({"inputs": 1, "instances": 1}, PAIR, "only one of 'inputs' or 'instances'"),
    ({"instances": []}, PAIR, "'instances' must have at least one element, got an empty list"),
    ({"instances": {}}, PAIR, "Expecting 'instances' value to be a list, got Object"),
    ({"instances": ["x"]}, PAIR,
     "expecting list of objects as multiple input tensors required: text_a, text_b"),
    ({"instances": [{"text_a": "x", "text_b": ""}, "x"]}, PAIR, "all objects or all plain values"),
    ({"instances": [{"text_a": "x"}]}, PAIR,
     "element: 0 of 'instances' list: its keys are text_a, keys must be equal to: "),
    ({"inputs": ["x"]}, PAIR, "expecting an object as multiple input tensors required: text_a, text_b"),
    ({"inputs": {"text_a": ["x"]}}, PAIR, "Missing named input: text_b in 'inputs' object."),
    ({"inputs": [1]}, {"text": TEXT}, "input text: JSON Value: Number is not of expected type: string"),
    ({"inputs": [None]}, {"text": TEXT}, "JSON Value: Null is not of expected type: string"),
    ({"inputs": [{"b64": "?"}]}, {"text": TEXT}, "input text: Unable to base64 decode"),
    ({"inputs": [{"b64": "北"}]}, {"text": TEXT}, "Unable to base64 decode"),
    ({"inputs": [{"b64": "eA==", "x": 1}]}, {"text": TEXT},
     "JSON Value: Object is not of expected type: string"),
    ({"inputs": [[1], [2, 3]]}, {"ids": IDS}, r"its lists must all have the shape \[2, 1\] of the first"),
    ({"inputs": [[1], 2]}, {"ids": IDS}, "must all have the shape"),
    ({"inputs": {"b64": "eA=="}}, {"text": TEXT}, r"input text: its shape must be \(\?,\), got \[\]"),
    ({"inputs": [[]] * 9}, {"ids": IDS}, "at most 8 rows, got 9"),
    ({"instances": [{}] * 9}, PAIR, "at most 8 rows, got 9"),
    ({"inputs": [[1] * 513]}, {"ids": IDS}, "a row must have at most 512 token ids, got 513"),
    ({"inputs": json.loads("[" * 33 + "]" * 33)}, {"ids": IDS}, "its lists are nested more than 32 deep"),
    ({"inputs": [[1.5]]}, {"ids": IDS}, "JSON Value: Number is not of expected type: int32"),
    ({"inputs": [[True]]}, {"ids": IDS}, "JSON Value: Bool is not of expected type: int32"),
    ({"inputs": [[2 ** 31]]}, {"ids": IDS}, "is not of expected type: int32"),
    ({"inputs": [1.5]}, {"x": FLOAT}, "Conversion of JSON to type: float32"),
])
def test_what_does_not_fit(request_, wanted, message):
    with pytest.raises(RequestError, match=message):
        rest.predict_inputs(request_, wanted, LIMITS)


@pytest.mark.parametrize("body", [b"[" * 150000, b'{"a":' * 150000, b'{"a":[' * 75000,
                                  b'{"instances": ' + b"[" * 65 + b"]" * 65 + b"}"])
def test_what_is_nested_too_deep_never_reaches_the_parser(body, monkeypatch):
    monkeypatch.setattr(rest.orjson, "loads", None)            # which would end this process
    with pytest.raises(RequestError, match="JSON Parse error: (lists and objects are nested more than 64 "
                       "deep|has more than)"):
        rest.parse(body, LIMITS)


@pytest.mark.parametrize("unit", [b"1.5,", b"null,", b"[],", b"{},", b'{"a":{}},', b"[{}],", b'"",',
                                  b'"a""b"', b'"\\"",'])
def test_what_is_too_wide_never_reaches_the_parser(unit, monkeypatch):
    monkeypatch.setattr(rest.orjson, "loads", None)
    with pytest.raises(RequestError,
                       match="JSON Parse error: has more than [0-9]+ (values|lists and objects)"):
        rest.parse(b'{"instances": ["a"], "x": [' + unit * 100000 + b"null]}", LIMITS)


def test_a_request_may_be_as_large_as_its_limits():
    ids = [[7] * 512] * 8
    row = {"input_ids": ids[0], "input_mask": ids[0], "segment_ids": ids[0]}
    for asked in ({"inputs": dict(row, input_ids=ids, input_mask=ids, segment_ids=ids)},
                  {"instances": [row] * 8},
                  {"examples": [{str(number): {"b64": ""} for number in range(125)}] * 8},
                  {"instances": ['[{,\\"' * 100000] * 8}):
        assert rest.parse(json.dumps(asked).encode(), LIMITS) == asked


def test_brackets_in_texts_are_no_depth():
    assert rest.parse(b'{"inputs": ["' + b"[" * 100 + b'"]}', LIMITS) == {"inputs": ["[" * 100]}


@pytest.mark.parametrize("body, message", [
    *((body, "JSON Parse error")
      for body in (b"", b"{", b'{"x": "\xff"}', b'{"x": NaN}', b'{"x": "\\ud800"}', b"[" * 100000,
                   b'{"x": ' + b"1" * 1000000 + b"}")), (b"[]", "must be an object, got Array"),
    (b"3", "must be an object, got Number")])
def test_bodies_that_are_no_request(body, message):
    with pytest.raises(RequestError, match=message):
        rest.parse(body, LIMITS)


def test_labels_that_are_no_text():
    outputs = {"label": np.array([b"\xff"], dtype=object)}
    assert json.loads(rest.predict_response(False, outputs)) == {"predictions": [{"b64": "/w=="}]}
    outputs = {"classes": [[b"\xff", "好".encode()]], "scores": [[0.5, 0.25]]}
    assert json.loads(
        rest.classify_response(outputs)) == {"results": [[[{"b64": "/w=="}, 0.5], ["好", 0.25]]]}


def test_signature_name():
    assert rest.signature_name({}) == ""
    assert rest.signature_name({"signature_name": "encode"}) == "encode"
    with pytest.raises(RequestError, match="'signature_name' key must be a string value, got Null"):
        rest.signature_name({"signature_name": None})


OUTPUTS = {"label": np.array([b"1", "否".encode()], dtype=object),
           "probabilities": np.array([[.2, .8], [.5, .5]], np.float32)}


@pytest.mark.parametrize("request_, outputs, body", [
    ({"instances": 1}, OUTPUTS, {"predictions": [{"label": "1", "probabilities": [.2, .8]},
                                                 {"label": "否", "probabilities": [.5, .5]}]}),
    ({"inputs": 1}, OUTPUTS, {"outputs": {"label": ["1", "否"], "probabilities": [[.2, .8], [.5, .5]]}}),
    ({"instances": 1}, {"label": OUTPUTS["label"]}, {"predictions": ["1", "否"]}),
    ({"inputs": 1}, {"p": OUTPUTS["probabilities"]}, {"outputs": [[.2, .8], [.5, .5]]}),
    ({"inputs": 1}, {"x_bytes": np.array([b"\xff"], dtype=object)}, {"outputs": [{"b64": "/w=="}]}),
])
def test_predict_response(request_, outputs, body):
    assert json.loads(rest.predict_response(rest.is_by_columns(request_), outputs).decode()) == body


def test_classify():
    (serialized,) = rest.serialized_examples(
        {"examples": [{"text_a": "北", "n": [1, True], "f": 0.5, "b": {"b64": "/w=="}}],
         "context": {"text_b": ["好"], "n": 7}}, LIMITS)
    features = tf.train.Example.FromString(serialized).features.feature
    assert features["text_a"].bytes_list.value == ["北".encode()]
    assert features["text_b"].bytes_list.value == ["好".encode()]
    assert (features["n"].int64_list.value, features["f"].float_list.value) == ([1, 1], [0.5])
    assert features["b"].bytes_list.value == [b"\xff"]
    outputs = {"classes": np.array([["是".encode(), b"0"]], dtype=object),
               "scores": np.array([[.2, .8]], np.float32)}
    assert json.loads(rest.classify_response(outputs).decode()) == {"results": [[["是", .2], ["0", .8]]]}


@pytest.mark.parametrize("request_, message", [
    ({}, "When method is classify or regress, key 'examples' is expected"),
    ({"examples": []}, "'examples' must have at least one element, got an empty list"),
    ({"examples": "x"}, "Expecting 'examples' value to be a list, got String"),
    ({"examples": ["x"]}, "Example must be JSON object but got JSON String"),
    ({"examples": [{}], "context": 1}, "Example must be JSON object but got JSON Number"),
    ({"examples": [{}] * 9}, "at most 8 rows, got 9"),
    ({"examples": [{"x": [1] * 1000}]}, "at most 1000 fields, features and values"),
    ({"examples": [{}] * 8, "context": {str(number): 1 for number in range(200)}}, "at most 1000 fields"),
    ({"examples": [{}], "context": {"x": "x" * 1000}},
     "context: an example must have at most 1000 bytes, got 10"),
    ({"examples": [{"x": None}]}, "Feature: x has an element with unexpected JSON type: Null"),
    ({"examples": [{"x": ["a", 1]}]}, "unexpected JSON type: Number, String"),
    ({"examples": [{"x": 2 ** 63}]}, "unexpected JSON type: Number"),
    ({"examples": [{"x": {"y": 1}}]}, "input x: JSON Value: Object is not of expected type: string"),
])
def test_what_is_no_classify_request(request_, message):
    with pytest.raises(RequestError, match=message):
        rest.serialized_examples(request_, LIMITS)


def test_scores_without_classes():
    outputs = {"scores": np.array([[.25, .75]], np.float32)}
    assert json.loads(rest.classify_response(outputs)) == {"results": [[["", .25], ["", .75]]]}


def test_regress_response():
    outputs = {"outputs": np.array([[0.25], [1.5]], np.float32)}
    assert rest.regress_response(outputs) == b'{"results":[0.25,1.5]}'


def test_tag_response():
    outputs = {"count": np.array([1, 0], np.int32),
               "text": np.array([["北京".encode(), b""], [b"", b""]], object),
               "label": np.array([[b"x", b""], [b"", b""]], object),
               "start": np.array([[2, 0], [0, 0]], np.int32),
               "end": np.array([[4, 0], [0, 0]], np.int32), "score": np.array([[.5, 0], [0, 0]], np.float32)}
    wanted = {"text": "北京", "label": "x", "start": 2, "end": 4, "score": .5}
    assert json.loads(rest.tag_response(outputs)) == {"results": [[wanted], []]}
    outputs["count"] = np.array([130, 0], np.int32)
    assert json.loads(rest.tag_response(outputs))["left_out"] == [2, 0]


@pytest.mark.parametrize("encoded", ["5YyX5Lqs", "5YyX\r\n5Lqs", " 5Yy X5Lqs\n", "eA==", "eA", "eA=\n="])
def test_bytes_in_base64(encoded):
    (found,) = rest.predict_inputs({"inputs": [{"b64": encoded}]}, {"text": TEXT}, LIMITS)["text"]
    assert found in ("北京".encode(), b"x")


@pytest.mark.parametrize("body, message", [
    (b"", "the body is empty"), ("[]".encode("utf-8-sig"), "a request must be an object, got Array"),
    ('{"北": 1}'.encode("gbk"), "the body is not UTF-8: invalid start byte at byte 0xb1; is it GB18030?"),
    *[(text.encode(encoding), "JSON Parse error: the body is not UTF-8, but %s" % name)
      for text in ('{"北": 1}', '["一"]', "3", '"北"', ' {"b": 1}')
      for encoding, name in (("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"),
                             ("utf-32", "UTF-32"), ("utf-32-le", "UTF-32LE"), ("utf-32-be", "UTF-32BE"))],
    ('\ufeff{"北": 1}'.encode("utf-16-be"), "the body is not UTF-8, but UTF-16"),
    ('\ufeff{"北": 1}'.encode("utf-32-be"), "the body is not UTF-8, but UTF-32"),
    (b'\x1f\x8b{', "the body is compressed by gzip"), (b'{"a": "\\ud800"}', "surrogate"),
])
def test_what_is_no_json_in_utf8(body, message):
    with pytest.raises(RequestError) as refused:
        rest.parse(body, LIMITS)
    assert str(refused.value).endswith(message) if "UTF-8, but" in message else message in str(refused.value)


def test_a_byte_order_mark_is_none_of_the_text():
    assert rest.parse('{"北": 1}'.encode("utf-8-sig"), LIMITS) == {"北": 1}


def test_error():
    assert rest.error_response('a "b"') == b'{"error":"a \\"b\\""}'
