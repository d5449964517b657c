import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.service.http_framing import MAX_HEAD_BYTES, ChunkedBody, FramingError, find_head, read_head


def head(*fields, line=b"POST /a?b HTTP/1.1", host=b"host: x"):
    return b"\r\n".join((line, host, *fields) if host else (line, *fields))


def test_a_head():
    found = read_head(head(b"Content-Length:  2\t", b"X-Y: \xe4 b", b"Expect: 100-Continue"))
    assert found[:3] == (b"POST", b"/a?b", b"1.1")
    assert found.fields == [(b"host", b"x"), (b"content-length", b"2"), (b"x-y", b"\xe4 b"),
                            (b"expect", b"100-Continue")]
    assert (found.length, found.expects_continue, found.is_last) == (2, True, False)


@pytest.mark.parametrize("fields, line, length, is_last", [
    ([], b"GET / HTTP/1.1", 0, False),
    ([b"Transfer-Encoding: Chunked"], b"POST / HTTP/1.1", None, False),
    ([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"content-length: 7"], b"POST / HTTP/1.1", 7,
     False), ([b"Connection: te, Close"], b"GET / HTTP/1.1", 0, True),
    ([b"Connection: te", b"Connection: close"], b"GET / HTTP/1.1", 0, True),
    ([b"content-length: 1"], b"POST / HTTP/1.0", 1, True),
])
def test_framing(fields, line, length, is_last):
    found = read_head(head(*fields, line=line))
    assert (found.length, found.is_last) == (length, is_last)


TLS_HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(500)


@pytest.mark.parametrize("data, found", [
    (b"GET / HTTP/1.0\r\n\r\nrest", (0, 14)), (b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", (4, 18)),
    *[(data, None) for data in (b"", b"\r", b"\r\n", b"G", b"POST /", b"PRI * HTTP/2.0", b"G" * 65536)]])
def test_where_a_head_is(data, found):
    assert find_head(data) == found


@pytest.mark.parametrize("data, message", [
    (TLS_HELLO, "HTTP without TLS, and got TLS"), (b"get / HTTP/1.1", "must be METHOD /path HTTP/1.1"),
    *[(data, "must be METHOD /path HTTP/1.1") for data in (b"\x80", b" G", b"{", b"\x1f\x8b", b"\rG", b"\n")],
    (b"\r\n" * 3, "a request must begin with its request line"), (b"G" * 65537, "at most 65536 bytes"),
    (b"GET / HTTP/1.1\n\n", "lines must end with a carriage return and a line feed")])
def test_what_begins_no_request_is_told_apart_at_once(data, message):
    with pytest.raises(FramingError, match=message):
        find_head(data)


def test_an_http2_client_is_told():
    with pytest.raises(FramingError, match="got HTTP/2; gRPC has"):
        read_head(b"PRI * HTTP/2.0")


def test_old_clients_name_no_host():
    assert read_head(b"GET / HTTP/1.0").length == 0


@pytest.mark.parametrize("bad", [
    head(line=b"GET / HTTP/1.2"), head(line=b"GET / HTTP/2.0"), head(line=b"GET /"),
    head(line=b"get / HTTP/1.1"), head(line=b"GET  / HTTP/1.1"), head(line=b"GET /\tx HTTP/1.1"),
    head(line=b"GET / HTTP/1.1 "), head(line=b" GET / HTTP/1.1"), head(line=b"GET http://x/ HTTP/1.1"),
    head(line=b"CONNECT x:1 HTTP/1.1"), head(line=b"OPTIONS * HTTP/1.1"), head(line=b"GET /a#b HTTP/1.1"),
    head(line=b"GET /\x00 HTTP/1.1"), head(line=b"GET /\xe4 HTTP/1.1"), head(line=b"PRI * HTTP/2.0"),
    head(host=b""), head(host=None), head(b"Host: y"), head(b"hOST: x"), head(b"Host : x", host=None),
    head(b"content-length: 2", b"content-length: 2"), head(b"content-length: 2", b"Content-Length: 3"),
    head(b"content-length: 2, 2"), head(b"content-length: +2"), head(b"content-length: -1"),
    head(b"content-length: 0x2"), head(b"content-length: 2_0"), head(b"content-length:"),
    head(b"content-length: " + b"9" * 16), head(b"content-length: 1 2"), head(b"content-length: \xb2"),
    head(b"content-length : 2"), head(b"\x0bcontent-length: 2"), head(b"content-length\x00: 2"),
    head(b"content-length: 2", b"transfer-encoding: chunked"),
    head(b"transfer-encoding: chunked", b"content-length: 2"), head(b"transfer-encoding: xchunked"),
    head(b"transfer-encoding: chunked, chunked"), head(b"transfer-encoding: gzip, chunked"),
    head(b"transfer-encoding: chunked", b"transfer-encoding: identity"), head(b"transfer-encoding: identity"),
    head(b"transfer-encoding: chunked;a=b"), head(b"transfer-encoding:\x0bchunked"),
    head(b"transfer-encoding:"), head(b'transfer-encoding: "chunked"'), head(b"transfer-encoding: chunked,"),
    head(b"transfer-encoding :chunked"), head(b"transfer-encoding: chunked", line=b"POST / HTTP/1.0"),
    head(b"x: a\x00"), head(b"x: a\nb: c"), head(b"x: a\rb: c"), head(b"x: a", b" b"), head(b"x: a", b"\tb"),
    head(b"x"), head(b": a"),
    head(b""), head(b"x y: a"), head(b"x: a\x7f"), head(b"\xe4: a"), head(*[b"x: y"] * 128), b"", b"\n",
], ids=lambda bad: repr(bad[:50]))
def test_what_is_refused(bad):
    with pytest.raises(FramingError):
        read_head(bad)


TOKENS = st.text("abcXYZ-_1!", min_size=1, max_size=8).filter(lambda name: name.lower() not in ("te", "host"))
VALUES = st.text("ab \t,;=~", max_size=8)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=5), st.integers(0, 99))
def test_what_h11_writes_is_read_as_it_was_meant(fields, length):
    wanted = [("host", "x"), *((name, value.strip(" \t")) for name, value in fields),
              ("content-length", str(length))]
    written = h11.Connection(h11.CLIENT).send(h11.Request(method="POST", target="/", headers=wanted))
    found = read_head(written[:-4])
    assert [(name.decode(), value.decode()) for name, value in found.fields] == [
        (name.lower(), value) for name, value in wanted]
    assert found.length == length


