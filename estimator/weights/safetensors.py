"""The file format of Hugging Face's weights: named arrays in one file, or several; reading it runs no code.

Eight bytes, little-endian: the header's length. The header, JSON: by name, dtype, shape and the position in
the data after it. The data (https://huggingface.co/docs/safetensors, "Format"). Here all values are float32;
other floating-point types are converted. For a model in several files, a JSON index says which name is where.
"""
import json
import os
import struct
from typing import Any, Dict, Mapping

import numpy as np

from etl.common import files, json_text
from etl.common.command_line import UserError

FLOAT32, INT64, BFLOAT16 = "F32", "I64", "BF16"
INDEX_ENDING = ".index.json"                   # behind the name that one file would have

_FLOATS = {FLOAT32: "<f4", "F16": "<f2", "F64": "<f8", BFLOAT16: "<u2"}    # as NumPy reads them

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ALIGNMENT = 8                                 # of the data's beginning


def write(path: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays by name, atomically."""
    # transformers requires this field
    header: Dict[str, Any] = {_METADATA: {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": FLOAT32, "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    with files.atomic_write(path) as stream:
        stream.write(_LENGTH.pack(len(text)) + text)
        for value in tensors.values():
            stream.write(np.ascontiguousarray(value, "<f4").tobytes())


def read(path: str) -> Dict[str, np.ndarray]:
    """All arrays of a file, or of several if there is an index in its place, as float32 by name. int64 arrays
    are skipped: older files have positions besides the weights.

    Raises UserError for a file that is missing, truncated or damaged, or that has weights of a type that is
    not floating-point.
    """
    index = path + INDEX_ENDING
    if os.path.isfile(index) and not os.path.isfile(path):
        return _read_shards(index)
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        raise UserError("%s: no such file" % path)
    try:
        length, = _LENGTH.unpack_from(content)
        begin = _LENGTH.size + length
        if begin > len(content):
            raise ValueError("its header claims %d bytes" % length)
        header = json_text.loads(content[_LENGTH.size:begin])
        header.pop(_METADATA, None)
        size = len(content) - begin
        if sum(min(last, size) - first for first, last in (
                entry["data_offsets"] for entry in header.values())) > size:
            raise ValueError("its arrays overlap")
        return {name: _array(content, begin, entry)
                for name, entry in header.items() if entry["dtype"] != INT64}
    except _WrongType as error:
        raise UserError("%s: wanted values of %s, got %s: save the model in float32"
                        % (path, ", ".join(_FLOATS), error))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError("%s: not a safetensors file, or a damaged one of %d bytes: %s"
                        % (path, os.path.getsize(path), error))


def _read_shards(index: str) -> Dict[str, np.ndarray]:
    """The arrays of all files that an index names, which lie beside it."""
    fields = files.read_json(index)
    places = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(places, dict) or not all(
            isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")
            for name in places.values()):
        raise UserError("%s: weight_map must name files beside it" % index)
    found: Dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        found.update(read(os.path.join(os.path.dirname(index), shard)))
    missing = sorted(name for name in places if name not in found and not name.endswith("position_ids"))
    if missing:
        raise UserError("%s: its files hold no %s" % (index, ", ".join(missing[:3])))
    return found


class _WrongType(Exception):
    pass


def _array(content: bytes, begin: int, entry: Mapping[str, Any]) -> np.ndarray:
    (first, last), shape = entry["data_offsets"], entry["shape"]
    if entry["dtype"] not in _FLOATS:
        raise _WrongType(entry["dtype"])
    if not 0 <= first <= last <= len(content) - begin:
        raise ValueError("data from %d to %d lie outside the file" % (first, last))
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape must be a list of sizes, got %.60r" % (shape,))
    values = np.frombuffer(memoryview(content)[begin + first:begin + last], _FLOATS[entry["dtype"]])
    if entry["dtype"] == BFLOAT16:             # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float32, copy=False).reshape(shape)
