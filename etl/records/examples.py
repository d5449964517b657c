"""The record format: arrays by name ↔ serialized tf.train.Example in TFRecord framing, without TensorFlow.

TensorFlow's own serialization orders features at random and costs each worker 157 MB, so workers write the
bytes themselves: features sorted by name, int64 lists packed. Tests check them with TensorFlow's parser.
"""
import functools
import mmap
import os
import re
import struct
from typing import IO, Any, Container, Dict, Iterable, Iterator, List, NamedTuple, Tuple

import google_crc32c
import numpy as np

from etl.common.command_line import UserError

INT64, FLOAT = "int64", "float32"

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
_MAX_RECORD_BYTES = 1 << 28  # far above any sample; larger claims by a file are refused
_READ_BYTES = 1 << 20


class Feature(NamedTuple):
    """One feature of a record: a list of `length` numbers of `dtype`, "int64" or "float32"."""
    name: str
    dtype: str
    length: int


# Of held-out records alone: 1 where a segment begins or ends inside a sentence.
CUT_INSIDE_SENTENCE = Feature("cut_inside_sentence", INT64, 1)


def pretraining_features(max_seq_length: int, max_predictions_per_seq: int,
                         with_token_boundary: bool = False) -> Tuple[Feature, ...]:
    """The features of a pretraining record, with the names of BERT's data.

    next_sentence_labels is the sentence-order label (1 = swapped) under BERT's on-disk name.
    token_boundary (1 = first piece of a word, [CLS] or [SEP]) is in Google's format only.
    """
    features = [
        Feature("input_ids", INT64, max_seq_length),
        Feature("input_mask", INT64, max_seq_length),
        Feature("segment_ids", INT64, max_seq_length),
        Feature("masked_lm_positions", INT64, max_predictions_per_seq),
        Feature("masked_lm_ids", INT64, max_predictions_per_seq),
        Feature("masked_lm_weights", FLOAT, max_predictions_per_seq),
        Feature("next_sentence_labels", INT64, 1),
    ]
    if with_token_boundary:
        features.append(Feature("token_boundary", INT64, max_seq_length))
    return tuple(features)


def serialize_examples(values: Dict[str, np.ndarray]) -> List[bytes]:
    """Serializes a tf.train.Example per row: bool and integer arrays become Int64List, float arrays
    FloatList.

    Equal values give equal bytes.

    Args:
      values: {name: [examples, length]}.
    """
    columns: List[Iterable[bytes]] = []
    for name in sorted(values):
        array = values[name]
        kind, payloads = ((_FLOAT_LIST, _rows(array.astype("<f4"))) if array.dtype.kind == "f"
                          else (_INT64_LIST, _packed_varints(array)))
        columns += [[_entry_header(name, kind, len(payload)) for payload in payloads], payloads]
    return [_field(1, b"".join(parts)) for parts in zip(*columns)]


def deserialize_example(record: bytes) -> Dict[str, np.ndarray]:
    """Reads Examples from `serialize_examples`, TensorFlow or any other writer: {name: int64 or float32
    array}; no value for bytes.

    Accepts whatever protocol buffers do, except groups. Raises ValueError for bytes that are not an Example.
    """
    return {name: _numbers(*_packed(feature)) for name, feature in _features_in(record).items()}


def rewritten(record: bytes, names: Container[str]) -> bytes:
    """The features of these names of an untrusted Example, as `serialize_examples` writes them, in any order.

    Raises ValueError as `deserialize_example` does.
    """
    parts = []
    for name, feature in _features_in(record).items():
        # others, too: this must refuse exactly what check_record refuses
        kind, payload = _packed(feature)
        if name in names:
            parts += [_entry_header(name, kind, len(payload)), payload]
    return _field(1, b"".join(parts))


def frame(record: bytes) -> bytes:
    """A record in a TFRecord file: length, masked CRC of the length, bytes, masked CRC of the bytes."""
    length = _LENGTH.pack(len(record))
    return length + _CRC.pack(_masked_crc(length)) + record + _CRC.pack(_masked_crc(record))


