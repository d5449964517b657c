"""Decompresses requests, up to a limit."""
import zlib

import grpc

from serving.service.errors import RequestError, invalid

GZIP_START = b"\x1f\x8b"
GZIP, ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS       # as in zlib


def inflated(data: bytes, window_bits: int, most: int) -> bytes:
    """The content of `data`, one stream of GZIP or ZLIB.

    Raises RequestError for an incomplete or invalid stream, and beyond `most` bytes, without decompressing
    more.
    """
    decompressor = zlib.decompressobj(window_bits)
    try:
        found = decompressor.decompress(data, most + 1)
    except zlib.error:
        raise _damaged(data)
    if len(found) > most:
        raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED,
                           "Decompressed request is larger than max (%d)" % most)
    if not decompressor.eof or decompressor.unused_data:
        raise _damaged(data)
    return found


def _damaged(data: bytes) -> RequestError:
    return invalid("Could not decompress a request of %d bytes" % len(data))
