"""What one request may ask for: counted from names, types, shapes and lengths, before anything is built of it.

A few bytes can ask for any amount: one value and a shape are a tensor of that shape, two bytes are an example.
"""
import functools
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Sequence

import tensorflow.compat.v1 as tf

from serving.service.errors import invalid

MAX_ELEMENTS = 1 << 20                         # of one tensor, whatever its signature leaves open
SMALL_MESSAGE_BYTES = 32768                    # parsed without a look at its fields: they cannot be many
MAX_DEPTH = 64                                 # of messages within messages; the parser itself goes to 100
TAG_BITS = (1 << 32) - 1                       # the parser drops what is above these
_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)


class Limits(NamedTuple):
    """What one request may ask for."""
    max_batch_size: int                        # rows
    max_text_bytes: int                        # of each string
    max_ids_length: int                        # token ids of each row
    max_fields: int                            # of a gRPC message, or features and values of a request's examples


class Described(NamedTuple):
    """A tensor that has not been built."""
    dtype: int                                 # TensorFlow's number
    shape: Sequence[int]


def check_inputs(signature: Any, inputs: Mapping[str, Described], limits: Limits) -> int:
    """Whether `inputs` are what `signature` takes, and not too much; returns how many rows they have."""
    check_names(inputs, signature.inputs)
    for name, described in inputs.items():
        check_input(name, described, signature.inputs[name], limits)
    (num_rows, *others) = {described.shape[0] if described.shape else 1 for described in inputs.values()}
    if others:
        raise invalid("all inputs must have as many rows as each other, got %s" % ", ".join(
            "%s: %d" % (name, described.shape[0]) for name, described in sorted(inputs.items())))
    _check_lengths(signature, inputs)
    return num_rows


def check_names(got: Iterable[str], wanted: Iterable[str]) -> None:
    """Whether the inputs are those of the signature."""
    if set(got) != set(wanted):
        raise invalid("input size does not match signature: got %s, wanted %s"
                      % (some(sorted(got)) or "none", ", ".join(sorted(wanted))))


def check_input(name: str, described: Described, info: Any, limits: Limits) -> None:
    """Whether a tensor is of the type and shape that `info`, a TensorInfo, says, and within the limits."""
    if described.dtype != info.dtype:
        raise invalid("input %s: its type must be %s, got %s" % (name, type_name(info.dtype), type_name(described.dtype)))
    shape, wanted = described.shape, info.tensor_shape
    if not wanted.unknown_rank and (len(wanted.dim) != len(shape) or any(
            dim.size not in (-1, size) for dim, size in zip(wanted.dim, shape))):
        raise invalid("input %s: its shape must be %s, got [%s]" % (name, tf.TensorShape(wanted), some(shape)))
    if shape:
        check_rows(shape[0], limits)
    longest = max(shape[1:], default=0)
    if longest > limits.max_ids_length:
        raise invalid("input %s: a row must have at most %d token ids, got %d" % (name, limits.max_ids_length, longest))
    check_elements(name, shape)


def check_rows(num_rows: int, limits: Limits) -> None:
    if num_rows > limits.max_batch_size:
        raise invalid("a request must have at most %d rows, got %d" % (limits.max_batch_size, num_rows))


def check_elements(name: str, shape: Sequence[int]) -> None:
    """Whether a shape is possible, and not so large that no signature means it."""
    elements = 1.0                             # the product of 255 sizes is no integer that anything holds
    for size in shape:
        elements *= max(size, 1)
    if min(shape, default=0) < 0 or elements > MAX_ELEMENTS:
        raise invalid("input %s: its shape [%s] is not that of at most %d elements" % (name, some(shape), MAX_ELEMENTS))


def check_examples(num_examples: int, context_fields: int, context_bytes: int, limits: Limits) -> None:
    """Whether so many examples may each get a copy of a context of that size."""
    check_rows(num_examples, limits)
    if context_bytes > limits.max_text_bytes:
        raise invalid("context: an example must have at most %d bytes, got %d" % (limits.max_text_bytes, context_bytes))
    check_fields(num_examples * context_fields, limits)


def check_fields(count: int, limits: Limits) -> None:
    if count > limits.max_fields:
        raise invalid("a request must have at most %d fields, features and values" % limits.max_fields)


def check_message(data: bytes, descriptor: Any, limits: Limits) -> None:
    """Whether a message's fields, those of messages within it included, are few enough to be parsed, and its text is UTF-8.

    Reads no further than to the first field that is too many. What is malformed otherwise is left to the parser, which would
    write a line about text that is no UTF-8 to standard error each time.
    """
    if len(data) > SMALL_MESSAGE_BYTES or not data.isascii():
        check_fields(_count_fields(data, _kinds_of(descriptor), limits.max_fields), limits)


def some(values: Sequence[Any]) -> str:
    """The first few of what a caller has sent, for a message."""
    return ", ".join(str(value)[:40] for value in values[:8]) + (", …" if len(values) > 8 else "")


def type_name(dtype: int) -> str:
    """The name of TensorFlow's number for a type, whether it is one or not."""
    try:
        return str(tf.as_dtype(dtype).name)
    except (KeyError, TypeError):
        return "type %d" % dtype


def _check_lengths(signature: Any, inputs: Mapping[str, Described]) -> None:
    """Rows of inputs with the same open dimensions are as long as each other: the graph puts them side by side."""
    by_rank: dict = {}
    for name, described in sorted(inputs.items()):
        first_name, shape = by_rank.setdefault(len(described.shape), (name, described.shape))
        dims = signature.inputs[name].tensor_shape.dim
        if any(dim.size < 0 and size != other for dim, size, other in zip(dims, described.shape, shape)):
            raise invalid("all inputs must be as long as each other, got %s: %s, %s: %s"
                          % (first_name, list(shape), name, list(described.shape)))


@functools.lru_cache(maxsize=None)
def _kinds_of(descriptor: Any) -> Dict[int, Any]:
    """By field number: the descriptor of the message that a field is, or str for text; other fields are left out."""
    return {field.number: field.message_type or str for field in descriptor.fields
            if field.message_type or field.type == field.TYPE_STRING}


def _count_fields(data: bytes, kinds: Dict[int, Any], most: int) -> int:
    """Fields on the wire, at most one more than `most`. Raises RequestError for text that is no UTF-8, and for messages nested too deep."""
    count, position = 0, 0
    stack = [(len(data), kinds)]               # ends of the messages around `position`
    while stack and count <= most:
        end, kinds = stack[-1]
        if position >= end:
            stack.pop()
            continue
        tag, position = _varint(data, position)
        tag &= TAG_BITS
        count += 1
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _BYTES:
            size, position = _varint(data, position)
            kind = kinds.get(tag >> 3)
            if kind is str:
                _check_text(data[position:position + size])
            elif kind is not None:
                if len(stack) >= MAX_DEPTH:
                    raise invalid("messages must be nested at most %d deep" % MAX_DEPTH)
                stack.append((min(position + size, end), _kinds_of(kind)))
                continue
            position += size
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        elif wire_type not in (_START_GROUP, _END_GROUP):
            break                              # malformed: the parser will say so
    return count


def _check_text(text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("text is not UTF-8: %r" % text[:40])


def _varint(data: bytes, position: int) -> tuple:
    """A number and where the next thing stands; beyond the end of `data` there are zeros."""
    found = shift = 0
    if position < len(data) and data[position] < 128:
        return data[position], position + 1
    for byte in data[position:position + 10]:
        position += 1
        found |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return found, position
    return found, len(data) + 1 if shift < 70 else position
