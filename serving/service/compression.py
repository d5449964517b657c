"""Decompresses requests, up to a limit."""
import zlib

import grpc

from serving.service.errors import RequestError, invalid

GZIP_START = b"\x1f\x8b"
GZIP, ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS       # as in zlib
MAX_MEMBERS = 100                              # of a gzip file; tools that write blocks put 64 KB into each


def inflated(data: bytes, window_bits: int, most: int) -> bytes:
    """The content of `data`, one stream of ZLIB, or one or more members of GZIP (RFC 1952, 2.2).

    Raises RequestError for an incomplete or invalid stream, and beyond `most` bytes, without decompressing
    more.
    """
    found, rest = bytearray(), data
    for _ in range(MAX_MEMBERS):
        decompressor = zlib.decompressobj(window_bits)
        try:
            found += decompressor.decompress(rest, most - len(found) + 1)
        except zlib.error as error:
            raise _damaged(data, window_bits, str(error).partition(": ")[2] or str(error))
        if len(found) > most:
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED,
                               "Decompressed request is larger than max (%d)" % most)
        if not decompressor.eof:
            raise _damaged(data, window_bits, "it is incomplete")
        rest = decompressor.unused_data
        if not rest:
            return bytes(found)
        if window_bits == ZLIB or not rest.startswith(GZIP_START):
            raise _damaged(data, window_bits, "more follows its end")
    raise _damaged(data, window_bits, "it has more than %d members" % MAX_MEMBERS)


def _damaged(data: bytes, window_bits: int, reason: str) -> RequestError:
    name = "gzip" if window_bits == GZIP else "zlib"
    if window_bits == GZIP and not data.startswith(GZIP_START):
        reason = "it begins with %r" % data[:16] if data else "it is empty"
    return invalid("Could not decompress a request of %d bytes as %s: %s" % (len(data), name, reason))
