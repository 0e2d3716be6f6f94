"""What a log is to the shipper: something that is read in batches, delivered and recorded, or read again."""

from typing import Protocol

from log_shipper.batch import Batch


class Source(Protocol):
    """One log: the lines of one component, file group or unit, delivered in order. Used by one thread at a time."""

    name: str
    waiting: bool  # something is held back for a moment, because it may not be complete
    more: bool  # the last batch left something that can be read at once

    def observe(self) -> None:
        """Take note of what changes, without reading: what could vanish is held on to while nothing can be sent."""

    def next_batch(self, max_events: int) -> Batch:
        """The next events, perhaps none."""

    def delivered(self) -> None:
        """Record that what was read has been delivered. After a CheckpointError, nothing has changed: call it again."""

    def rewind(self) -> None:
        """Go back to what has been delivered."""

    def backlog(self) -> int:
        """Bytes not yet delivered, as far as known."""

    def close(self) -> None: ...
