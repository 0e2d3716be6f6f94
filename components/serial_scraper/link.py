"""An open serial port."""

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import serial

from edgeml.errors import SourceError

READ_BYTES = 65_536
WRITE_TIMEOUT_S = 2.0
# Boards without flow control lose what comes faster than their main loop looks at it.
_PIECE_BYTES, _PIECE_PAUSE_S = 5, 0.02


class Link:
    """Raises SourceError when the port cannot be opened, is another process' now, or goes away."""

    def __init__(self, path: Path, *, baud: int, reset: bool) -> None:
        self.path = path
        with _translated(path):
            self._port = serial.Serial(baudrate=baud, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True)
            self._port.port = str(path)
            if not reset:  # before opening, or the lines rise for a moment, which is the reset
                self._port.dtr = self._port.rts = False
            self._port.open()
            self._descriptor: int = self._port.fileno()

    def read(self, timeout: float) -> bytes:
        """What has arrived, waiting at most `timeout` seconds for the first of it; empty if nothing came."""
        # Not Serial.read, which returns when it has as many bytes as it was asked for.
        with _translated(self.path):
            if not select.select([self._descriptor], [], [], timeout)[0]:
                return b""
            data = os.read(self._descriptor, READ_BYTES)
        if not data:
            raise SourceError(f"{self.path}: unplugged")
        return data

    def type(self, text: str) -> None:
        """Send `text` in small pieces, as a person types."""
        data = text.encode()
        for start in range(0, len(data), _PIECE_BYTES):
            if start:
                time.sleep(_PIECE_PAUSE_S)
            with _translated(self.path):
                self._port.write(data[start : start + _PIECE_BYTES])

    def close(self) -> None:
        """Never fails: of a port that is gone nothing is left to close."""
        with contextlib.suppress(SourceError), _translated(self.path):
            self._port.close()


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """pyserial lets through whatever termios, ioctl and struct raise: termios.error is not even an OSError."""
    try:
        yield
    except Exception as error:
        words = error.strerror if type(error) is OSError and error.strerror else str(error) or type(error).__name__
        raise SourceError(f"{path}: {words}") from error
