"""Messages by name, bounded in names, messages and bytes: anybody may publish on the core."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_NAMES, MAX_NAME = 64, 128
MAX_BYTES = 128 << 10  # of the messages of one name
FORGOTTEN_S = 600.0


@dataclass
class Named(Generic[T]):
    """What is kept of one name. `at` is when its last message came, on the monotonic clock."""

    at: float
    last: T
    count: int = 0
    recent: deque[bytes] = field(default_factory=deque)
    size: int = 0


class Kept(Generic[T]):
    """The last message of each name as `T`, and its newest `history` messages as they go to a page."""

    def __init__(self, history: int, clock: Callable[[], float], *, forgotten_s: float = FORGOTTEN_S) -> None:
        self._history, self._clock, self._forgotten_s = history, clock, forgotten_s
        self._names: dict[str, Named[T]] = {}

    def put(self, name: str, last: T, message: bytes = b"") -> bool:
        """Keep it; False where there are too many names, or this is none."""
        self._forget()
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= MAX_NAMES or not 0 < len(name) <= MAX_NAME:
                return False
            known = self._names[name] = Named(self._clock(), last)
        known.at, known.last, known.count = self._clock(), last, known.count + 1
        if self._history:
            known.recent.append(message)
            known.size += len(message)
            while len(known.recent) > self._history or known.size > MAX_BYTES:
                known.size -= len(known.recent.popleft())
        return True

    def recent(self, name: str) -> list[bytes]:
        """The newest messages of a name, the oldest first."""
        self._forget()
        known = self._names.get(name)
        return list(known.recent) if known is not None else []

    def all_recent(self) -> list[bytes]:
        """The newest messages of all names, those of a name in their order."""
        self._forget()
        return [message for known in self._names.values() for message in known.recent]

    def __iter__(self) -> Iterator[tuple[str, Named[T]]]:
        self._forget()
        return iter(sorted(self._names.items()))

    def _forget(self) -> None:
        oldest = self._clock() - self._forgotten_s
        for name in [name for name, known in self._names.items() if known.at < oldest]:
            del self._names[name]
