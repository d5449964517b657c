"""TensorFlow Serving's configuration files: protocol buffers in their text format."""
from typing import Any, Dict, Sequence, Tuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from etl.common import files
from etl.common.command_line import UserError

_PACKAGE = "serving.configs"
_INT64, _STRING = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"
# Messages that tensorflow-serving-api lacks, by the names and types of their fields. Text has no field
# numbers, so these are ours.
_MESSAGES: Dict[str, Sequence[Tuple[str, str, str]]] = {
    "BatchingParameters": [
        ("max_batch_size", "optional", _INT64), ("batch_timeout_micros", "optional", _INT64),
        ("max_enqueued_batches", "optional", _INT64), ("num_batch_threads", "optional", _INT64),
        ("thread_pool_name", "optional", _STRING), ("allowed_batch_sizes", "repeated", "int64"),
        ("pad_variable_length_inputs", "optional", "bool")],
    "PrometheusConfig": [("enable", "optional", "bool"), ("path", "optional", "string")],
    "MonitoringConfig": [("prometheus_config", "optional", ".%s.PrometheusConfig" % _PACKAGE)],
}


def read(path: str, message: Message, flag: str) -> None:
    """Fills `message` from the text in a file. Raises UserError naming the flag, file, line and column."""
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode("utf-8-sig")
    except OSError as error:
        raise UserError("%s: %s: %s" % (flag, path, error.strerror or error))
    except UnicodeDecodeError as error:
        raise UserError("%s: %s: %s" % (flag, path, files.not_utf8(error)))
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:    # begins with line:column
        raise UserError("%s: %s:%s" % (flag, path, error))


def new(name: str) -> Any:
    """An empty BatchingParameters or MonitoringConfig."""
    return _CLASSES[name]()


def _classes() -> Dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="serving/configs.proto", package=_PACKAGE, syntax="proto2",
                                              dependency=[wrappers_pb2.DESCRIPTOR.name])
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, label, kind) in enumerate(fields, 1):
            is_message = kind.startswith(".")
            message.field.add(name=field, number=number, type_name=kind if is_message else None,
                              type=kinds.Type.Value("TYPE_MESSAGE" if is_message else "TYPE_" + kind.upper()),
                              label=kinds.Label.Value("LABEL_" + label.upper()))
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName("%s.%s" % (_PACKAGE, name)))
            for name in _MESSAGES}


_CLASSES = _classes()
