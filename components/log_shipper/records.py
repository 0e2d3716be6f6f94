"""What a log is read as: records, and what becomes of the lines that begin none."""

from dataclasses import dataclass, field
from enum import Enum


class Attach(Enum):
    """What becomes of a line that begins no record: it is part of the record before, goes with it, or stands alone."""

    RECORD = "record"
    DROPPED = "dropped"
    NOTHING = "nothing"
    LINE = "line"  # the rest of a line too long for one event


@dataclass(slots=True)
class Records:
    """Parallel lists: Unix time in ms, text, and index of the first line. `attach` is the state after the last line."""

    times: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    attach: Attach = Attach.NOTHING

    def cut(self, count: int) -> None:
        """Keep the first `count` records."""
        del self.times[count:], self.texts[count:], self.starts[count:]
