"""JSON from others: read only when it is nested no deeper than any that makes sense.

Parsers of JSON call themselves for each level, and so does what walks the values; some of them end the process when there are
too many (orjson 3.9 at 150,000 brackets). Integers of over 4,300 digits, which take quadratic time, Python itself refuses.
"""
import json
from typing import Any, Union

import numpy as np

MAX_DEPTH = 64                                 # twice the dimensions that an array of NumPy's may have

_OPENING = b"[{"
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def loads(text: Union[str, bytes]) -> Any:
    """The value that `text` is in JSON; bytes are UTF-8. Raises ValueError that says why it is none that we read."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        require_depth(text.encode("utf-8", "surrogatepass"))
    return json.loads(text)


def require_depth(data: bytes) -> None:
    """Raises ValueError for JSON that is nested deeper than MAX_DEPTH, before a parser has seen it.

    Where `data` is no JSON, at least what stands before the mistake is looked at: a parser reads no further.
    """
    # The count of opening brackets is an upper bound that costs next to nothing.
    if len(data) - len(data.translate(None, _OPENING)) > MAX_DEPTH and depth(data) > MAX_DEPTH:
        raise ValueError("lists and objects are nested more than %d deep" % MAX_DEPTH)


def depth(data: bytes) -> int:
    """How deep lists and objects are nested: `[{"a": "[[\\"["}]` → 2. Takes linear time, whatever the bytes are."""
    # An escape begins with the first of a run of backslashes, so pairs go from the left, and then what escapes a quote.
    without_escapes = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = np.frombuffer(outside_strings.translate(None, _ALL_BUT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def require_whole_characters(value: Any) -> None:
    """Raises ValueError for a value of JSON with half of a surrogate pair in it, as escapes alone can write one: UTF-8 has none."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("%s is half a character: its other half is missing" % ascii(error.object[error.start])[1:-1])
