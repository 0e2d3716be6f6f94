"""Logs that are files: one component's active and rotated ones, or what a path pattern finds."""

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator

from log_shipper.batch import MAX_FILES, MAX_MESSAGE, OVERHEAD, Batch, line_start, pieces, utf8_cut, whole_lines
from log_shipper.checkpoint import Checkpoint
from log_shipper.identity import Seen
from log_shipper.logfile import LogFile
from log_shipper.parse import Parser, cleaned, lines_of
from log_shipper.records import Attach, Records
from log_shipper.tail import Tail, marks_of

FRESH_S = 0.5  # so long after the last write a record may still get more lines
QUIET_S = 5.0  # so long after it a line without an end is taken as it is
MIN_ROOM = 65_536  # a batch with less room than this is full
_FITTING = 0.99  # of what should fit is read: looking for the lines that do costs more than the rest of the room
_ALONE = re.compile(rb"\r(?!\n)")
_MAX_AGE_S = 13 * 86_400  # an older time of writing comes from a clock that was not set


class FileSource:
    """A Source. A scan hands over what it saw with `look`, from another thread."""

    def __init__(self, name: str, parser: Parser, checkpoint: Checkpoint) -> None:
        self.name = name
        self.waiting = self.more = False
        self.tail = Tail(checkpoint.marks(name), lambda key: checkpoint.mark(name, key))
        self._parser = parser
        self._checkpoint = checkpoint
        self._seen: tuple[Seen, ...] = ()
        self._handled: tuple[Seen, ...] = ()
        self._read: set[LogFile] = set()
        self._deleted: deque[Seen] = deque()
        self._text_share = 1.0  # of a batch's size, by the lines seen last: read no more than will fit

    def look(self, seen: Iterable[Seen]) -> bool:
        """Take over what a scan saw; whether it is news."""
        self._seen = tuple(seen)
        news = self._seen is not self._handled and self._seen != self._handled
        return news or bool(self._deleted) or bool(self.tail.unreadable) or bool(self.tail.later)

    def observe(self) -> None:
        self._update()
        self.waiting = self.waiting or self.backlog() > 0

    def next_batch(self, max_events: int) -> Batch:
        self._update()
        batch = Batch(max_events=max_events)
        self.waiting = self.more = False
        failed: OSError | None = None
        for file in self.tail.unread():
            try:
                if self._fill(batch, file):
                    self.more = True
                    break
            except OSError as error:  # a bad sector: the log's other files are read meanwhile
                failed, self.waiting = error, True
        self.more = self.more or bool(batch.times and self.tail.later)
        if failed is not None and not batch.times:
            raise failed
        if not all(file.is_intact() for file in self._read):
            # Truncated since the scan, and perhaps written to again: what was read may begin in the middle of a line.
            self.rewind()
            self.waiting, self.more = True, False
            return Batch()
        return batch

    def delivered(self) -> None:
        # A file truncated since it was read has another one under its key, of which nothing has been delivered.
        marks = marks_of(file for file in self._read if self.tail.files.get(file.key) is file)
        if marks:
            self._checkpoint.save(self.name, marks)
            self.tail.delivered(marks)
        self._read.clear()

    def rewind(self) -> None:
        self.tail.rewind()
        self._read.clear()

    def backlog(self) -> int:
        return self.tail.backlog()

    def has_delivered(self, seen: Seen) -> bool:
        """Whether all of the file has been delivered as it was seen; any thread may ask."""
        return self.tail.has_delivered(seen)

    def deleted(self, seen: Seen) -> None:
        """Take note that the file has been deleted: a new one may get its key; any thread may say so."""
        self._deleted.append(seen)

    def close(self) -> None:
        self.tail.close()

    def _update(self) -> None:
        seen = self._seen
        forgotten = {item.key for item in self._taken_note() if self.tail.forget(item)}
        lacking = bool(self.tail.unreadable) or any(file.gone for file in self.tail.files.values())
        changes = self.tail.update(seen) if seen is not self._handled or lacking else self.tail.take_in()
        forgotten |= changes.forgotten
        if changes.adopted or forgotten:
            self._checkpoint.save(self.name, changes.adopted, forgotten)
        self._handled = seen

    def _taken_note(self) -> Iterator[Seen]:
        while self._deleted:
            yield self._deleted.popleft()

    def _fill(self, batch: Batch, file: LogFile) -> bool:
        """Add what the file has; whether the batch is full."""
        while batch.room >= MIN_ROOM and len(batch.times) < batch.max_events and len(self._read) < MAX_FILES:
            size = max(MIN_ROOM, int(batch.room * self._text_share * _FITTING))
            read = file.read(size)
            if len(read) == size and b"\n" not in (block := _with_line_ends(read)):
                size = batch.room
                read = file.read(size)
            if not read:
                return False
            block = _with_line_ends(read)
            used, full = self._take(batch, file, block, at_end=len(block) < size)
            if used:
                file.advance(read, used)
                self._read.add(file)
            if full:
                return True
            if not used:
                self.waiting = True
                return False
        return True

    def _take(self, batch: Batch, file: LogFile, block: bytes, *, at_end: bool) -> tuple[int, bool]:
        """Take records from the start of `block`: bytes used, and whether the batch is full; (0, False) says wait."""
        size = len(block)
        settled = at_end and (file.gone or _age_s(file) >= (FRESH_S if block.endswith(b"\n") else QUIET_S))
        if settled and not block.endswith(b"\n"):
            block += b"\n"
        end, lines, text, growth = _whole_text(block, batch)
        if not end:
            return (0, False) if at_end and not settled else self._take_piece(batch, file, block)
        count = wanted = len(lines)
        self._text_share = end / (end + (OVERHEAD - 1) * count)
        records = self._parser.parse_lines(text, lines, _arrival_ms(file), file.attach)
        attach, full = records.attach, False
        if attach is Attach.RECORD and records.times and not (settled and end == len(block)):
            # The last record may go on in what follows, unless it is all that a batch can hold.
            limited = not at_end or block.rfind(b"\n") >= end
            if records.starts[-1] or batch.times or not limited:
                wanted, attach = records.starts[-1], Attach.NOTHING
                records.cut(len(records.times) - 1)
            if not wanted:
                return 0, limited
        if end > MAX_MESSAGE and 4 * max(map(len, records.texts), default=0) > MAX_MESSAGE:  # UTF-8 takes up to 4 bytes
            records = _split(records)
        taken = batch.add(records)
        if taken < len(records.times):
            wanted, attach, full = records.starts[taken], Attach.NOTHING, True
        used = line_start(block, end, count - wanted) if wanted < count else end
        batch.size += used + (OVERHEAD - 1) * wanted + growth
        file.attach = attach if attach is not Attach.LINE else Attach.NOTHING
        return min(used, size), full

    def _take_piece(self, batch: Batch, file: LogFile, block: bytes) -> tuple[int, bool]:
        """Take as much as one event may hold of a line that is longer than a batch."""
        if batch.times:
            return 0, True
        used = utf8_cut(block, MAX_MESSAGE)
        text, growth = _decoded(block[:used])
        if growth:
            used = utf8_cut(block, MAX_MESSAGE // 3)
            text, growth = _decoded(block[:used])
        if file.attach is Attach.LINE:
            records = Records([file.line_time], [text], [0])
        else:
            records = self._parser.parse(f"{text}\n", _arrival_ms(file), file.attach)
        if records.times:
            file.attach, file.line_time = Attach.LINE, records.times[0]
        else:
            file.attach = Attach.DROPPED
        batch.add(records)
        batch.size += used + growth + OVERHEAD
        return used, True


def _whole_text(block: bytes, batch: Batch) -> tuple[int, list[str], str, int]:
    """Length and lines of what of `block` fits into the batch, a text with them, and by how many bytes that grew."""
    room, events = batch.room, batch.max_events - len(batch.times)
    end = block.rfind(b"\n") + 1
    text, growth = _decoded(memoryview(block)[:end])
    lines = lines_of(text := cleaned(text))
    if end + growth + (OVERHEAD - 1) * len(lines) <= room and len(lines) <= events:
        return end, lines, text, growth
    end, count = whole_lines(block, room, events)
    if growth:
        text, growth = _decoded(block[:end])
        if growth and end + growth + OVERHEAD * count > room:
            end, count = whole_lines(block[: end // 3], room, events)  # a byte becomes three at most
            text, growth = _decoded(block[:end])
        lines = lines_of(text := cleaned(text))
    del lines[count:]
    return end, lines, text, growth


def _with_line_ends(block: bytes) -> bytes:
    """The same, as long, with carriage returns that end a line by themselves as what ends all others."""
    return _ALONE.sub(b"\n", block) if b"\r" in block else block


def _decoded(data: bytes | memoryview) -> tuple[str, int]:
    """Text of `data`, invalid UTF-8 replaced, and by how many bytes that made it longer."""
    try:
        return str(data, "utf-8"), 0
    except UnicodeDecodeError:
        text = str(data, "utf-8", "replace")
        return text, max(0, len(text.encode()) - len(data))


def _split(records: Records) -> Records:
    """The same with each text that is too long for an event in several."""
    found = Records(attach=records.attach)
    for time_ms, text, start in zip(records.times, records.texts, records.starts, strict=True):
        for piece in pieces(text):
            found.times.append(time_ms)
            found.texts.append(piece)
            found.starts.append(start)
    return found


def _age_s(file: LogFile) -> float:
    """Seconds since the last write; the clock may have jumped since, and then nobody should wait."""
    age = time.time() - file.mtime / 1e9
    return age if age >= 0 else QUIET_S


def _arrival_ms(file: LogFile) -> int:
    """When undated lines of the file were written, as well as can be known: at the file's last write."""
    if file.attach is Attach.LINE:
        return file.line_time
    now, written = time.time(), file.mtime / 1e9
    return int((written if now - _MAX_AGE_S < written <= now else now) * 1000)
