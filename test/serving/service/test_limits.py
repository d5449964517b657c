import pytest
import tensorflow.compat.v1 as tf
from served import LIMITS
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import classification_pb2, predict_pb2

from serving.service import limits
from serving.service.errors import RequestError
from serving.service.limits import Described

STRING, INT32 = tf.string.as_datatype_enum, tf.int32.as_datatype_enum
IDS = ("input_ids", "input_mask", "segment_ids")
FIELDS_OF_TENSOR = TensorProto.DESCRIPTOR.fields_by_name


def signature(dtype, *shape, names=IDS):
    made = tf.saved_model.build_tensor_info(tf.placeholder(dtype, shape))
    return tf.saved_model.build_signature_def({name: made for name in names}, {}, "")


def ids(*shape, **others):
    return {**{name: Described(INT32, shape) for name in IDS}, **others}


def test_rows():
    assert limits.check_inputs(signature(tf.int32, None, None), ids(8, 512), LIMITS) == 8
    assert limits.check_inputs(signature(tf.int32, None, None), ids(0, 0), LIMITS) == 0
    assert limits.check_inputs(signature(tf.string, None, names=["x"]), {"x": Described(STRING, [3])},
                               LIMITS) == 3


@pytest.mark.parametrize("inputs, message", [
    ({}, "input size does not match signature: got none, wanted input_ids, input_mask, segment_ids"),
    (ids(1, 1, x=Described(INT32, [2 ** 40])), "input size does not match signature"),
    (ids(1, 2 ** 20), "input input_ids: a row must have at most 512 token ids, got 1048576"),
    (ids(9, 1), "at most 8 rows, got 9"),
    (ids(2 ** 40, 0), "at most 8 rows"),
    (ids(0, 2 ** 40), "at most 512 token ids"),
    (ids(1, 1, input_mask=Described(STRING, (1, 1))), "input input_mask: its type must be int32, got string"),
    (ids(1, 1, input_mask=Described(0, (1, 1))), "its type must be int32, got "),
    (ids(1, 1, input_mask=Described(10 ** 6, (1, 1))), "its type must be int32, got type 1000000"),
    (ids(1, 1, input_mask=Described(INT32, (1,) * 255)),
     r"its shape must be \(\?, \?\), got \[1, 1, 1, 1, 1, 1, 1, 1, …\]"), (ids(-1, 1), "must have at most"),
    (ids(1, 10, input_mask=Described(INT32, (1, 9))),
     r"the same length, got input_ids: \[1, 10\], input_mask: \[1, 9\]"),
    (ids(2, 1, input_mask=Described(INT32, (1, 1))), "the same number of rows"),
])
def test_what_asks_for_too_much_or_something_else(inputs, message):
    with pytest.raises(RequestError, match=message):
        limits.check_inputs(signature(tf.int32, None, None), inputs, LIMITS)


def test_candidates_are_not_bounded_by_the_model_s_positions():
    wanted, few = signature(tf.string, None, None, names=["x"]), LIMITS._replace(max_ids_length=48)
    assert limits.check_inputs(wanted, {"x": Described(STRING, [2, 64])}, few) == 2
    with pytest.raises(RequestError, match="input x: a row must have at most 64 texts, got 65"):
        limits.check_inputs(wanted, {"x": Described(STRING, [2, 65])}, few)


def test_what_a_signature_leaves_open_is_bounded():
    free = signature(tf.int32, names=["x"])
    free.inputs["x"].tensor_shape.unknown_rank = True
    with pytest.raises(RequestError, match="must have at most 1048576 elements"):
        limits.check_inputs(free, {"x": Described(INT32, [8] + [100] * 9)}, LIMITS)


@pytest.mark.parametrize("message, data", [
    (classification_pb2.ClassificationRequest, b"\x12\x83\x80\x06\x0a\xff\xff\x05" + b"\x0a\x00" * 50000),
    (classification_pb2.ClassificationRequest, b"\x7a\x00" * 50000),  # fields that it does not know
    (predict_pb2.PredictRequest, b"\x1a\x01x" * 50000),
    (predict_pb2.PredictRequest, b"\x12\x00" * 50000),
    (predict_pb2.PredictRequest, b"\x7b\x7c" * 50000),                          # groups
])
def test_messages_of_too_many_fields(message, data):
    with pytest.raises(RequestError, match="at most 1000 fields"):
        limits.check_message(data, message.DESCRIPTOR, LIMITS)


