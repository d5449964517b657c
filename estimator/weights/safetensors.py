"""The file format of Hugging Face's weights: named arrays in one file; reading it runs no code.

Eight bytes, little-endian: the header's length. The header, JSON: by name, dtype, shape and the position in
the data after it. The data (https://huggingface.co/docs/safetensors, "Format"). Here all values are float32.
"""
import json
import os
import struct
from typing import Any, Dict, Mapping

import numpy as np

from etl.common import files, json_text
from etl.common.command_line import UserError

FLOAT32, INT64 = "F32", "I64"

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
    """All float32 arrays of a file by name. int64 arrays are skipped: older files have positions besides the
    weights.

    Raises UserError for a file that is missing, truncated or damaged, or that has weights of a type other
    than float32.
    """
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
        return {name: _array(content, begin, entry)
                for name, entry in header.items() if entry["dtype"] != INT64}
    except _WrongType as error:
        raise UserError("%s: wanted float32 values, got %s: save the model in float32" % (path, error))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError("%s: not a safetensors file, or a damaged one of %d bytes: %s"
                        % (path, os.path.getsize(path), error))


class _WrongType(Exception):
    pass


def _array(content: bytes, begin: int, entry: Mapping[str, Any]) -> np.ndarray:
    (first, last), shape = entry["data_offsets"], entry["shape"]
    if entry["dtype"] != FLOAT32:
        raise _WrongType(entry["dtype"])
    if not 0 <= first <= last <= len(content) - begin:
        raise ValueError("data from %d to %d lie outside the file" % (first, last))
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape must be a list of sizes, got %.60r" % (shape,))
    # A view, for entries may share bytes: copies of a whole file for each name of a long header would fill
    # any memory.
    return np.frombuffer(memoryview(content)[begin + first:begin + last], "<f4").reshape(shape)
