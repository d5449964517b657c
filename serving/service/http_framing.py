"""HTTP/1 framing (RFC 9112): where a request begins and ends, parsed strictly and in bounded memory.

Ambiguous input is refused, since a proxy in front of the server may have parsed it differently.
"""
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

MAX_HEAD_BYTES = 65536
MAX_BLANK_BYTES = 4                            # line ends before a request
MAX_FIELDS = 128
MAX_LINE_BYTES = 4096                          # of a chunk's size with its extensions, and of a trailer
END_OF_HEAD = b"\r\n\r\n"
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-\"$-~\x80-\xff]*) HTTP/1\.([01])")
NOT_ASCII = re.compile(rb"[\x80-\xff]")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
LENGTH = re.compile(rb"[0-9]{1,15}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~\x80-\xff]*)?")
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
NUM_TELLING_BYTES = 16                         # they tell what came in place of a request
FRAMING_FIELDS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))


class FramingError(Exception):
    """The input is not a valid request, or exceeds a limit."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """A request's head; field names in lower case, values stripped of blanks."""
    method: bytes
    target: bytes                              # a path, and maybe a query; ASCII
    version: bytes                             # b"1.1" or b"1.0"
    fields: List[Tuple[bytes, bytes]]
    length: Optional[int]                      # bytes of the body; None for a chunked one
    expects_continue: bool
    is_last: bool                              # the client asks to close the connection after the answer


def find_head(data: bytes, num_scanned: int = 0) -> Optional[Tuple[int, int]]:
    """Where the head at the beginning of `data` begins and ends, without the empty line; None as long as it
    is incomplete. In its first `num_scanned` bytes no head ends.

    Raises FramingError as soon as no request can begin so.
    """
    begin = 0
    while data.startswith(b"\r\n", begin):
        begin += 2
        if begin > MAX_BLANK_BYTES:
            raise FramingError(400, "a request must begin with its request line")
    end = data.find(END_OF_HEAD, max(begin, num_scanned - 3), begin + MAX_HEAD_BYTES + 4)
    if end >= 0:
        return begin, end
    first = data[begin:begin + NUM_TELLING_BYTES]
    if first not in (b"", b"\r") and not first[:1].isupper():
        raise no_request(first)
    if len(data) - begin > MAX_HEAD_BYTES:
        raise FramingError(431, "a head must have at most %d bytes" % MAX_HEAD_BYTES)
    if BARE_LINE_FEED.search(data, max(begin, num_scanned - 1)):
        raise FramingError(400, "lines must end with a carriage return and a line feed")
    return None


def read_head(head: bytes) -> Head:
    """Parses all that precedes the empty line. Raises FramingError."""
    lines = head.split(b"\r\n", MAX_FIELDS + 1)
    line = REQUEST_LINE.fullmatch(lines[0])
    if not line:
        raise no_request(lines[0])
    if len(lines) > MAX_FIELDS + 1:
        raise FramingError(431, "a head must have at most %d fields" % MAX_FIELDS)
    fields: List[Tuple[bytes, bytes]] = []
    framing: Dict[bytes, bytes] = {}
    for text in lines[1:]:
        field = FIELD.fullmatch(text)
        if not field:
            raise FramingError(400, "a field must be NAME: VALUE in one line")
        name, value = field.group(1).lower(), field.group(2).strip(b" \t")
        fields.append((name, value))
        if name in FRAMING_FIELDS:
            if name in framing and name != b"connection":
                raise FramingError(400, "%s must occur only once" % name.decode())
            framing[name] = framing[name] + b"," + value if name in framing else value
    version = b"1." + line.group(3)
    if version == b"1.1" and b"host" not in framing:
        raise FramingError(400, "host is missing")
    expects_continue = framing.get(b"expect", b"").lower() == b"100-continue"
    is_last = version == b"1.0" or b"close" in _tokens(framing.get(b"connection", b""))
    return Head(line.group(1), _in_ascii(line.group(2)), version, fields, _length(version, framing),
                expects_continue, is_last)


