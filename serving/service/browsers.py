"""What a page in somebody's browser may ask of this server: rules on a request's host, origin and type.

A browser inside a closed net carries out what any page tells it. It says where the page is from (Origin,
Sec-Fetch-Site), except when a name of that page's own domain has been made to lead here (DNS rebinding); that
shows in Host alone.
"""
import functools
import ipaddress
import re
import socket
from typing import FrozenSet, Iterable, Mapping, Optional

ANY_HOST = "*"
# Nobody can register a name below these, and none without a dot.
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
    """Whether a request may be for `host` ("127.0.0.1:8501"): an address, a private name or one of `names`.

    Without any host it is not from a browser.
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
    """Whether a page that this server has not sent makes its reader's browser ask. `headers` has
    lower-case names."""
    if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        return True
    origin = headers.get(b"origin")
    return origin is not None and (origin.partition(b"://")[2].lower()
                                   or None) != headers.get(b"host", b"").lower()


def is_json(content_type: bytes) -> bool:
    """Whether a browser asks the server before it sends this type for another page. It does not for forms
    and text."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"
