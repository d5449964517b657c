"""TensorFlow Serving's JSON ↔ arrays by name: the bodies of its REST interface.

    {"instances": [{"text_a": "北京", "text_b": ""}]}      → {"predictions": [{"label": "1", "probabilities":
                                                           [0.2, 0.8]}]}
    {"inputs": {"text_a": ["北京"], "text_b": [""]}}       → {"outputs": {"label": ["1"], "probabilities":
                                                           [[0.2, 0.8]]}}
    {"instances": ["叶老桂"]}, of :tag                      → {"results": [[{"text": "叶老桂", "label":
                                                           "name", "start": 0, "end": 3, "score": 0.9}]]}
    {"examples": [{"text_a": "北京"}]}                     → {"results": [[["0", 0.2], ["1", 0.8]]]}

Bytes are written as {"b64": "…"}. All functions raise RequestError for invalid input.
"""
import base64
import binascii
import codecs
from typing import Any, Dict, List, Mapping, Sequence, Union

import grpc
import numpy as np
import orjson
import tensorflow.compat.v1 as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from etl.common import files, json_text
from serving.entity_lists import entities_of, left_out
from serving.service import errors, limits, messages
from serving.service.compression import GZIP_START
from serving.service.limits import Described, Limits
from serving.service.messages import Arrays

INSTANCES, INPUTS, EXAMPLES, CONTEXT, SIGNATURE_NAME = ("instances", "inputs", "examples", "context",
                                                        "signature_name")
MAX_DIMENSIONS = 32                     # NumPy's
MAX_ID_INPUTS = 4                       # of a signature, with a token id per position; ours have three
FEW_OTHERS = 64                         # the request itself, the signature's name, …
BYTES_SUFFIX = "_bytes"                 # outputs with such names are bytes, other strings are text
_INTEGERS = (tf.int32.as_datatype_enum, tf.int64.as_datatype_enum)
_STRING = tf.string.as_datatype_enum


def parse(body: bytes, most: Limits) -> Dict[str, Any]:
    """A request's body as a JSON object. The largest valid request within `most` limits the number of its
    values."""
    numbers = most.max_batch_size * most.max_ids_length * MAX_ID_INPUTS
    others = most.max_fields + most.max_batch_size * (MAX_ID_INPUTS + 1) + FEW_OTHERS
    if body.startswith(codecs.BOM_UTF8):
        body = body[len(codecs.BOM_UTF8):]
    try:
        json_text.require_few(body, numbers + others, others)
        json_text.require_depth(body)          # orjson does not: it crashes the process
        found = orjson.loads(body)
    except ValueError as error:
        raise errors.invalid("JSON Parse error: %s" % (_not_in_utf8(body) or error))
    if not isinstance(found, dict):
        raise errors.invalid("JSON Value: a request must be an object, got %s" % _kind(found))
    return found


def signature_name(request: Mapping[str, Any]) -> str:
    """The requested signature; "" for the default one."""
    name = request.get(SIGNATURE_NAME, "")
    if not isinstance(name, str):
        raise errors.invalid("'signature_name' key must be a string value, got %s" % _kind(name))
    return name


def predict_inputs(request: Mapping[str, Any], wanted: Mapping[str, Any], most: Limits) -> Arrays:
    """Arrays of a :predict request for a signature whose inputs, TensorInfos by name, are `wanted`."""
    if (INSTANCES in request) == (INPUTS in request):
        raise errors.invalid(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if INPUTS in request else "Missing 'inputs' or 'instances' key")
    columns = _columns_of_rows(request[INSTANCES], wanted,
                               most) if INSTANCES in request else _columns(request[INPUTS], wanted)
    shapes = {name: _shape(name, column) for name, column in columns.items()}
    for name, shape in shapes.items():         # all of them, before the first is built
        limits.check_input(name, Described(wanted[name].dtype, shape), wanted[name], most)
    return {name: _array(name, column, shapes[name], wanted[name].dtype) for name, column in columns.items()}


def is_by_columns(request: Mapping[str, Any]) -> bool:
    """Whether a :predict request, and so its answer, is by inputs instead of by rows."""
    return INPUTS in request


def predict_response(by_columns: bool, outputs: Mapping[str, np.ndarray]) -> bytes:
    """The response to a :predict request. A single output is written without its name."""
    columns = {name: _values(name, array) for name, array in outputs.items()}
    (single,) = columns.values() if len(columns) == 1 else (None,)
    if by_columns:
        return dumps({"outputs": columns if single is None else single})
    rows = single if single is not None else [dict(zip(columns, row)) for row in zip(*columns.values())]
    return dumps({"predictions": rows})


