"""Untrusted JSON: parsed only if its nesting depth is reasonable.

JSON parsers recurse for each level, and so does code that walks the values; some crash the process when there
are too many (orjson 3.9 at 150,000 brackets). Python itself refuses integers of over 4,300 digits, which take
quadratic time.
"""
import json
from typing import Any, Union

import numpy as np

MAX_DEPTH = 64                                 # twice the maximum dimensions of a NumPy array

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def loads(text: Union[str, bytes]) -> Any:
    """The value of the JSON in `text`; bytes are UTF-8. Raises ValueError with the reason if refused."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        require_depth(text.encode("utf-8", "surrogatepass"))
    return json.loads(text)


def require_depth(data: bytes) -> None:
    """Raises ValueError for JSON that is nested deeper than MAX_DEPTH, before a parser sees it.

    If `data` is not JSON, at least the part before the error is checked: a parser reads no further.
    """
    # The number of opening brackets is an upper bound that costs almost nothing.
    if _num_opening(data) > MAX_DEPTH and depth(data) > MAX_DEPTH:
        raise ValueError("lists and objects are nested more than %d deep" % MAX_DEPTH)


def require_few(data: bytes, most_values: int, most_containers: int) -> None:
    """Raises ValueError for JSON with more values, or more lists and objects, before a parser creates any:
    `{}` alone takes 240 bytes."""
    most_quotes = 4 * (most_values + most_containers)  # each value may have a key, and both be strings
    if (data.count(b",") < most_values and _num_opening(data) <= most_containers
        and data.count(b'"') <= most_quotes):
        return                                 # however much of it is in strings
    without_escapes = _without_escapes(data)
    if without_escapes.count(b'"') > most_quotes:
        raise ValueError("has more than %d values" % most_values)
    outside_strings = _outside_strings(without_escapes)
    if outside_strings.count(b",") >= most_values:
        raise ValueError("has more than %d values" % most_values)
    if _num_opening(outside_strings) > most_containers:
        raise ValueError("has more than %d lists and objects" % most_containers)


def depth(data: bytes) -> int:
    """The nesting depth of lists and objects: `[{"a": "[[\\"["}]` → 2. Takes linear time for any bytes."""
    brackets = np.frombuffer(_outside_strings(_without_escapes(data)).translate(None, _ALL_BUT_BRACKETS),
                             np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def _num_opening(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")


def _without_escapes(data: bytes) -> bytes:
    """`data` without the escapes that could hide a string's end."""
    # An escape begins with the first of a run of backslashes, so pairs go from the left, and then what
    # escapes a quote.
    return data.replace(b"\\\\", b"").replace(b'\\"', b"")


def _outside_strings(without_escapes: bytes) -> bytes:
    return b"".join(without_escapes.split(b'"')[::2])


def require_whole_characters(value: Any) -> None:
    """Raises ValueError for a JSON value with half of a surrogate pair, which escapes can write but UTF-8
    cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("%s is half a character: its other half is missing"
                         % ascii(error.object[error.start])[1:-1])
