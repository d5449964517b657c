"""The cost of one request: computed from names, types, shapes and lengths, before anything is built from
it.

A few bytes can ask for any amount: one value and a shape make a tensor of that shape, two bytes make
an example.
"""
import functools
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Sequence, Tuple

import tensorflow.compat.v1 as tf

from serving.service.errors import RequestError, invalid
from serving.version_files import MAX_CANDIDATES

MAX_ELEMENTS = 1 << 20                         # of one tensor, for any signature
SMALL_MESSAGE_BYTES = 32768                    # it cannot have many fields, and they are not counted
MAX_DEPTH = 64                                 # of nested messages; the parser's own limit is 100
_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_TAG = 2 ** 32 - 1


class _Malformed(Exception):
    """Bytes that are not a message."""


class Limits(NamedTuple):
    """Limits on one request."""
    max_batch_size: int                 # rows
    max_text_bytes: int                 # of each string
    max_ids_length: int                 # token ids of each row; texts of each are at least MAX_CANDIDATES
    max_fields: int                     # of a gRPC message, or features and values of a request's examples


class Described(NamedTuple):
    """The type and shape of a tensor that has not been built."""
    dtype: int                                 # TensorFlow's number
    shape: Sequence[int]


def check_inputs(signature: Any, inputs: Mapping[str, Described], limits: Limits) -> int:
    """The number of rows of `inputs`. Raises RequestError unless they fit `signature` and the limits."""
    check_names(inputs, signature.inputs)
    for name, described in inputs.items():
        check_input(name, described, signature.inputs[name], limits)
    rows = {name: described.shape[0] if described.shape else 1 for name, described in inputs.items()}
    counts = set(rows.values())
    if len(counts) > 1:
        got = ", ".join("%s: %d" % item for item in sorted(rows.items()))
        raise invalid("all inputs must have the same number of rows, got %s" % got)
    _check_lengths(signature, inputs)
    return counts.pop()


