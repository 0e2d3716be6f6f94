"""How often a password may be tried, without a way to use up somebody else's attempts.

Each peer (a user of this machine, a browser that has signed in before, an address) has attempts of its own. Those of
all together are limited, too, which would let one keep out the others: so each peer's first few are not among them.
What is left to an attacker of many addresses is some attempts each, slowly; the table of peers bounds how many.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST, EACH_S = 10, 6.0  # of a peer: so many at once, and one more after so many seconds
BURST_ALL, ALL_EACH_S = 30, 2.0  # of all peers together
FREE = 3  # of a peer that are not among those of all
MAX_PEERS = 512
FORGOTTEN_S = 3600.0
REST = "the rest"  # who finds no place in the table


@dataclass
class Bucket:
    """`left` attempts at `at`, one more every `each_s` seconds."""

    burst: int
    each_s: float
    left: float
    at: float

    def take(self, now: float) -> bool:
        """Whether one is left; it is taken."""
        if self.filled(now) < 1:
            return False
        self.left -= 1
        return True

    def filled(self, now: float) -> float:
        self.left = min(float(self.burst), self.left + (now - self.at) / self.each_s)
        self.at = now
        return self.left


@dataclass
class _Peer:
    bucket: Bucket
    free: int = FREE
    busy: bool = False
    paid: bool = False  # the attempt under way is among those of all


class Attempts:
    """Thread-safe. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = Bucket(BURST_ALL, ALL_EACH_S, BURST_ALL, clock())
        self._peers: dict[str, _Peer] = {}  # the one that tried last is the last

    def __len__(self) -> int:
        """How many peers are remembered."""
        return len(self._peers)

    def begin(self, name: str) -> bool:
        """Whether `name` may try now; if so `end` must follow. One attempt of a peer at a time."""
        with self._lock:
            now = self._clock()
            peer = self._peer(name, now)
            if peer.busy or peer.bucket.filled(now) < 1:
                return False
            peer.paid = peer.free <= 0
            if peer.paid and not self._all.take(now):
                return False
            peer.free -= 1
            peer.bucket.left -= 1
            peer.busy = True
            return True

    def end(self, name: str, *, right: bool) -> None:
        """The attempt was `right`, and does not count, or wrong."""
        with self._lock:
            peer = self._peers.get(name) or self._peers[REST]
            peer.busy = False
            if right:
                peer.bucket.left += 1
                peer.free += 1
                self._all.left += peer.paid

    def _peer(self, name: str, now: float) -> _Peer:
        peer = self._peers.pop(name, None)
        if peer is None:
            stale = [
                key for key, known in self._peers.items() if now - known.bucket.at > FORGOTTEN_S and not known.busy
            ]
            for key in stale:
                del self._peers[key]
            if len(self._peers) >= MAX_PEERS:
                name = REST
                peer = self._peers.pop(REST, None)
        self._peers[name] = peer or _Peer(Bucket(BURST, EACH_S, BURST, now))
        return self._peers[name]
