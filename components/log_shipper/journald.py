"""Logs that are systemd units, read by `journalctl --follow`: all there is on Nucleus Lite.

Each unit has a journalctl and a cursor of its own, so that one whose delivery fails holds back no other. What was read
and could not be delivered is not kept: journalctl is started again after the last delivered cursor.
"""

import contextlib
import fcntl
import logging
import os
import re
import subprocess
import time

from edgeml.log import kv
from log_shipper.batch import MAX_MESSAGE, OVERHEAD, Batch, pieces, utf8_cut
from log_shipper.checkpoint import Checkpoint
from log_shipper.entry import Entry, entry_of
from log_shipper.parse import LEVELS
from log_shipper.records import Records
from log_shipper.times import DAY_MS, Window

log = logging.getLogger(__name__)

_LINE_MAX = 4 << 20  # of an entry as JSON; a longer one goes as it is, in pieces
_CHUNK = 1 << 18
_PIPE_BYTES = 1 << 20
RETRY_S = 10.0
_FRUITLESS = 3
_TIME_OF_CURSOR = re.compile(r";t=([0-9a-f]{1,16});")
_TOGETHER_MS = 1000  # a line without a level of its own is taken for more of what was said so shortly before


class JournalSource:
    """A Source of one unit's journal entries."""

    def __init__(
        self, name: str, unit: str, minimum_level: str, checkpoint: Checkpoint, window: Window | None = None
    ) -> None:
        self.name, self.unit = name, unit
        self.waiting, self.more = True, False  # whether there is news only the pipe can tell
        self._minimum = LEVELS[minimum_level]
        self._checkpoint = checkpoint
        self._cursor = self._read_cursor = checkpoint.cursor(name)
        self._window = window or Window()
        self._said = (0, LEVELS["INFO"])  # when the unit last named a level, and which
        self._fruitless = 0  # runs of journalctl in a row that failed with nothing printed
        self._in_pieces = False  # in the middle of an entry that is too long
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._not_before = 0.0

    def observe(self) -> None:
        """Nothing to do: the journal keeps its entries."""

    def next_batch(self, max_events: int) -> Batch:
        batch = Batch(max_events=max_events)
        self.more = self._fill(batch)
        return batch

    def delivered(self) -> None:
        if self._read_cursor != self._cursor:
            self._checkpoint.save_cursor(self.name, self._read_cursor)
            self._cursor = self._read_cursor

    def rewind(self) -> None:
        self.close()
        self._read_cursor = self._cursor
        self._said = (0, LEVELS["INFO"])

    def backlog(self) -> int:
        return len(self._buffer)

    def close(self) -> None:
        self._buffer.clear()
        self._in_pieces = False
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None  # noqa: S101  (it was asked for; for the type checker)
            process.stdout.close()

    def _fill(self, batch: Batch) -> bool:
        """Add what journalctl has printed; whether the batch is full before that was all."""
        while len(batch.times) < batch.max_events:
            end = self._buffer.find(b"\n")
            if end < 0 and len(self._buffer) <= _LINE_MAX:
                if not self._read():
                    return False
                continue
            if end < 0 or end > _LINE_MAX or self._in_pieces:
                if not self._take_piece(batch, end):
                    return True
                continue
            if not self._take(batch, bytes(self._buffer[:end])):
                return True
            del self._buffer[: end + 1]
        return True

    def _take(self, batch: Batch, line: bytes) -> bool:
        """Add one entry; False if it does not fit. What is no entry goes as text, as of now."""
        text = line.decode(errors="replace")
        entry = entry_of(text) or Entry("", 0, text.replace("\0", ""), None)
        now = int(time.time() * 1000)
        time_ms = self._window.believed([entry.time_ms or now], now)[0]
        if entry.text and self._level(entry, time_ms) >= self._minimum:
            parts = pieces(entry.text)
            size = len(entry.text.encode(errors="replace")) + OVERHEAD * len(parts)
            if batch.times and (size > batch.room or batch.day != time_ms // DAY_MS):
                return False
            batch.add(Records([time_ms] * len(parts), parts, [0] * len(parts)))
            batch.size += size
        self._read_cursor = entry.cursor or self._read_cursor
        return True

    def _take_piece(self, batch: Batch, end: int) -> bool:
        """Add as much as one event holds of an entry that is too long to be understood; False if it does not fit."""
        if batch.times:
            return False
        self._in_pieces = True
        left = len(self._buffer) if end < 0 else end
        used = utf8_cut(bytes(self._buffer[: MAX_MESSAGE // 3 + 4]), min(left, MAX_MESSAGE // 3))
        text = bytes(self._buffer[:used]).decode(errors="replace").replace("\0", "")
        del self._buffer[:used]
        if used == end:
            del self._buffer[:1]
            self._in_pieces = False
        if text:
            now = int(time.time() * 1000)
            batch.add(Records([now], [text], [0]))
            batch.size += len(text.encode()) + OVERHEAD
        return True

    def _level(self, entry: Entry, time_ms: int) -> int:
        said_at, level = self._said
        if entry.level is not None:
            self._said = (time_ms, entry.level)
            return entry.level
        return level if 0 <= time_ms - said_at <= _TOGETHER_MS else LEVELS["INFO"]

    def _read(self) -> bool:
        """Move what is in the pipe to the buffer; whether that was anything."""
        process = self._process or self._start()
        if process is None or process.stdout is None:
            return False
        try:
            data = os.read(process.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            code = process.wait()
            self.close()
            self._fruitless = self._fruitless + 1 if code else 0
            self._not_before = time.monotonic() + RETRY_S
            log.warning("journalctl ended, will be started again %s", kv(unit=self.unit, code=code))
            return False
        self._buffer += data
        self._fruitless = 0
        return True

    def _after(self) -> str:
        """Where to go on. A cursor that is not taken (the journal was repaired) still tells the second."""
        time_us = _TIME_OF_CURSOR.search(self._cursor)
        if self._fruitless < _FRUITLESS or time_us is None:
            return f"--after-cursor={self._cursor}"
        log.warning("the journal's cursor is not taken, a second of it may come twice %s", kv(unit=self.unit))
        return f"--since=@{int(time_us[1], 16) // 1_000_000}"

    def _start(self) -> subprocess.Popen[bytes] | None:
        if time.monotonic() < self._not_before:
            return None
        command = ["journalctl", "--output=json", "--all", "--follow", "--no-tail", "--quiet", f"--unit={self.unit}"]
        if self._cursor:
            command.append(self._after())
        self._buffer.clear()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            self._not_before = time.monotonic() + RETRY_S
            log.error("cannot run journalctl %s", kv(reason=error))
            return None
        assert process.stdout is not None  # noqa: S101  (it was asked for; for the type checker)
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):  # a user may have only so many large pipes; a small one does as well
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._process = process
        return process
