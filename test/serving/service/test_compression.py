import gzip
import zlib

import pytest

from serving.service.compression import GZIP, ZLIB, inflated
from serving.service.errors import RequestError


@pytest.mark.parametrize("compress, window_bits", [(gzip.compress, GZIP), (zlib.compress, ZLIB)])
def test_one_stream_is_inflated_and_no_more_than_the_bound(compress, window_bits):
    assert inflated(compress(b"x" * 100), window_bits, 100) == b"x" * 100
    for data in (b"", compress(b"x")[:-1], compress(b"x") + b"y", compress(b"x") * 2,
                 compress(b"x")[:2] + b"\xff" * 9):
        with pytest.raises(RequestError, match="Could not decompress a request of %d bytes" % len(data)):
            inflated(data, window_bits, 100)
    with pytest.raises(RequestError, match="larger than max .99.") as refused:
        inflated(compress(b"x" * 100), window_bits, 99)
    assert refused.value.http_status == 413
    bomb = compress(bytes(10 ** 7))
    with pytest.raises(RequestError, match="larger than max .99."):
        inflated(bomb, window_bits, 99)
