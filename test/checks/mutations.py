"""Bodies, tf.Examples and gRPC messages that are nearly right: each a function of a random generator and of a
good one."""
import base64
import copy
import json
import random
from typing import Any, Callable, List, Optional, Sequence, Tuple

MAX_BYTES = 1 << 19                            # of a mutant
NUMBERS = (0, 1, -1, 2, 127, 128, 255, 2 ** 20, 2 ** 31 - 1, 2 ** 31, -2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63 - 1,
           2 ** 63, -2 ** 63, 2 ** 64, 10 ** 40, 0.5, 1e308, -1e-320, float("nan"), float("inf"))
TEXTS = ("", "北京", "a", "\0", "\ud800", "\udfff\ud800", "\uffff", "𝄞", "e\u0301", "\u202e", " ", "[MASK]",
         "[CLS]", "x" * 300, "-1", "null", "\ufeff", "\U0010ffff")
KEYS = ("instances", "inputs", "examples", "context", "signature_name", "text_a", "text_b", "input_ids",
        "input_mask", "segment_ids", "b64", "", "__proto__", "\ud800", "label")
DEPTHS = (2, 33, 100, 1000)
VERY_DEEP = 150000
LENGTHS = (0, 1, 2, 127, 128, 2 ** 14, 2 ** 20, 2 ** 31 - 1, 2 ** 32, 2 ** 63 - 1, 2 ** 64 - 1)


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to four changes anywhere; `other` may be spliced in."""
    made = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(made) + 1)
        to = min(len(made), at + rng.choice((1, 1, 2, 4, 8, 64)))
        change = rng.randrange(8)
        if change == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif change == 1 and at < len(made):
            made[at] = rng.choice((0, 0x0a, 0x22, 0x5b, 0x5c, 0x7b, 0x7f, 0x80, 0xc0, 0xed, 0xff))
        elif change == 2:
            del made[at:to]
        elif change == 3:
            made[at:at] = made[at:to] * rng.choice((1, 2, 10, 200))
        elif change == 4:
            made[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        elif change == 5:
            del made[at:]
        elif change == 6 and other:
            made[at:] = other[rng.randrange(len(other)):]
        else:
            made[at:to] = reversed(made[at:to])
    return bytes(made[:MAX_BYTES])


def mutate_json(rng: random.Random, value: Any) -> bytes:
    """One to three changes of the structure, then now and then one of the text."""
    made = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        made = _change_node(rng, made)
    text = json.dumps(made, ensure_ascii=True).encode("ascii")
    change = rng.randrange(12)
    if change == 0:
        text = text.replace(b'":', rng.choice((b'": 1, "text_a":', b'":"x","signature_name":', b'" :\t')),
                            1)    # keys twice
    elif change == 1:
        text = _deepened(rng, text)
    elif change == 2:
        text = json.dumps(made, ensure_ascii=False).encode("utf-8", rng.choice(("surrogatepass", "replace")))
    elif change == 3:
        text = rng.choice((b"\xef\xbb\xbf%s", b"%s,", b"[%s]", b" \n%s\0", b"%s%%s" % text[:40],
                           b"//%s")).replace(b"%s", text, 1)
    return text[:MAX_BYTES]


def _copied(value: Any) -> Any:
    """A copy; the value itself where it is nested too deep for Python to copy."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return value


