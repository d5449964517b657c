"""The decoded size of an HTTP/2 header block (RFC 7541): one byte of it may stand for four thousand."""
import collections
from typing import Deque, Tuple

MAX_LIST_BYTES = 32768                         # of a block's names and values; gRPC allows 16 KiB
FIELD_BYTES = 32                               # added per field, as in the RFC
MAX_ENTRIES = 4096 // FIELD_BYTES              # of the table: gRPC tells its clients of 4,096 bytes
_STATIC_ENTRIES, _STATIC_SIZE = 61, (27, 28)   # at most: of a name, of name and value


class HeaderTable:
    """The sizes of the entries of one connection's header table, to which later blocks refer by number.

    Sizes are upper bounds: Huffman-coded text decodes to at most eight fifths of its bytes, and the
    decoder refuses the number of an entry that is here but no longer in the real table.
    """

    def __init__(self) -> None:
        self._entries: Deque[Tuple[int, int]] = collections.deque(maxlen=MAX_ENTRIES)     # the newest first

    def measure(self, block: bytes) -> int:
        """A bound on a block's decoded size. Raises ValueError if malformed or above MAX_LIST_BYTES."""
        total = position = 0
        while position < len(block):
            kind = block[position]
            if kind & 0xe0 == 0x20:            # a new table size
                _, position = _number(block, position, 5)
                continue
            is_indexed, is_kept = kind & 0x80, kind & 0xc0 == 0x40
            index, position = _number(block, position, 7 if is_indexed else 6 if is_kept else 4)
            name, size = self._sizes(index)
            if not is_indexed:
                if not index:
                    name, position = _text(block, position)
                value, position = _text(block, position)
                size = name + value
                if is_kept:
                    self._entries.appendleft((name, size))
            total += size + FIELD_BYTES
            if total > MAX_LIST_BYTES:
                raise ValueError("headers that become more than %d bytes" % MAX_LIST_BYTES)
        return total

    def _sizes(self, index: int) -> Tuple[int, int]:
        if index <= _STATIC_ENTRIES:
            return _STATIC_SIZE
        if index > _STATIC_ENTRIES + len(self._entries):
            raise ValueError("no entry %d in the table of headers" % index)
        return self._entries[index - _STATIC_ENTRIES - 1]


def _number(block: bytes, position: int, bits: int) -> Tuple[int, int]:
    """A number that begins in the last `bits` of a byte (5.1), and the position after it."""
    most = (1 << bits) - 1
    found = block[position] & most
    position += 1
    if found < most:
        return found, position
    for shift in range(0, 28, 7):
        if position >= len(block):
            break
        byte = block[position]
        position += 1
        found += (byte & 127) << shift
        if byte < 128:
            return found, position
    raise ValueError("a number in headers without its end")


def _text(block: bytes, position: int) -> Tuple[int, int]:
    """The maximum decoded length of a name or value (5.2), and the position after it."""
    if position >= len(block):
        raise ValueError("headers are cut off")
    is_huffman = block[position] & 0x80
    size, position = _number(block, position, 7)
    if size > len(block) - position:
        raise ValueError("headers are cut off")
    return size * 8 // 5 if is_huffman else size, position + size
