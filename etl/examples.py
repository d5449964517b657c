"""The record contract, both ways: instances ↔ serialized tf.train.Example in TFRecord framing, without TensorFlow.

TensorFlow's own serialization orders features at random and costs each worker 157 MB, so workers write the bytes
themselves: features sorted by name, int64 lists packed. Tests hold them against TensorFlow's parser.
"""
import functools
import struct
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import google_crc32c
import numpy as np

from etl.command_line import UserError
from etl.instances import Instances

INT64, FLOAT = "int64", "float32"

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
_MAX_RECORD_BYTES = 1 << 28                    # far above any sample; what a file claims is not believed beyond it
_READ_BYTES = 1 << 20


class Feature(NamedTuple):
    """One feature of a record: a list of `length` numbers of `dtype`, "int64" or "float32"."""
    name: str
    dtype: str
    length: int


def pretraining_features(max_seq_length: int, max_predictions_per_seq: int,
                         with_token_boundary: bool = False) -> Tuple[Feature, ...]:
    """The features of a pretraining record, in the names of BERT's data.

    next_sentence_labels holds the sentence-order label (1 = swapped) under BERT's on-disk name.
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


def instance_features(instances: Instances, with_token_boundary: bool = False) -> Dict[str, np.ndarray]:
    """The values of `pretraining_features`: {name: bool, int32 or float32 array [samples, length]}."""
    places = np.arange(instances.input_ids.shape[1])
    slots = np.arange(instances.masked_lm_ids.shape[1])
    input_mask = places < instances.lengths[:, None]
    values = {
        "input_ids": instances.input_ids,
        "input_mask": input_mask,
        "segment_ids": input_mask & (places >= instances.first_lengths[:, None]),
        "masked_lm_positions": instances.masked_lm_positions,
        "masked_lm_ids": instances.masked_lm_ids,
        "masked_lm_weights": (slots < instances.num_predictions[:, None]).astype(np.float32),
        "next_sentence_labels": instances.labels[:, None] == 1,
    }
    if with_token_boundary:
        values["token_boundary"] = instances.word_starts
    return values


def encode_examples(values: Dict[str, np.ndarray]) -> List[bytes]:
    """Serializes a tf.train.Example for each row: bool and integer arrays become Int64List, float arrays FloatList.

    Equal values, equal bytes.

    Args:
      values: {name: [examples, length]}.
    """
    columns: List[Iterable[bytes]] = []
    for name in sorted(values):
        array = values[name]
        kind, payloads = (2, _rows(array.astype("<f4"))) if array.dtype.kind == "f" else (3, _packed_varints(array))
        columns += [[_entry_header(name, kind, len(payload)) for payload in payloads], payloads]
    return [_field(1, b"".join(parts)) for parts in zip(*columns)]


def decode_example(record: bytes) -> Dict[str, np.ndarray]:
    """Reads what `encode_example` (or TensorFlow) wrote: {name: int64 or float32 array}. ValueError if it is none."""
    values: Dict[str, np.ndarray] = {}
    try:
        for _, features in _fields(record):
            for _, entry in _fields(features):
                pair = dict(_fields(entry))
                values[pair[1].decode("utf-8")] = _decode_feature(pair.get(2, b""))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):    # ValueError: UTF-8, bytes that are no floats
        raise ValueError("not a serialized tf.train.Example")
    return values


def frame(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file: length, masked CRC of the length, bytes, masked CRC of the bytes."""
    length = _LENGTH.pack(len(record))
    return length + _CRC.pack(_masked_crc(length)) + record + _CRC.pack(_masked_crc(record))


def read_frames(stream: IO[bytes], path: str) -> Iterator[bytes]:
    """The records of a TFRecord stream, checked. Raises UserError, naming file and record, when cut off or damaged."""
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
            raise UserError("%s: truncated in record %d: %d of %d bytes" % (path, number, len(body), length + _CRC.size))
        if _CRC.unpack(body[length:])[0] != _masked_crc(body[:length]):
            raise UserError("%s: record %d does not match its checksum: the file is damaged" % (path, number))
        yield body[:length]
        number += 1


def _read(stream: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes. Room is made as they come: a length that the file only claims takes no memory."""
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
_VARINT_BYTES = np.stack([np.arange(_TABLE_SIZE) >> (7 * place) & 0x7F for place in range(3)], axis=1).astype(np.uint8)
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
    """What stands before a feature's numbers in the map of features, when these take so many bytes."""
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
            return value, at
        shift += 7


def _fields(data: Any) -> Iterator[Tuple[int, Any]]:
    """Number and content of each field of a message: bytes, or an integer where the field is one."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 == 2:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise IndexError("field reaches past the end")
            yield tag >> 3, data[at:at + length]
            at += length
        elif tag & 7 == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 5:
            yield tag >> 3, data[at:at + 4]
            at += 4
        else:
            raise IndexError("wire type %d" % (tag & 7))


def _decode_feature(feature: bytes) -> np.ndarray:
    for kind, content in _fields(feature):
        items = list(_fields(content))
        if kind == 2:
            return np.frombuffer(b"".join(item for _, item in items), dtype="<f4").astype(np.float32)
        if kind == 3:
            numbers: List[int] = []
            for _, item in items:
                numbers.extend([item] if isinstance(item, int) else _unpack_varints(item))
            return np.array([n - (1 << 64) if n >> 63 else n for n in numbers], dtype=np.int64)
    return np.array([], dtype=np.int64)


def _unpack_varints(data: bytes) -> Sequence[int]:
    numbers, at = [], 0
    while at < len(data):
        value, at = _read_varint(data, at)
        numbers.append(value)
    return numbers
