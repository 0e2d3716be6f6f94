"""One PutLogEvents call: a contiguous stretch of one log, within CloudWatch's limits.

A batch is the unit of everything: it is sent, acknowledged and recorded as one, and read again from its file if it
could not be sent, so that a stream that fails holds no memory.

Limits: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
"""

from dataclasses import dataclass, field

from log_shipper.parse import DAY_MS
from log_shipper.records import Records

MAX_BYTES = 1_048_576  # UTF-8 messages and OVERHEAD for each
BUDGET = MAX_BYTES - 4096  # what batches are filled to: a line that is split needs OVERHEAD for each piece
OVERHEAD = 26
MAX_EVENTS = 10_000
MAX_MESSAGE = 1_000_000 - OVERHEAD  # an event may have "1 MB", which is read here as the smaller of its two meanings
MAX_FILES = 200


@dataclass
class Batch:
    """Events of one UTC day (so they span less than 24 h), in the order they were read."""

    times: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    size: int = 0  # as CloudWatch counts
    max_events: int = MAX_EVENTS
    in_order: bool = field(default=True, init=False)  # whether its times are known to rise

    @property
    def room(self) -> int:
        """Bytes of messages and their overhead that still fit."""
        return BUDGET - self.size

    @property
    def day(self) -> int:
        """Days since 1970 of its first event."""
        return self.times[0] // DAY_MS

    def add(self, records: Records) -> int:
        """Take records as far as they are of the batch's day; how many were taken."""
        times = records.times
        if not times:
            return 0
        day = self.day if self.times else times[0] // DAY_MS
        count = len(times)
        ordered = sorted(times)  # as they mostly are already, and then faster than `min` and `max`
        self.in_order = self.in_order and ordered == times and (not self.times or self.times[-1] <= times[0])
        if ordered[0] // DAY_MS != day or ordered[-1] // DAY_MS != day:
            count = next(index for index, time in enumerate(times) if time // DAY_MS != day)
        whole = count == len(times)
        self.times += times if whole else times[:count]
        self.texts += records.texts if whole else records.texts[:count]
        return count

    def chronological(self) -> tuple[list[int], list[str]]:
        """Times and texts in the order of time, which CloudWatch demands; lines of equal time keep their order."""
        if self.in_order:
            return self.times, self.texts
        order = sorted(range(len(self.times)), key=self.times.__getitem__)
        return [self.times[index] for index in order], [self.texts[index] for index in order]


def whole_lines(block: bytes, room: int, max_events: int) -> tuple[int, int]:
    """Length and number of whole lines at the start of `block` that fit, as many as can cheaply be told; 0 if none."""
    end = block.rfind(b"\n") + 1
    while end:
        lines = block.count(b"\n", 0, end)
        size = end + (OVERHEAD - 1) * lines
        if size <= room and lines <= max_events:
            return end, lines
        fitting = int(end * min(room / size, max_events / lines))
        end = block.rfind(b"\n", 0, min(fitting, end - 1)) + 1
    first = block.find(b"\n") + 1  # longer than the estimate, and perhaps not too long
    return (first, 1) if first and first + OVERHEAD - 1 <= room and max_events > 0 else (0, 0)


def line_start(block: bytes, end: int, back: int) -> int:
    """Position of the line that is the nth last of those of `block` that end, in a newline, at `end`."""
    for _ in range(back):
        end = block.rfind(b"\n", 0, end - 1) + 1
    return end


def utf8_cut(block: bytes, size: int) -> int:
    """The longest length up to `size` that does not cut a UTF-8 character in two."""
    if size >= len(block):
        return len(block)
    for back in range(4):
        if block[size - back] & 0xC0 != 0x80:
            return size - back
    return size  # not UTF-8


def pieces(text: str, size: int = MAX_MESSAGE) -> list[str]:
    """`text` in pieces of at most `size` bytes of UTF-8."""
    data = text.encode(errors="replace")
    found = []
    while data:
        cut = utf8_cut(data, size)
        found.append(data[:cut].decode())
        data = data[cut:]
    return found