def check_names(got: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises RequestError unless the inputs are those of the signature."""
    if set(got) != set(wanted):
        raise invalid("input size does not match signature: got %s, wanted %s"
                      % (some(sorted(got)) or "none", ", ".join(sorted(wanted))))


def check_input(name: str, described: Described, info: Any, limits: Limits) -> None:
    """Raises RequestError unless a tensor has the type and shape of `info`, a TensorInfo, and is within
    the limits."""
    if described.dtype != info.dtype:
        raise invalid("input %s: its type must be %s, got %s"
                      % (name, type_name(info.dtype), type_name(described.dtype)))
    shape, wanted = described.shape, info.tensor_shape
    has_rank = len(wanted.dim) == len(shape)
    has_sizes = all(dim.size in (-1, size) for dim, size in zip(wanted.dim, shape))
    if not wanted.unknown_rank and not (has_rank and has_sizes):
        raise invalid("input %s: its shape must be %s, got [%s]"
                      % (name, tf.TensorShape(wanted), some(shape)))
    if shape:
        check_rows(shape[0], limits)
    longest = max(shape[1:], default=0)
    most, what = limits.max_ids_length, "token ids"
    if described.dtype == tf.string.as_datatype_enum:    # candidates, whatever positions the model has
        most, what = max(most, MAX_CANDIDATES), "texts"
    if longest > most:
        raise invalid("input %s: a row must have at most %d %s, got %d" % (name, most, what, longest))
    check_elements(name, shape)


def check_rows(num_rows: int, limits: Limits) -> None:
    if num_rows > limits.max_batch_size:
        raise invalid("a request must have at most %d rows, got %d" % (limits.max_batch_size, num_rows))


def check_elements(name: str, shape: Sequence[int]) -> None:
    """Raises RequestError for an invalid shape, and for one that is too large for any signature."""
    elements = 1.0                             # a float: the product of 255 sizes may be a huge integer
    for size in shape:
        elements *= max(size, 1)
    if min(shape, default=0) < 0 or elements > MAX_ELEMENTS:
        raise invalid("input %s: its shape [%s] must have at most %d elements, and no negative size"
                      % (name, some(shape), MAX_ELEMENTS))


def check_examples(num_examples: int, context_fields: int, context_bytes: int, limits: Limits) -> None:
    """Raises RequestError if a context of that size, copied to so many examples, is too large."""
    check_rows(num_examples, limits)
    if context_bytes > limits.max_text_bytes:
        raise invalid("context: an example must have at most %d bytes, got %d"
                      % (limits.max_text_bytes, context_bytes))
    check_fields(num_examples * context_fields, limits)


def check_fields(count: int, limits: Limits) -> None:
    if count > limits.max_fields:
        raise invalid("a request must have at most %d fields, features and values" % limits.max_fields)


def check_message(data: bytes, descriptor: Any, limits: Limits) -> None:
    """Raises RequestError when a message has too many fields, nested ones included, or text that is
    not UTF-8.

    Stops at the first field beyond the limit. For text that is not UTF-8 the parser would write a line to
    standard error each time, even if it then finds the message malformed: so it never receives a malformed
    message that may contain such text.
    """
    if len(data) > SMALL_MESSAGE_BYTES or not data.isascii():
        try:
            check_fields(_count_fields(data, _kinds_of(descriptor), limits.max_fields), limits)
        except _Malformed:
            raise not_parsed(data, descriptor)


def not_parsed(data: bytes, descriptor: Any) -> RequestError:
    return invalid("Could not parse %d bytes as %s" % (len(data), descriptor.full_name))


def some(values: Sequence[Any]) -> str:
    """The first few values that a client sent, for an error message."""
    return ", ".join(str(value)[:40] for value in values[:8]) + (", …" if len(values) > 8 else "")


def type_name(dtype: int) -> str:
    """The name of a type, by TensorFlow's number for it, which may be unknown."""
    try:
        return str(tf.as_dtype(dtype).name)
    except (KeyError, TypeError):
        return "type %d" % dtype


def _check_lengths(signature: Any, inputs: Mapping[str, Described]) -> None:
    """Raises RequestError unless inputs of equal rank have equal sizes in unspecified dimensions: the graph
    combines them element by element.
    """
    first_by_rank: Dict[int, Tuple[str, Sequence[int]]] = {}
    for name, described in sorted(inputs.items()):
        first_name, first_shape = first_by_rank.setdefault(len(described.shape), (name, described.shape))
        dims = signature.inputs[name].tensor_shape.dim
        if any(dim.size < 0 and size != first
               for dim, size, first in zip(dims, described.shape, first_shape)):
            raise invalid("all inputs must have the same length, got %s: %s, %s: %s"
                          % (first_name, list(first_shape), name, list(described.shape)))


@functools.lru_cache(maxsize=None)
def _kinds_of(descriptor: Any) -> Dict[int, Any]:
    """By field number: the descriptor of a message field, or str for a text field; other fields are left
    out."""
    texts = {field.number: str for field in descriptor.fields if field.type == field.TYPE_STRING}
    return {**texts, **{field.number: field.message_type
                        for field in descriptor.fields if field.message_type}}


def _count_fields(data: bytes, kinds: Dict[int, Any], most: int) -> int:
    """The number of fields on the wire, at most one more than `most`. Raises RequestError for text that is
    not UTF-8, _Malformed."""
    count, position = 0, 0
    # the messages around `position`, the innermost last: end, kinds of fields, open groups
    stack = [(len(data), kinds, 0)]
    while stack and count <= most:
        end, kinds, groups = stack[-1]
        if position == end and not groups:
            stack.pop()
            continue
        tag, position = _varint(data, position, end)
        if tag < 8 or tag > _MAX_TAG:
            raise _Malformed
        count += 1
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position, end)
        elif wire_type == _BYTES:
            size, position = _varint(data, position, end)
            if size > end - position:
                raise _Malformed
            kind = kinds.get(tag >> 3)
            if kind is str:
                _check_text(data[position:position + size])
            elif kind is not None:
                if len(stack) >= MAX_DEPTH:
                    raise _Malformed
                stack.append((position + size, _kinds_of(kind), 0))
                continue
            position += size
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
            if position > end:
                raise _Malformed
        elif wire_type in (_START_GROUP, _END_GROUP):
            groups += 1 if wire_type == _START_GROUP else -1
            if groups < 0:
                raise _Malformed
            stack[-1] = (end, kinds, groups)
        else:
            raise _Malformed
    return count


def _check_text(text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("text is not UTF-8: %r" % text[:40])


def _varint(data: bytes, position: int, end: int) -> Tuple[int, int]:
    """A number and the position after it. Raises _Malformed for one that extends beyond `end`, or has more
    than ten bytes."""
    if position < end and data[position] < 128:
        return data[position], position + 1
    found = shift = 0
    for byte in data[position:min(position + 10, end)]:
        position += 1
        found |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return found, position
    raise _Malformed
