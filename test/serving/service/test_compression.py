import gzip
import zlib

import pytest

from serving.service import compression
from serving.service.compression import GZIP, ZLIB, inflated
from serving.service.errors import RequestError

EACH = pytest.mark.parametrize("compress, window_bits, name", [(gzip.compress, GZIP, "gzip"),
                                                               (zlib.compress, ZLIB, "zlib")])


@EACH
def test_a_stream_is_inflated_and_no_more_than_the_bound(compress, window_bits, name):
    assert inflated(compress(b"x" * 100), window_bits, 100) == b"x" * 100
    for most, data in ((99, compress(b"x" * 100)), (99, compress(bytes(10 ** 7))), (0, compress(b"x"))):
        with pytest.raises(RequestError, match="larger than max .%d." % most) as refused:
            inflated(data, window_bits, most)
        assert refused.value.http_status == 413


@EACH
def test_what_is_no_whole_stream(compress, window_bits, name):
    for data, reason in (
            (compress(b"x")[:-1], "it is incomplete"), (compress(b"x") + b"y", "more follows its end"),
            (compress(b"x")[:2] + b"\xff" * 9, "")):
        with pytest.raises(RequestError, match="^Could not decompress a request of %d bytes as %s: .*%s"
                           % (len(data), name, reason)):
            inflated(data, window_bits, 100)


@pytest.mark.parametrize("data, reason", [
    (b"", "it is empty"), (b'{"instances": [1]}', "it begins with b'."),
    (gzip.compress(b"x") + b"\x1f", "more follows its end"),
    (gzip.compress(b"x")[:-8] + b"12345678", "incorrect data check")],
    ids=["empty", "JSON", "more behind it", "damaged"])        # gzip writes the time, which no name may hold
def test_what_is_no_gzip(data, reason):
    with pytest.raises(RequestError, match="^Could not decompress a request of %d bytes as gzip: (%s)"
                       % (len(data), reason)):
        inflated(data, GZIP, 100)


def test_all_members_of_a_gzip_file_count():
    assert inflated(gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c"), GZIP, 3) == b"abc"
    with pytest.raises(RequestError, match="larger than max .99."):
        inflated(gzip.compress(b"x" * 50) * 2, GZIP, 99)
    with pytest.raises(RequestError, match="as zlib: more follows its end"):
        inflated(zlib.compress(b"x") * 2, ZLIB, 99)


def test_members_of_nothing_are_no_way_to_keep_the_server_busy(monkeypatch):
    monkeypatch.setattr(compression, "MAX_MEMBERS", 3)
    assert inflated(gzip.compress(b"x") * 3, GZIP, 9) == b"xxx"
    with pytest.raises(RequestError, match="as gzip: it has more than 3 members"):
        inflated(gzip.compress(b"") * 4, GZIP, 9)