def read_frames(stream: IO[bytes], path: str) -> Iterator[bytes]:
    """The records of a TFRecord stream, checked. Raises UserError, naming file and record, if truncated or
    damaged."""
    number = 0
    while True:
        header = stream.read(_HEADER_BYTES)
        if not header:
            return
        if len(header) < _HEADER_BYTES:
            raise UserError("%s: truncated in the header of record %d" % (path, number))
        length, = _LENGTH.unpack(header[:_LENGTH.size])
        if _CRC.unpack(header[_LENGTH.size:])[0] != _masked_crc(header[:_LENGTH.size]):
            raise UserError("%s: record %d: the length does not match its checksum: no TFRecord, or damaged"
                            % (path, number))
        if length > _MAX_RECORD_BYTES:
            raise UserError("%s: record %d claims to have %d bytes, more than the %d that are read"
                            % (path, number, length, _MAX_RECORD_BYTES))
        body = _read(stream, length + _CRC.size)
        if len(body) < length + _CRC.size:
            raise UserError("%s: truncated in record %d: %d of %d bytes"
                            % (path, number, len(body), length + _CRC.size))
        if _CRC.unpack(body[length:])[0] != _masked_crc(body[:length]):
            raise UserError("%s: record %d does not match its checksum: the file is damaged" % (path, number))
        yield body[:length]
        number += 1


def require_true_lengths(path: str) -> None:
    """Raises ValueError if a record of a TFRecord file claims more bytes than the file has.

    TensorFlow's reader allocates the claimed size, and crashes if there is not enough memory. Only the
    headers are read.
    """
    size = os.path.getsize(path)
    if not size:
        return
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = 0
        while at + _HEADER_BYTES <= size:
            at += _HEADER_BYTES + _LENGTH.unpack_from(content, at)[0] + _CRC.size
        if at > size:
            raise ValueError("%s: its last record claims more bytes than there are" % path)