def nested(depth, data):
    """A PredictRequest with `data` as a TensorProto inside so many others, half of them
    VariantTensorDataProtos."""
    for _ in range(depth):
        data = field(FIELDS_OF_TENSOR["variant_val"].number << 3 | 2, field(3 << 3 | 2, data))
    return field(2 << 3 | 2, field(1 << 3 | 2, b"x") + field(2 << 3 | 2, data))


def field(tag, payload):
    return varint(tag) + varint(len(payload)) + payload


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_messages_nested_too_deep_to_be_counted():
    """The parser would build those that lie deeper."""
    floods = field(FIELDS_OF_TENSOR["variant_val"].number << 3 | 2, b"") * 50000
    data = nested(31, floods)
    assert predict_pb2.PredictRequest.FromString(data)
    with pytest.raises(RequestError, match="Could not parse %d bytes" % len(data)):
        limits.check_message(data, predict_pb2.PredictRequest.DESCRIPTOR, LIMITS)


@pytest.mark.parametrize("beyond", [1 << 32, 1 << 34])
def test_tags_of_more_bits_than_the_parser_reads(beyond):
    floods = field(FIELDS_OF_TENSOR["variant_val"].number << 3 | 2, b"") * 50000
    entry = field(1 << 3 | 2, b"x") + field(2 << 3 | 2 | beyond, floods)
    data = field(2 << 3 | 2, entry)
    assert len(predict_pb2.PredictRequest.FromString(data).inputs["x"].variant_val) == 50000
    with pytest.raises(RequestError, match="Could not parse %d bytes" % len(data)):
        limits.check_message(data, predict_pb2.PredictRequest.DESCRIPTOR, LIMITS)


@pytest.mark.parametrize("data", [
    predict_pb2.PredictRequest(output_filter=["x"] * 1000).SerializeToString() + b"\x22" + b"\xff\xff\x03"
    + b"x" * 65535, b"x" * 10,                                 # ASCII: no text in it is anything but UTF-8
])
def test_others_are_left_to_the_parser(data):
    limits.check_message(data, predict_pb2.PredictRequest.DESCRIPTOR, LIMITS._replace(max_fields=50000))


@pytest.mark.parametrize("data", [  # the parser would read on, and write a line about the text behind
    # a length beyond its message
    b"\x12\x1a\x0a\x18\x0a\x0c\x0a\x13\x0a\x11\x0a\x06text_a\x0a\x08" + b"\x80" * 8,
    b"\x0a\x02\x0a\x80\x01x\x1a\x01\xff",     # a number that ends in the next field
    b"\x0a\x03\x0d\x80\x80\x00\x00", b"\x0a\x01\x09\x80",     # numbers of fixed size beyond their message
    b"\xff" * 50000, b"\x00" * 40000, b"\x12" + b"\xff" * 9 + b"\x01" + b"x" * 50000,
    # groups, types and tags that are none
    b"\x0b\x80\x01\x01", b"\x0a\x01\x14\x80", b"\x0e\x80", b"\x80\x80\x80\x80\x80\x01\x00",
])
def test_what_is_malformed_and_no_ascii_never_reaches_the_parser(data):
    with pytest.raises(RequestError, match="Could not parse %d bytes as "
                       "tensorflow.serving.ClassificationRequest" % len(data)):
        limits.check_message(data, classification_pb2.ClassificationRequest.DESCRIPTOR,
                             LIMITS._replace(max_fields=50000))


def test_messages_within_messages_beyond_those_that_are_looked_at():
    tensor = b"\x7a\x03\x0a\x01\xff"           # with a variant, whose text is no UTF-8
    for _ in range(40):
        for field in (b"\x1a", b"\x7a"):      # a variant's tensor, a tensor's variant
            tensor = field + bytes([len(tensor) & 127 | 128, len(tensor) >> 7]) + tensor
    with pytest.raises(RequestError, match="Could not parse"):
        limits.check_message(tensor, TensorProto.DESCRIPTOR, LIMITS)


def test_messages_of_any_language_pass():
    request = predict_pb2.PredictRequest(output_filter=["北京", "x"])
    request.inputs["é"].CopyFrom(tf.make_tensor_proto(["北京".encode(), b"\xff"]))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[-1, 2]], tf.int64))
    limits.check_message(request.SerializeToString(), request.DESCRIPTOR, LIMITS)


def test_what_is_told_of_names():
    assert limits.some(["x" * 100, "y"]) == "x" * 40 + ", y"
    assert limits.some(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, …"