def serialized_examples(request: Mapping[str, Any], most: Limits) -> List[bytes]:
    """Serialized tf.Examples of a :classify or :regress request."""
    if EXAMPLES not in request:
        raise errors.invalid("When method is classify or regress, key 'examples' is expected")
    examples = request[EXAMPLES]
    _require_elements(EXAMPLES, examples)
    context = request.get(CONTEXT, {})
    limits.check_rows(len(examples), most)
    limits.check_fields(len(examples) * _fields_of(context) + sum(map(_fields_of, examples)), most)
    context = _example(context)
    limits.check_examples(len(examples), len(context.features.feature), context.ByteSize(), most)
    return [messages.merged(context, _example(example)).SerializeToString() for example in examples]


def classify_response(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The response to a :classify request: label and score of each class, for each example."""
    return dumps({"results": [[[_text(label), score] for label, score in row]
                              for row in messages.classes_of(outputs)]})


def regress_response(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The body that answers a :regress request: a number for each example."""
    return dumps({"results": outputs["outputs"].ravel()})


def tag_response(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The body that answers a :tag request: the entities of each text; where one has more than the signature
    gives, with the numbers of those that are left out."""
    columns = [_values(name, array) for name, array in outputs.items()]
    rows = [dict(zip(outputs, row)) for row in zip(*columns)]
    beyond = [left_out(row) for row in rows]
    found = {"results": [entities_of(row) for row in rows]}
    return dumps({**found, "left_out": beyond} if any(beyond) else found)


def status_response(statuses: Any) -> bytes:
    """The response with the states of versions: a GetModelStatusResponse."""
    return dumps(_message(statuses))


def metadata_response(name: str, version: int, signatures: Mapping[str, Any]) -> bytes:
    """The response that describes a version's signatures, SignatureDefs by name."""
    definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=signatures)
    return dumps({"model_spec": {"name": name, "signature_name": "", "version": str(version)},
                  "metadata": {"signature_def": _message(definitions)}})


def error_response(message: str) -> bytes:
    return dumps({"error": message})


def dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _not_in_utf8(body: bytes) -> str:
    """What else than JSON in UTF-8 a body is; "" when that cannot be told."""
    if not body:
        return "the body is empty"
    if body.startswith(GZIP_START):
        return "the body is compressed by gzip, which its Content-Encoding must say"
    encoding = files.encoding_by_mark(body) or _wide_encoding(body)
    if encoding:
        return "the body is not UTF-8, but %s" % encoding
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return "the body is " + files.not_utf8(error)
    return ""


def _wide_encoding(body: bytes) -> str:
    """What encoding the zero bytes at the beginning of JSON without a byte order mark are of, since its first
    character is ASCII (RFC 4627, 3); "" if there are none."""
    zeros = "".join("0" if byte == 0 else "x" for byte in body[:4])
    by_zeros = (("x000", "UTF-32LE"), ("000x", "UTF-32BE"), ("x0", "UTF-16LE"), ("0x", "UTF-16BE"))
    return next((name for pattern, name in by_zeros if zeros.startswith(pattern)), "")


def _require_elements(key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise errors.invalid("Expecting '%s' value to be a list, got %s" % (key, _kind(values)))
    if not values:
        raise errors.invalid("'%s' must have at least one element, got an empty list" % key)


def _fields_of(example: Any) -> int:
    """Features and values of an example in JSON, whatever it is."""
    contents = example.values() if isinstance(example, dict) else ()
    return sum(len(content) + 1 if isinstance(content, list) else 1 for content in contents)


def _columns_of_rows(rows: Any, wanted: Mapping[str, Any], most: Limits) -> Dict[str, List[Any]]:
    _require_elements(INSTANCES, rows)
    limits.check_rows(len(rows), most)
    named = [isinstance(row, dict) and not _is_base64(row) for row in rows]
    if any(named) != all(named):
        raise errors.invalid("'instances' must be all objects or all plain values")
    if not named[0]:
        if len(wanted) > 1:
            raise errors.invalid("instances is a plain list, but expecting list of objects as multiple input "
                                 "tensors required: %s" % ", ".join(sorted(wanted)))
        return {name: rows for name in wanted}
    for number, row in enumerate(rows):
        if row.keys() != wanted.keys():
            raise errors.invalid("Failed to process element: %d of 'instances' list: its keys are %s, keys "
                                 "must be equal to: %s"
                                 % (number, limits.some(sorted(row)), ",".join(sorted(wanted))))
    return {name: [row[name] for row in rows] for name in wanted}


def _columns(columns: Any, wanted: Mapping[str, Any]) -> Dict[str, Any]:
    if not isinstance(columns, dict) or _is_base64(columns):
        if len(wanted) > 1:
            raise errors.invalid("inputs is a plain value/list, but expecting an object as multiple input "
                                 "tensors required: %s" % ", ".join(sorted(wanted)))
        return {name: columns for name in wanted}
    for name in wanted:
        if name not in columns:
            raise errors.invalid("Missing named input: %s in 'inputs' object." % name)
    return {name: columns[name] for name in wanted}


def _shape(name: str, value: Any) -> List[int]:
    """Lengths of nested lists, taken from the first element of each."""
    shape: List[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    if len(shape) > MAX_DIMENSIONS:
        raise errors.invalid("input %s: its lists are nested more than %d deep" % (name, MAX_DIMENSIONS))
    return shape


def _array(name: str, value: Any, shape: List[int], dtype: int) -> np.ndarray:
    """`value`, nested lists of one shape, as an array of a TensorFlow type."""
    leaves = [value]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in leaves):
            raise errors.invalid("input %s: its lists must all have the shape %s of the first"
                                 % (name, shape))
        leaves = [leaf for item in leaves for leaf in item]
    if dtype == _STRING:
        array = np.array([_bytes(name, leaf) for leaf in leaves], dtype=object)
    elif dtype in _INTEGERS:
        limits = np.iinfo(tf.as_dtype(dtype).as_numpy_dtype)
        for leaf in leaves:
            if type(leaf) is not int or not limits.min <= leaf <= limits.max:
                raise errors.invalid("input %s: JSON Value: %s is not of expected type: %s"
                                     % (name, _kind(leaf), tf.as_dtype(dtype).name))
        array = np.array(leaves, dtype=limits.dtype)
    else:
        raise errors.RequestError(grpc.StatusCode.UNIMPLEMENTED, "input %s: Conversion of JSON to type: %s"
                                  % (name, tf.as_dtype(dtype).name))
    return array.reshape(shape)


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if not _is_base64(value):
        raise errors.invalid("input %s: JSON Value: %s is not of expected type: string"
                             % (name, _kind(value)))
    encoded = "".join(value["b64"].split())    # some break lines after 76 characters, or leave out padding
    if not encoded.endswith("="):
        encoded += "=" * (-len(encoded) % 4)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise errors.invalid("input %s: Unable to base64 decode" % name)


def _example(value: Any) -> tf.train.Example:
    if not isinstance(value, dict):
        raise errors.invalid("Example must be JSON object but got JSON %s" % _kind(value))
    example = tf.train.Example()
    for name, content in value.items():
        values = content if isinstance(content, list) else [content]
        feature = example.features.feature[name]
        kinds = {type(item) for item in values}
        if kinds <= {str, dict}:
            feature.bytes_list.value.extend(_bytes(name, item) for item in values)
        elif kinds <= {int, bool} and all(abs(item) < 2 ** 63 for item in values):
            feature.int64_list.value.extend(int(item) for item in values)
        elif kinds == {float}:
            feature.float_list.value.extend(values)
        else:
            raise errors.invalid("Feature: %s has an element with unexpected JSON type: %s"
                                 % (name, ", ".join(sorted(_kind(item) for item in values))[:200]))
    return example


def _values(name: str, array: np.ndarray) -> Union[np.ndarray, Sequence[Any]]:
    """An array's rows in a form that orjson can write."""
    if array.dtype != object:
        return array
    if array.ndim > 1:
        return [_values(name, row) for row in array]
    if name.endswith(BYTES_SUFFIX):
        return [_base64(item) for item in array]
    return [_text(item) for item in array]


def _text(value: bytes) -> Union[str, Dict[str, str]]:
    """As text; a label of a model made elsewhere may not be UTF-8, and is then written like other bytes."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return _base64(value)


def _base64(value: bytes) -> Dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _kind(value: Any) -> str:
    return {dict: "Object", list: "Array", str: "String", bool: "Bool",
            type(None): "Null"}.get(type(value), "Number")


def _message(message: Any) -> Dict[str, Any]:
    return json_format.MessageToDict(message, including_default_value_fields=True,
                                     preserving_proto_field_name=True)