def _read(stream: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes, allocated as they are read: a length that is only claimed takes no memory."""
    if size <= _READ_BYTES:
        return stream.read(size)
    pieces: List[bytes] = []
    while size and (not pieces or pieces[-1]):
        pieces.append(stream.read(min(size, _READ_BYTES)))
        size -= len(pieces[-1])
    return b"".join(pieces)


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF                # negative numbers take ten bytes, as in protocol buffers
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# The varints of all token ids as rows of three bytes, and how many of the three count.
_TABLE_SIZE = 1 << 17
_VARINT_BYTES = np.stack([np.arange(_TABLE_SIZE) >> (7 * place) & 0x7F for place in range(3)],
                         axis=1).astype(np.uint8)
_VARINT_LENGTHS = np.digitize(np.arange(_TABLE_SIZE), [1 << 7, 1 << 14]) + 1
_VARINT_BYTES[np.arange(3) < _VARINT_LENGTHS[:, None] - 1] |= 0x80
_VARINT_COUNTS = np.arange(3) < _VARINT_LENGTHS[:, None]


def _packed_varints(array: np.ndarray) -> List[bytes]:
    """The numbers of each row as varints."""
    if array.dtype == bool:
        return _rows(array)
    if array.dtype == np.int32 and array.size and 0 <= array.min() and array.max() < _TABLE_SIZE:
        counts = np.take(_VARINT_COUNTS, array, axis=0)
        ends = np.cumsum(counts.sum(axis=(1, 2))).tolist()
        packed = np.take(_VARINT_BYTES, array, axis=0)[counts].tobytes()
        return [packed[begin:end] for begin, end in zip([0] + ends, ends)]
    return [b"".join(map(_varint, row)) for row in array.tolist()]


def _rows(array: np.ndarray) -> List[bytes]:
    """The bytes of each row."""
    packed, size = array.tobytes(), array[:1].nbytes
    return [packed[index * size:(index + 1) * size] for index in range(len(array))]


@functools.lru_cache(1 << 14)
def _entry_header(name: str, kind: int, length: int) -> bytes:
    """The bytes before a feature's numbers in the map of features, for numbers of so many bytes."""
    numbers = _header(1, length)               # FloatList or Int64List { packed value }
    feature = _header(kind, len(numbers) + length) + numbers
    entry = _field(1, name.encode("utf-8")) + _header(2, len(feature) + length) + feature
    return _header(1, len(entry) + length) + entry


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return _header(number, len(payload)) + payload


def _header(number: int, length: int) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(length)


def _read_varint(data: bytes, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        if shift > 63:
            raise IndexError("varint of over 64 bits")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5    # wire types; no Example has groups (3, 4)
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3                # fields of a Feature
_LONG_VARINT = re.compile(rb"[\x80-\xff]{10}")
_NO_EXAMPLE = "not a serialized tf.train.Example"


def _fields(data: bytes) -> Iterator[Tuple[int, int, Any]]:
    """Number, wire type and content of each field of a message: an integer for a varint, otherwise bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise IndexError("field 0")
        if wire_type == _DELIMITED:
            length, at = (data[at], at + 1) if data[at] < 0x80 else _read_varint(data, at)
        elif wire_type == _VARINT:
            content, at = _read_varint(data, at)
            yield number, wire_type, content
            continue
        elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if wire_type == _EIGHT_BYTES else 4
        else:
            raise IndexError("wire type %d" % wire_type)
        if at + length > end:
            raise IndexError("field reaches past the end")
        yield number, wire_type, data[at:at + length]
        at += length


def _messages(data: bytes, number: int) -> List[bytes]:
    """The contents of a message's fields of this number that are messages or strings."""
    return [content for found, wire_type, content in _fields(data)
            if found == number and wire_type == _DELIMITED]


def _features_in(record: bytes) -> Dict[str, bytes]:
    """The serialized Features of an Example by name; of a repeated name, the last. Raises ValueError if it is
    not an Example."""
    found = {}
    try:
        for features in _messages(record, 1):
            for entry in _messages(features, 1):
                name, values = b"", []
                for number, wire_type, content in _fields(entry):
                    if wire_type == _DELIMITED and number == 1:
                        name = content
                    elif wire_type == _DELIMITED and number == 2:
                        values.append(content)
                found[name.decode("utf-8")] = b"".join(values)
    except (IndexError, UnicodeDecodeError):
        raise ValueError(_NO_EXAMPLE)
    return found


def _packed(feature: bytes) -> Tuple[int, bytes]:
    """The kind of a Feature's list, and its numbers packed: of several lists, the last one's kind and the
    lists of that kind directly before it count. A list of bytes has no numbers. Raises ValueError if it is
    not a Feature.
    """
    last = _INT64_LIST
    lists: List[bytes] = []
    try:
        for kind, wire_type, content in _fields(feature):
            if kind in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST) and wire_type == _DELIMITED:
                lists = lists + [content] if kind == last else [content]
                last = kind
        items = [(wire_type, content)
                 for number, wire_type, content in _fields(b"".join(lists)) if number == 1]
    except IndexError:
        raise ValueError(_NO_EXAMPLE)
    if last == _FLOAT_LIST:
        parts = [content for wire_type, content in items if wire_type in (_DELIMITED, _FOUR_BYTES)]
        is_whole = not any(len(part) % 4 for part in parts)
    elif last == _INT64_LIST:
        parts = [_varint(content) if wire_type == _VARINT else content for wire_type, content in items
                 if wire_type in (_DELIMITED, _VARINT)]
        is_whole = not any(part and part[-1] > 0x7F or _LONG_VARINT.search(part) for part in parts)
    else:
        parts, is_whole = [], True
    if not is_whole:
        raise ValueError(_NO_EXAMPLE)
    return last, b"".join(parts)


def _numbers(kind: int, payload: bytes) -> np.ndarray:
    if kind == _FLOAT_LIST:
        return np.frombuffer(payload, dtype="<f4").astype(np.float32)
    numbers, at = [], 0
    while at < len(payload):
        value, at = _read_varint(payload, at)
        numbers.append(value)
    return np.array(numbers, dtype=np.uint64).astype(np.int64)