def chunked(*pieces):
    """The data of a body that comes in pieces, and what stands behind it."""
    body = ChunkedBody()
    found = [body.feed(piece) for piece in pieces]
    assert body.is_complete and not any(rest for _, rest in found[:-1])
    return b"".join(data for data, _ in found), found[-1][1]


WHOLE = b"2\r\n{}\r\n00A;name=\"v\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n"


def test_chunks():
    assert chunked(WHOLE) == (b"{}0123456789", b"")
    assert chunked(WHOLE + b"GET /") == (b"{}0123456789", b"GET /")
    assert chunked(*[WHOLE[at:at + 1] for at in range(len(WHOLE))]) == (b"{}0123456789", b"")
    for at in range(1, len(WHOLE)):
        assert chunked(WHOLE[:at], WHOLE[at:]) == (b"{}0123456789", b"")


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.data())
def test_chunks_that_h11_writes(parts, draws):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/",
                            headers=[("host", "x"), ("transfer-encoding", "chunked")]))
    written = b"".join(client.send(h11.Data(part)) for part in parts) + client.send(h11.EndOfMessage())
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(written)), max_size=3)))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)]) if start < end]
    assert chunked(*pieces) == (b"".join(parts), b"")


@pytest.mark.parametrize("bad", [
    b"2\r\n{}XX0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n", b"2\r\n{}\r\r0", b"2\n{}\r\n", b"2\r\n{}0\r\n\r\n",
    b"1\r\n{}\r\n", b"3\r\n{}\r\n0\r\n\r\n", b"\r\n", b"x\r\n", b"0x2\r\n", b"+2\r\n", b"-2\r\n", b" 2\r\n",
    b"2 \r\n", b"2_0\r\n", b"2\x00\r\n", b"2;a\x00\r\n", b"2;a\nb\r\n",
    b"2;a\rb\r\n", b"1" * 9 + b"\r\n", b"0" * 9 + b"\r\n", b"\xb2\r\n", b";a\r\n", b"2;" + b"a" * 5000,
    b"0\r\n y\r\n", b"0\r\nx\r\n", b"0\r\nx: \n",
    b"0\r\nx: " + b"y" * 5000, b"0\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
    b"1;" + b"a" * 4000 + b"\r\n" + (b"x\r\n1;" + b"a" * 4000 + b"\r\n") * 20,
], ids=lambda bad: repr(bad[:20]))
def test_chunks_that_are_refused(bad):
    with pytest.raises(FramingError):
        ChunkedBody().feed(bad)
    with pytest.raises(FramingError):
        body = ChunkedBody()
        for at in range(len(bad)):
            body.feed(bad[at:at + 1])


def test_a_long_chunked_body_of_small_chunks():
    body = ChunkedBody()
    for _ in range(50):
        assert len(body.feed(b"8\r\n01234567\r\n" * 1000)[0]) == 8000


def test_a_path_in_chinese_is_read_as_a_url_has_it():
    assert read_head(
        head(line="GET /v1/models/模?x=京 HTTP/1.1".encode())).target == b"/v1/models/%E6%A8%A1?x=%E4%BA%AC"
