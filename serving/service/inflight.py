"""A budget for the bytes of requests and unread answers of all connections, which half-sent requests
cannot exhaust."""
from typing import Callable, Dict, Optional


class Share:
    """The bytes of one request. `give_up`, while it is set, ends the request when others need its bytes."""

    def __init__(self, give_up: Optional[Callable[[], None]]) -> None:
        self.give_up = give_up
        self.num_bytes = 0


class Inflight:
    """The budget. When it is exhausted, the oldest incomplete request is ended."""

    def __init__(self, max_bytes: int, on_refusal: Callable[[], None] = lambda: None) -> None:
        """`on_refusal` is called for each request that is ended, or not started, for lack of bytes."""
        self.max_bytes, self._on_refusal = max_bytes, on_refusal
        self.num_bytes = 0
        self._shares: Dict[Share, None] = {}   # in the order in which they began

    def take(self, share: Share, num_bytes: int) -> bool:
        """Adds to `share`; False when there is no room, in which case all of `share` is released."""
        self._shares[share] = None
        share.num_bytes += num_bytes
        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            oldest = next((other for other in self._shares if other.give_up), share)
            self.give_back(oldest)
            self._on_refusal()
            if oldest is share:
                return False
            if oldest.give_up:
                oldest.give_up()
        return True

    def give_back(self, share: Share) -> None:
        """Releases all of `share`; may be called twice."""
        if share in self._shares:
            del self._shares[share]
            self.num_bytes -= share.num_bytes
            share.num_bytes = 0