def _deepened(rng: random.Random, text: bytes) -> bytes:
    """Brackets around a value or instead of it, closed or not."""
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"b64":', b"}]")))
    depth = min(VERY_DEEP if rng.random() < 0.05 else rng.choice(DEPTHS),
                (MAX_BYTES - 200) // len(opening + closing))
    inside = rng.choice((b"1", b"[]", b"{}", b"", text[:100]))
    deep = opening * depth + inside + closing * rng.choice((depth, depth, depth, 0, depth - 1))
    return rng.choice((deep, b'{"%s":%s}' % (rng.choice((b"inputs", b"instances", b"examples", b"context")),
                                             deep),
                       text[:-1] + b',"x":' + deep + b"}", deep + text))


def _change_node(rng: random.Random, root: Any) -> Any:
    places: List[Tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])
    if not isinstance(root, (dict, list)):
        return _odd(rng)
    walk(root)
    if not places or rng.random() < 0.03:
        return rng.choice((_odd(rng), [root], {"inputs": root}))
    node, key = rng.choice(places)
    change = rng.randrange(8)
    if change < 3:
        node[key] = _odd(rng)
    elif change == 3:
        del node[key]
    elif change == 4:
        node[key] = [node[key]]
    elif change == 5:
        node[key] = [_copied(node[key]) for _ in range(rng.choice((2, 3, 33, 200)))]
    elif change == 6 and isinstance(node, dict):
        node[rng.choice(KEYS)] = node.pop(key)
    else:
        node[key] = {rng.choice(KEYS): node[key]}
    return root


def _odd(rng: random.Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((None, True, False, [], {}, [[]], [{}]))
    if kind == 3:
        return {"b64": rng.choice(("", "!", "5YyX5Lqs", "5YyX5Lqs=", "\ud800", 1, None))}
    if kind == 4:
        return [rng.choice(NUMBERS + TEXTS) for _ in range(rng.randint(0, 5))]
    return {rng.choice(KEYS): rng.choice(NUMBERS + TEXTS) for _ in range(rng.randint(0, 3))}


# A message as its wire format has it: (number, wire type, value), the value an int, bytes, or such
# fields again.
Field = List[Any]
VARINT, FIXED64, BYTES, START, END, FIXED32 = range(6)


def mutate_message(rng: random.Random, message: bytes) -> bytes:
    """One to three changes of a protobuf's fields, at any depth, or one of its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, message, message)
    fields = read_fields(message) or []
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_fields(rng, fields)
    made = write_fields(fields)
    return made[:rng.choice((MAX_BYTES,) * 9 + (rng.randint(0, len(made)),))]


def read_fields(data: bytes) -> Optional[List[Field]]:
    """None for what is no message; text may look like one, which does no harm here."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if at > len(data) or not tag >> 3 or tag >> 3 > 1000 or kind in (START, END) or kind > FIXED32:
            return None
        if kind == VARINT:
            value, at = _read_varint(data, at)
        else:
            size, at = _read_varint(data, at) if kind == BYTES else (8 if kind == FIXED64 else 4, at)
            value, at = data[at:at + size], at + size
        if at > len(data):
            return None
        if kind == BYTES:
            value = read_fields(value) or value
        fields.append([tag >> 3, kind, value])
    return fields


def write_fields(fields: Sequence[Field]) -> bytes:
    """A value that is (length, bytes) says another length than it has."""
    made = []
    for number, kind, value in fields:
        made.append(_varint(number << 3 | kind))
        if isinstance(value, list):
            value = write_fields(value)
        if isinstance(value, tuple):
            made += [_varint(value[0]), value[1]]
        elif isinstance(value, int):
            made.append(_varint(value))
        else:
            made += [_varint(len(value)), value] if kind == BYTES else [value]
    return b"".join(made)


def _change_fields(rng: random.Random, root: List[Field]) -> None:
    fields = root
    while True:                                # as deep as it comes
        inner = [field[2] for field in fields if isinstance(field[2], list)]
        if not inner or rng.random() < 0.2:
            break
        fields = rng.choice(inner)
    if not fields or rng.random() < 0.15:
        fields.insert(rng.randrange(len(fields) + 1), _unknown_field(rng))
        return
    field = rng.choice(fields)
    _CHANGES[rng.randrange(len(_CHANGES))](rng, fields, field)


def _twice(rng: random.Random, fields: List[Field], field: Field) -> None:
    fields[rng.randrange(len(fields) + 1):0] = [_copied(field) for _ in range(rng.choice((1, 1, 2, 40)))]


def _without(rng: random.Random, fields: List[Field], field: Field) -> None:
    fields.remove(field)


def _shuffled(rng: random.Random, fields: List[Field], field: Field) -> None:
    rng.shuffle(fields)


def _renumbered(rng: random.Random, fields: List[Field], field: Field) -> None:
    field[0] = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 1000, 2 ** 29 - 1, 2 ** 29, 0))


