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
                    done = stream if self.closed else former  # closed meanwhile: then so is the former one
                    self._stream = None if self.closed else stream
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
    """Tells a message that several streams brought: another one brought an equal one a moment ago, this one not yet."""

    def __init__(self) -> None:
        self.until = float("inf")
        self._recent: deque[tuple[float, set[int], str, bytes]] = deque(maxlen=MOST_RECENT)

    def known(self, generation: int, topic: str, payload: bytes) -> bool:
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - COPY_S:
            self._recent.popleft()
        for _, brought_by, *message in self._recent:
            if message == [topic, payload] and generation not in brought_by:
                brought_by.add(generation)
                return True
        self._recent.append((now, {generation}, topic, payload))
        return False
