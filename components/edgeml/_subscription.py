"""A subscription that can be closed and made anew: edgeml.ipc.Subscription."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

Received = Callable[[str, bytes], None]  # topic, payload; on the network thread
Open = Callable[[Received], Any]  # begins to listen and returns the stream; raises IpcError

COPY_S = 0.5  # between a message and its copy on the other stream
MOST_RECENT = 500  # messages remembered meanwhile


class Subscription:
    """One topic and its handler, from `open` until `close`. Any thread may close or renew it."""

    def __init__(self, open_stream: Open, received: Received, forget: Callable[[], None] = lambda: None) -> None:
        self._open_stream, self._received, self._forget = open_stream, received, forget
        self._changing = threading.Lock()  # one opens, renews or closes at a time
        self._lock = threading.Lock()
        self._stream: Any = None
        self._generation = 0
        self._copies: _Copies | None = None
        self.closed = False

    def renew(self) -> None:
        """Listen on a new stream, then close the former one; at first just listen. Raises IpcError: nothing changed.

        In this order: closing and subscribing at once leaves the Java nucleus without a subscription at the broker.
        What comes while both are open is handed on once.
        """
        with self._changing:
            if self.closed:
                return
            with self._lock:
                self._generation += 1
                generation = self._generation
                former = self._stream
                if former is not None:
                    self._copies = self._copies or _Copies()
                    self._copies.until = float("inf")
            try:
                stream = self._open_stream(lambda topic, payload: self._arrived(generation, topic, payload))
                with self._lock:
                    late, self._stream = self.closed, None if self.closed else stream
                for done in (stream if late else None, former):
                    if done is not None:
                        done.close()
            finally:
                with self._lock:
                    if self._copies is not None:
                        self._copies.until = time.monotonic() + COPY_S

    def close(self) -> None:
        """Hear no more. Does not wait for the core, and does nothing the second time."""
        self.end()

    def end(self) -> Any:
        """As `close`; the future of the stream's end, None where there is no stream."""
        with self._lock:
            self.closed = True
            stream, self._stream = self._stream, None
        self._forget()
        with contextlib.suppress(Exception):  # of a connection that is gone
            return None if stream is None else stream.close()
        return None

    def _arrived(self, generation: int, topic: str, payload: bytes) -> None:
        with self._lock:
            if self.closed:
                return
            if self._copies is not None:
                if time.monotonic() > self._copies.until:
                    self._copies = None
                elif self._copies.known(generation, topic, payload):
                    return
        self._received(topic, payload)


class _Copies:
    """Tells a message that both streams brought: an equal one that the other stream brought a moment ago, once."""

    def __init__(self) -> None:
        self.until = float("inf")
        self._unmatched: deque[tuple[float, int, str, bytes]] = deque(maxlen=MOST_RECENT)

    def known(self, generation: int, topic: str, payload: bytes) -> bool:
        now = time.monotonic()
        while self._unmatched and self._unmatched[0][0] < now - COPY_S:
            self._unmatched.popleft()
        for entry in self._unmatched:
            if entry[2:] == (topic, payload) and entry[1] != generation:
                self._unmatched.remove(entry)
                return True
        self._unmatched.append((now, generation, topic, payload))
        return False
