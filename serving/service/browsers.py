"""Protection from web pages in a user's browser: rules on a request's host, origin and content type.

A browser inside a private network sends requests for any page. It names the page's origin (Origin,
Sec-Fetch-Site), except when a name in that page's own domain resolves to this server (DNS rebinding), which
only Host shows.
"""
import functools
import ipaddress
import re
import socket
from typing import FrozenSet, Iterable, Mapping, Optional

ANY_HOST = "*"
# Nobody can register a name under these, or one without a dot.
PRIVATE_DOMAINS = (".localhost", ".internal", ".cluster.local")
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]*))(?::[0-9]*)?")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
NO_FRAMES = (b"content-security-policy", b"frame-ancestors 'none'")


def own_names(allowed_hosts: Iterable[str], host: str) -> FrozenSet[str]:
    """What `is_allowed_host` takes, from the flags --allowed_hosts and --host."""
    return frozenset(name.lower().rstrip(".")
                     for name in (*allowed_hosts, host, socket.gethostname(), socket.getfqdn()) if name)


@functools.lru_cache(maxsize=256)
def is_allowed_host(host: Optional[str], names: FrozenSet[str]) -> bool:
    """Whether `host` ("127.0.0.1:8501") is allowed: an address, a private name or one of `names`.

    A request without a host is not from a browser.
    """
    if host is None or ANY_HOST in names:
        return True
    found = HOST.fullmatch(host.lower())
    if not found:
        return False
    name = (found.group(1) or found.group(2) or "").rstrip(".")
    return (is_address(name) or name in names or name.endswith(PRIVATE_DOMAINS)
            or re.fullmatch("[a-z0-9_-]*", name) is not None)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


def is_of_another_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser sends the request for a page from another origin. `headers` has lower-case names."""
    if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        return True
    origin = headers.get(b"origin")
    return origin is not None and (origin.partition(b"://")[2].lower()
                                   or None) != headers.get(b"host", b"").lower()


def is_json(content_type: bytes) -> bool:
    """Whether a browser sends a preflight request before content of this type from another origin. It does
    not for forms and text."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"
