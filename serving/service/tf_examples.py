"""Untrusted tf.Examples → bytes that are safe for TensorFlow.

Its parser (tf.io.parse_example of 1.15) trusts that libraries wrote the bytes, and reads beyond the end of
malformed ones, which crashes the process. So an example is parsed by protocol buffers' own parser and
serialized again.
"""
from typing import Any, Container, Dict, Mapping, Type

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from serving.service import errors


def safe_inputs(inputs: Mapping[str, Any], signature: Any, example_tensors: Container[str]) -> Dict[str, Any]:
    """Inputs of a SignatureDef; what goes to one of `example_tensors` (see SavedModel) as safe examples. They
    may get nothing else.

    Raises RequestError for bytes that are not a tf.Example.
    """
    return {name: np.array([safe_example(item) for item in value], dtype=object)
            if name in signature.inputs and signature.inputs[name].name in example_tensors else value
            for name, value in inputs.items()}


def safe_example(serialized: bytes) -> bytes:
    """The same features, as TensorFlow itself would write them. Of a name that comes twice, the last
    is taken.

    Raises RequestError for bytes that are not a tf.Example.
    """
    found = _ExampleAsRead()
    try:
        # not so where a group ends that has not begun
        is_whole = found.MergeFromString(serialized) == len(serialized)
        features = {entry.key.decode("utf-8"): entry.value for entry in found.features.feature}
    except (DecodeError, UnicodeDecodeError):
        is_whole = False
    if not is_whole:
        raise errors.invalid("Could not parse example input of %d bytes" % len(serialized))
    # A parsed message keeps its unknown fields, also in places that DiscardUnknownFields does not
    # reach.
    safe = tf.train.Example()
    for name, feature in features.items():
        safe.features.feature[name].CopyFrom(feature)
    safe.DiscardUnknownFields()                # of features and their lists, which are copied whole
    return safe.SerializeToString()


def _class_as_read() -> Type[Message]:
    """tf.train.Example with the entries of its map in a list and names as bytes.

    For the map itself, a name that is no UTF-8 would have a line written to standard error for each request.
    """
    file = descriptor_pb2.FileDescriptorProto(name="serving/example_as_read.proto", package="serving",
                                              syntax="proto2",
                                              dependency=["tensorflow/core/example/feature.proto"])
    for name, fields in (("EntryAsRead",
                          [("key", "TYPE_BYTES", ""), ("value", "TYPE_MESSAGE", ".tensorflow.Feature")]),
                         ("FeaturesAsRead", [("feature", "TYPE_MESSAGE", ".serving.EntryAsRead")]),
                         ("ExampleAsRead", [("features", "TYPE_MESSAGE", ".serving.FeaturesAsRead")])):
        message = file.message_type.add(name=name)
        for number, (field, kind, of) in enumerate(fields, 1):
            message.field.add(name=field, number=number, type_name=of or None,
                              type=descriptor_pb2.FieldDescriptorProto.Type.Value(kind),
                              label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if field == "feature"
                              else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.MessageFactory(pool).GetPrototype(
        pool.FindMessageTypeByName("serving.ExampleAsRead"))


_ExampleAsRead: Any = _class_as_read()         # its fields are known at run time alone
