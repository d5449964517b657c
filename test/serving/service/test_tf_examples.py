import random

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.service.errors import RequestError
from serving.service.tf_examples import safe_example, safe_inputs

pytestmark = pytest.mark.filterwarnings("ignore:Unexpected end-group tag:RuntimeWarning")


def example(**features):
    made = tf.train.Example()
    for name, text in features.items():
        made.features.feature[name].bytes_list.value.append(text.encode())
    return made


def test_examples_as_tensorflow_writes_them():
    serialized = example(text_a="北").SerializeToString()
    assert safe_example(serialized) == serialized
    assert safe_example(serialized + b"\x7a\x01x") == serialized          # an unknown field
    assert safe_example(b"") == b""


def varied_example(rng):
    """Serialized, and written as no library does: names twice, fields nobody knows, kinds one after the
    other, groups."""
    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    def unknown():
        return rng.choice([b"", b"", b"", b"", b"\x38\x07", b"\x7a\x02xy", b"\x7b\x08\x01\x7c", b"\x3d1234",
                           b"\x7a\x7f"])

    def feature():
        kinds = {1: field(1, rng.choice([b"", b"abc", "北京".encode()])),
                 2: rng.choice([field(1, b"1234"), b"\x0d1234"]),
                 3: rng.choice([field(1, b"\x07\x08"), b"\x08\x07"])}
        chosen = [rng.choice([1, 1, 1, 2, 3]) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        return unknown() + b"".join(field(kind, kinds[kind] + unknown()) for kind in chosen)
    entries = [field(1, field(1, rng.choice([b"text_a", b"text_a", b"text_b", b"n"])) + unknown()
                     + field(2, feature()) + unknown()) for _ in range(rng.choice([1, 2, 3]))]
    serialized = bytearray(field(1, b"".join(entries)[:127]) + unknown())
    for _ in range(rng.choice([0, 0, 1, 3])):
        serialized[rng.randrange(len(serialized))] = rng.randrange(256)
    return bytes(serialized[:rng.choice([len(serialized)] * 5 + [rng.randrange(len(serialized))])])


def test_what_is_safe_holds_what_was_read_and_nothing_else():
    """Held against a message into which each value is put by hand: TensorFlow's own parser could end
    the tests."""
    num_read = 0
    for seed in range(2000):
        serialized = varied_example(random.Random(seed))
        try:
            found = tf.train.Example.FromString(safe_example(serialized))
        except RequestError:
            continue
        num_read += 1
        wanted = tf.train.Example()
        for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
            kind = feature.WhichOneof("kind")
            wanted.features.feature[name].SetInParent()
            if kind:
                getattr(wanted.features.feature[name], kind).SetInParent()
                getattr(wanted.features.feature[name], kind).value.extend(getattr(feature, kind).value)
        assert found == wanted and len(safe_example(serialized)) == wanted.ByteSize(), serialized
    assert num_read > 300


def test_a_name_that_comes_twice_stands_once_and_unknown_fields_of_an_entry_go():
    entry = b"\n\x0f\n\x06text_a\x12\x05\n\x03\n\x01%s"
    with_unknown = b"\n\x13\n\x06text_a\x12\x05\n\x03\n\x01c\x7a\x02xy"
    wanted = example(text_a="c").SerializeToString()
    assert safe_example(b"\n\x26" + entry % b"a" + with_unknown) == wanted
    assert safe_example(b"\n\x15" + with_unknown) == wanted


def test_only_inputs_that_the_graph_parses_examples_from_are_made_safe():
    signature = meta_graph_pb2.SignatureDef()
    signature.inputs["examples"].name, signature.inputs["text"].name = "parsed:0", "text:0"
    inputs = {"examples": np.array([b"\x7a\x01x"], dtype=object), "text": np.array([b"\xff"], dtype=object)}
    found = safe_inputs(inputs, signature, {"parsed:0"})
    assert found["examples"].tolist() == [b""] and found["text"] is inputs["text"]


@pytest.mark.parametrize("serialized", [b"\xff", b"\n\x05", b"abc", b"\n\x00\x0c\n\x00"])
def test_what_is_no_example(serialized):
    with pytest.raises(RequestError, match="Could not parse example input of %d bytes" % len(serialized)):
        safe_example(serialized)