def no_request(data: bytes) -> FramingError:
    """Says what came in place of a request, as far as its first bytes tell."""
    if data.startswith(b"\x16\x03"):           # a record of a handshake (RFC 8446, 5.1)
        return FramingError(400, "this port speaks HTTP without TLS, and got TLS")
    if data.startswith(b"PRI * HTTP/2"):       # RFC 9113, 3.4
        return FramingError(400, "this port speaks HTTP/1.1, and got HTTP/2; gRPC has a port of its own")
    return FramingError(400, "the request line must be METHOD /path HTTP/1.1")


def _in_ascii(target: bytes) -> bytes:
    """Percent-encodes a Chinese name, which some clients (curl) send as it is: none of its bytes can end a
    word or a line."""
    if target.isascii():
        return target
    try:
        target.decode("utf-8")
    except UnicodeDecodeError:
        raise FramingError(400, "the path must be UTF-8")
    return NOT_ASCII.sub(lambda byte: b"%%%02X" % ord(byte.group()), target)


def _length(version: bytes, framing: Dict[bytes, bytes]) -> Optional[int]:
    encoding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length")
    if encoding is None:
        if length is not None and not LENGTH.fullmatch(length):
            raise FramingError(400, "content-length must be a number")
        return int(length or 0)
    if encoding.lower() != b"chunked" or version != b"1.1":
        raise FramingError(400, "transfer-encoding must be chunked, in HTTP/1.1")
    if length is not None:
        raise FramingError(400, "content-length and transfer-encoding exclude each other")
    return None


def _tokens(value: bytes) -> List[bytes]:
    return [token.strip(b" \t").lower() for token in value.split(b",")] if value else []


class ChunkedBody:
    """Reads a chunked body piece by piece. It keeps only an incomplete line; trailers are dropped.

        size ──> 0──► data, `_left` bytes ──► end of line ──► size
          │
          └──0──► trailers ──empty line──► complete

    `_read_line` is the method that takes the next line.
    """

    def __init__(self) -> None:
        self._line = b""                       # the beginning of a line
        self._read_line = self._read_size
        self._left = 0                         # bytes of the chunk's data still to come
        self._allowed = MAX_HEAD_BYTES         # bytes that may still come besides data
        self.is_complete = False

    def feed(self, piece: bytes) -> Tuple[bytes, bytes]:
        """The data in `piece`, and, once the body is complete, what follows it. Raises FramingError."""
        piece, self._line = self._line + piece, b""
        data, at = [], 0
        while at < len(piece) and not self.is_complete:
            if self._left:
                part = piece[at:at + self._left]
                data.append(part)
                at += len(part)
                self._left -= len(part)
                self._allowed += len(part)     # sizes and ends of lines may be as many bytes as data
                continue
            end = piece.find(b"\r\n", at, at + MAX_LINE_BYTES)
            if end < 0:
                self._line = piece[at:]
                self._require_line(self._line)
                break
            self._allowed -= end + 2 - at
            if self._allowed < 0:
                raise FramingError(400, "the body's chunks must hold data")
            self._read_line(piece[at:end])
            at = end + 2
        rest = piece[at:] if self.is_complete else b""
        return b"".join(data), rest

    def _require_line(self, part: bytes) -> None:
        """Raises FramingError when no line may begin like this."""
        is_too_long = len(part) >= MAX_LINE_BYTES
        is_bare = b"\n" in part
        is_data = self._read_line == self._read_end and part != b"\r"
        if is_too_long or is_bare or is_data:
            raise FramingError(400, "a chunk must be SIZE, an end of line, the data, and an end of line")

    def _read_size(self, line: bytes) -> None:
        size = CHUNK_SIZE.fullmatch(line)
        if not size:
            raise FramingError(400, "a chunk's size must be a hexadecimal number")
        self._left = int(size.group(1), 16)
        self._read_line = self._read_end if self._left else self._read_trailer

    def _read_end(self, line: bytes) -> None:
        if line:
            raise FramingError(400, "a chunk's data must end where its size says")
        self._read_line = self._read_size

    def _read_trailer(self, line: bytes) -> None:
        if line and not FIELD.fullmatch(line):
            raise FramingError(400, "a trailer must be NAME: VALUE in one line")
        self.is_complete = not line
