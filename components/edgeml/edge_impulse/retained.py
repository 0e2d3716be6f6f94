"""Commands may be retained by the broker, which Greengrass IPC neither tells nor lets one clear.

A retained command comes again with every new subscription, so a retained `clear_cache` would clear the cache at each
start. What arrives right after subscribing and is, byte for byte, the last command carried out, is that repetition.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from edgeml.files import write_atomic

WINDOW_S = 5.0  # brokers send what they retain along with the acknowledgement of the subscription


class RetainedGuard:
    """Remembers the last command in a file, across restarts. Make it before subscribing; for one thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._until = clock() + WINDOW_S
        try:
            self._last = path.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            self._last = ""

    def repeated(self, payload: bytes) -> bool:
        """Whether `payload` is the retained command that was carried out before; notes it down if not.

        Only the first message after subscribing can be one. Raises OSError when the file cannot be written.
        """
        digest = hashlib.sha256(payload).hexdigest()
        in_window, self._until = self._clock() < self._until, 0.0
        if in_window and digest == self._last:
            return True
        if digest != self._last:
            write_atomic(self._path, digest)
            self._last = digest
        return False
