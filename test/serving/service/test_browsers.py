import pytest

from serving.service.browsers import is_allowed_host, is_json, is_of_another_page, own_names

NAMES = own_names(["api.example.com"], "127.0.0.1")


@pytest.mark.parametrize("host", [
    None, "127.0.0.1:8501", "10.1.2.3", "[::1]:8501", "[fe80::1]", "localhost", "LOCALHOST:8501",
    "a.localhost", "albert:8501",
    "albert.default.svc.cluster.local:8501", "api.example.com", "API.example.com.:443", ""])
def test_names_of_this_server(host):
    assert is_allowed_host(host, NAMES)


@pytest.mark.parametrize("host", [
    "evil.example", "127.0.0.1.evil.example:8501", "localhost.evil.example", "api.example.com.evil.example",
    "example.com", "xlocalhost.com", "127.0.0.1@evil.example", "[::1].evil.example", "[evil.example]",
    "localhost:80@evil.example", "1.2.3", "a b", "evil。example"])
def test_other_names(host):
    assert not is_allowed_host(host, NAMES)


def test_any_name():
    assert is_allowed_host("evil.example", own_names(["*"], ""))


@pytest.mark.parametrize("headers, wanted", [
    ({}, False),
    ({b"host": b"a:1", b"origin": b"http://a:1"}, False),
    ({b"host": b"A:1", b"origin": b"https://a:1"}, False),         # a proxy before us ends TLS
    ({b"host": b"a:1", b"origin": b"http://a:1", b"sec-fetch-site": b"same-origin"}, False),
    ({b"sec-fetch-site": b"none"}, False),                         # the address line
    ({b"host": b"a:1", b"origin": b"http://a:2"}, True),
    ({b"host": b"a:1", b"origin": b"null"}, True),
    ({b"host": b"a:1", b"origin": b""}, True),
    ({b"host": b"", b"origin": b"null"}, True),
    ({b"sec-fetch-site": b"cross-site"}, True),
    ({b"sec-fetch-site": b"same-site"}, True),
])
def test_who_asks(headers, wanted):
    assert is_of_another_page(headers) is wanted


@pytest.mark.parametrize("content_type, wanted", [
    (b"application/json", True), (b"Application/JSON; charset=utf-8", True), (b"", False),
    (b"text/plain", False), (b"application/x-www-form-urlencoded", False),
    (b"text/plain; application/json", False), (b"application/json, text/plain", False)])
def test_types(content_type, wanted):
    assert is_json(content_type) is wanted
