"""Bytes of a serial port to lines, whatever the reads split.

Firmware ends lines with LF, CR LF or CR CR LF, and draws prompts with a bare CR. Any run of CR and LF is therefore
one line end, and empty lines do not exist. Lines longer than the cap are dropped whole and counted, so that neither
a base64 frame nor binary garbage fills the memory.
"""

import re

# Never text: NULs and the like from half-duplex lines, flow control, STX and ETX. Tabs and escapes stay.
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r\x1b")
_MARK = "\ufeff"  # byte order mark
_ANSI = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1b[()][0-9A-B]|\x1b[78=>]")


class LineSplitter:
    """Incremental: the lines that come out depend on the bytes alone, not on how they were cut into chunks."""

    def __init__(self, max_line_bytes: int) -> None:
        self.partial = b""
        self.too_long = 0
        self._cap = max_line_bytes
        self._skipping = False  # inside a line that is over the cap already

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without line ends and never empty."""
        if not data:
            return []
        lines = (self.partial + data).splitlines()
        self.partial = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        if self._skipping and lines:
            del lines[0]  # the rest of the line that is being skipped
            self._skipping = False
        if lines and max(map(len, lines)) > self._cap:
            self.too_long += sum(len(line) > self._cap for line in lines)
            lines = [line for line in lines if len(line) <= self._cap]
        if len(self.partial) > self._cap:
            self.too_long += not self._skipping
            self._skipping, self.partial = True, b"\x00"  # a stand-in, so that the rest is never taken for a line
        return [line for line in lines if line]


def text(line: bytes) -> tuple[str, bool]:
    """A line as text without control characters and byte order marks, and whether all of it was UTF-8.

    Bytes at its ends that are none, as a line driver makes when it changes direction, are left out.
    """
    clean = line.translate(None, _CONTROL)
    try:
        decoded, valid = clean.decode(), True
    except UnicodeDecodeError:
        decoded, valid = clean.decode(errors="replace").strip("\ufffd"), False
    if "\x1b" in decoded:
        decoded = _ANSI.sub("", decoded).replace("\x1b", "")
    return decoded.strip(_MARK), valid
