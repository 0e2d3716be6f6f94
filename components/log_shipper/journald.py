"""Logs that are systemd units, read by `journalctl --follow`: all there is on Nucleus Lite.

Each unit has a journalctl and a cursor of its own, so that one whose delivery fails holds back no other. What was read
and could not be delivered is not kept: journalctl is started again after the last delivered cursor.
"""

import contextlib
import fcntl
import fnmatch
import logging
import os
import subprocess
import time

import msgspec

from edgeml.log import kv
from log_shipper.batch import MAX_MESSAGE, OVERHEAD, Batch, pieces
from log_shipper.checkpoint import Checkpoint
from log_shipper.parse import DAY_MS, LEVELS, Records

log = logging.getLogger(__name__)

_LINE_MAX = 4 << 20  # journald's own limit on a field is below this; a longer line is skipped
_CHUNK = 1 << 18
_PIPE_BYTES = 1 << 20
_RETRY_S = 10.0
_LIST_TIMEOUT_S = 20.0
_LEVEL_OF_PRIORITY = [LEVELS["ERROR"]] * 4 + [LEVELS["WARN"], LEVELS["INFO"], LEVELS["INFO"], LEVELS["DEBUG"]]


class _Entry(msgspec.Struct):
    cursor: str = msgspec.field(name="__CURSOR", default="")
    realtime_us: str = msgspec.field(name="__REALTIME_TIMESTAMP", default="0")
    message: str | list[int] | None = msgspec.field(name="MESSAGE", default=None)
    priority: str = msgspec.field(name="PRIORITY", default="6")

    def text(self) -> str:
        """journalctl gives what is not valid UTF-8 as a list of bytes."""
        raw = self.message
        text = bytes(raw).decode(errors="replace") if isinstance(raw, list) else raw or ""
        return text.replace("\0", "").rstrip("\n")

    def level(self) -> int:
        known = len(self.priority) == 1 and self.priority in "01234567"
        return _LEVEL_OF_PRIORITY[int(self.priority)] if known else LEVELS["INFO"]


class JournalSource:
    """A Source of one unit's journal entries."""

    def __init__(self, name: str, unit: str, minimum_level: str, checkpoint: Checkpoint) -> None:
        self.name, self.unit = name, unit
        self.waiting, self.more = True, False  # whether there is news only the pipe can tell
        self._minimum = LEVELS[minimum_level]
        self._checkpoint = checkpoint
        self._cursor = self._read_cursor = checkpoint.cursor(name)
        self._decoder = msgspec.json.Decoder(_Entry, strict=False)
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

    def backlog(self) -> int:
        return len(self._buffer)

    def close(self) -> None:
        self._buffer.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None  # noqa: S101  (it was asked for; for the type checker)
            self._process.stdout.close()
            self._process = None

    def _fill(self, batch: Batch) -> bool:
        """Add what journalctl has printed; whether the batch is full before that was all."""
        while len(batch.times) < batch.max_events:
            end = self._buffer.find(b"\n")
            if end < 0:
                if not self._read():
                    return False
                continue
            if not self._take(batch, bytes(self._buffer[:end])):
                return True
            del self._buffer[: end + 1]
        return True

    def _take(self, batch: Batch, line: bytes) -> bool:
        """Add one entry; False if it does not fit."""
        try:
            entry = self._decoder.decode(line)
            time_ms = int(entry.realtime_us) // 1000
        except ValueError as error:
            log.warning("journalctl printed what is not an entry %s", kv(unit=self.unit, reason=error))
            return True
        text = entry.text()
        if text and entry.level() >= self._minimum:
            parts = pieces(text)
            size = len(text.encode()) + OVERHEAD * len(parts)
            if batch.times and (size > batch.room or batch.day != time_ms // DAY_MS):
                return False
            if len(parts) > 1 and size > batch.room:  # an entry above a batch: as much of it as CloudWatch takes
                parts = parts[: batch.room // (MAX_MESSAGE + OVERHEAD)]
                size = sum(len(part.encode()) + OVERHEAD for part in parts)
            batch.add(Records([time_ms] * len(parts), parts, [0] * len(parts)))
            batch.size += size
        self._read_cursor = entry.cursor or self._read_cursor
        return True

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
            self._not_before = time.monotonic() + _RETRY_S
            log.warning("journalctl ended, will be started again %s", kv(unit=self.unit, code=code))
            return False
        self._buffer += data
        if len(self._buffer) > _LINE_MAX and b"\n" not in self._buffer:
            log.error("journal entry too long, skipped %s", kv(unit=self.unit, bytes=len(self._buffer)))
            self._buffer.clear()
        return True

    def _start(self) -> subprocess.Popen[bytes] | None:
        if time.monotonic() < self._not_before:
            return None
        command = ["journalctl", "--output=json", "--all", "--follow", "--no-tail", "--quiet", f"--unit={self.unit}"]
        if self._cursor:
            command.append(f"--after-cursor={self._cursor}")
        self._buffer.clear()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            self._not_before = time.monotonic() + _RETRY_S
            log.error("cannot run journalctl %s", kv(reason=error))
            return None
        assert process.stdout is not None  # noqa: S101  (it was asked for; for the type checker)
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):  # a user may have only so many large pipes; a small one does as well
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._process = process
        return process


def units(patterns: list[str]) -> list[str]:
    """Units with entries in the journal that match one of the patterns; none if journalctl does not answer."""
    command = ["journalctl", "--quiet", "--field=_SYSTEMD_UNIT"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LIST_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("cannot list the units in the journal %s", kv(reason=error))
        return []
    found = done.stdout.decode(errors="replace").split("\n")
    return sorted(unit for unit in found if unit and any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns))


def component_of(unit: str) -> str:
    """`com.example.A` of Nucleus Lite's `ggl.com.example.A.service`; the name of any other unit without its kind."""
    return unit.removesuffix(".service").removeprefix("ggl.")
