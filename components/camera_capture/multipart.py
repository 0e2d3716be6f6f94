"""Pictures out of an HTTP body of type multipart/x-mixed-replace, as cameras really send it.

Sources: RFC 2046 chapter 5.1, and firmware that does not keep to it: a first part without its boundary (ESP32-CAM),
parts without Content-Length, with a wrong one or without any header, boundaries with more or fewer dashes than said.
"""

import re
from collections.abc import Callable

from edgeml.errors import SourceError

MAX_PART = 32 << 20  # bytes
MAX_LINE, MAX_LINES = 8 << 10, 100  # of a part's header

_JPEG = b"\xff\xd8"
_JPEG_END = re.compile(rb"\xff\xd9(?=\r?\n)")


class Multipart:
    """Cuts what `receive` gives (nothing at the end) into parts."""

    def __init__(self, receive: Callable[[], bytes], boundary: str, shown: str) -> None:
        self._receive, self._shown = receive, shown
        token = re.escape(boundary.strip('"').lstrip("-").encode(errors="replace"))
        self._boundary = re.compile(rb"(?:^|\n)-*" + token + rb"(?:--)?[ \t]*(?=\r?\n)") if token else None
        self._buffer = bytearray()
        self._ended = False

    def next(self) -> bytes | None:
        """The next part's bytes; None at the end of the stream. Raises SourceError."""
        while True:
            headers = self._headers()
            if headers is None:
                return None
            length = headers.get("content-length", "")
            if length.isascii() and length.isdigit() and len(length) < 10 and 0 < int(length) <= MAX_PART:
                data = self._exactly(int(length))
            else:
                data = self._until_next()
            if data and not headers.get("content-type", "image/").lower().startswith(("audio/", "text/")):
                return data
            if not data and self._ended:
                return None

    def _more(self) -> bool:
        """Whether more has arrived."""
        data = b"" if self._ended else self._receive()
        self._buffer += data
        self._ended = not data
        if len(self._buffer) > 2 * MAX_PART:
            raise SourceError(f"{self._shown}: a part of more than {MAX_PART} bytes")
        return bool(data)

    def _headers(self) -> dict[str, str] | None:
        """A part's headers in small letters; its boundary may be missing, and so may they. None at the end."""
        headers: dict[str, str] = {}
        lines = 0
        while True:
            while len(self._buffer) < 2 and self._more():
                pass
            if self._buffer.startswith(_JPEG):
                return headers
            line = self._line()
            if line is None:
                return None
            lines += 1
            text = line.strip()
            if len(line) > MAX_LINE or lines > MAX_LINES:
                self._skip_to_picture()
                return {}
            if not text and headers:
                return headers
            name, colon, value = text.decode("latin-1").partition(":")
            if text.startswith(b"--") or (self._boundary is not None and self._boundary.search(b"\n" + text + b"\n")):
                headers = {}
            elif colon:
                headers[name.strip().lower()] = value.strip()

    def _line(self) -> bytes | None:
        """A line with its end, or what there is beyond MAX_LINE; None at the end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and len(self._buffer) <= MAX_LINE:
            searched = len(self._buffer)
            if not self._more():
                return None
        return self._taken(end + 1 if 0 <= end <= MAX_LINE else MAX_LINE + 1)

    def _taken(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count and self._more():
            pass
        return self._taken(count)

    def _skip_to_picture(self) -> None:
        """Out of step: go on with what begins like a picture."""
        skipped = 0
        while (start := self._buffer.find(_JPEG)) < 0:
            skipped += len(self._buffer)
            del self._buffer[: max(0, len(self._buffer) - 1)]
            if skipped > MAX_PART:
                raise SourceError(f"{self._shown}: nothing that is a picture in {MAX_PART} bytes")
            if not self._more():
                self._buffer.clear()
                return
        del self._buffer[:start]

    def _until_next(self) -> bytes:
        """Up to the next boundary; where nobody said what that is, up to the end of a JPEG."""
        searched = 0
        while True:
            pattern = self._boundary or _JPEG_END
            found = pattern.search(self._buffer, max(0, searched - 300))
            if found is not None:
                end = found.start() if self._boundary else found.end()
                return self._taken(end).removesuffix(b"\r")
            if len(self._buffer) > MAX_PART:
                raise SourceError(f"{self._shown}: a part of more than {MAX_PART} bytes")
            searched = len(self._buffer)
            if not self._more():
                return self._taken(len(self._buffer)).rstrip(b"\r\n")