def _of_another_kind(rng: random.Random, fields: List[Field], field: Field) -> None:
    field[1] = rng.choice((VARINT, FIXED64, BYTES, START, END, FIXED32, 6, 7))


def _of_another_value(rng: random.Random, fields: List[Field], field: Field) -> None:
    if field[1] == VARINT:
        field[2] = rng.choice(LENGTHS)
    elif isinstance(field[2], bytes):
        field[2] = mutate_bytes(rng, field[2])
    else:
        field[2] = rng.choice((b"", b"\0", b"\xff" * 10, [], "北".encode() * 100))


def _of_another_length(rng: random.Random, fields: List[Field], field: Field) -> None:
    if field[1] == BYTES:
        data = write_fields(field[2]) if isinstance(field[2], list) else field[2]
        if isinstance(data, bytes):
            field[2] = (rng.choice((len(data) + 1, max(0, len(data) - 1), *LENGTHS)), data)


def _packed(rng: random.Random, fields: List[Field], field: Field) -> None:
    """Numbers packed that were not, and the other way round."""
    if isinstance(field[2], int):
        field[1:] = [BYTES, _varint(field[2]) * rng.choice((1, 2, 100))]
    elif field[1] == BYTES and isinstance(field[2], bytes):
        fields.extend([field[0], VARINT, byte] for byte in field[2][:50])


def _within(rng: random.Random, fields: List[Field], field: Field) -> None:
    """A message in itself, some times over."""
    for _ in range(rng.choice((1, 2, 50, 150))):
        field[1:] = [BYTES, [[field[0], *field[1:]]]]


_CHANGES: Tuple[Callable[[random.Random, List[Field], Field], None], ...] = (
    _twice, _without, _shuffled, _renumbered, _of_another_kind, _of_another_value, _of_another_value,
    _of_another_length, _packed, _within)


def _unknown_field(rng: random.Random) -> Field:
    number = rng.choice((1, 2, 3, 4, 15, 99, 2 ** 29 - 1))
    kind = rng.randrange(4)
    if kind == 0:
        return [number, VARINT, rng.choice(LENGTHS)]
    if kind == 1:
        return [number, FIXED64, bytes(8)]
    if kind == 2:
        return [number, BYTES, bytes(rng.randrange(256) for _ in range(rng.randint(0, 12)))]
    return [number, START,
            _GroupEnd(b"\x08\x01" * rng.randint(0, 2) + _varint(number << 3 | END) * rng.choice((0, 1, 1)))]


class _GroupEnd(bytes):
    """What stands in a group, and its end; it has no length of its own."""


def _varint(value: int) -> bytes:
    value &= 2 ** 70 - 1                       # ten bytes hold that; no more than 64 bits are right
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read_varint(data: bytes, at: int) -> Tuple[int, int]:
    """The value and what follows it; beyond the data's end where it is cut off."""
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
    return value, len(data) + 1


def example_body(rng: random.Random, example: bytes, good: bytes) -> bytes:
    """A REST body that asks `example`, alone or between good ones."""
    encoded = [{"b64": base64.b64encode(data).decode()}
               for data in rng.choice(((example,), (good, example, good)))]
    return json.dumps(rng.choice(({"signature_name": "examples", "inputs": encoded},
                                  {"signature_name": "examples", "instances": encoded},
                                  {"signature_name": "classify", "inputs": encoded}))).encode()
