"""An object that is followed, and what one frame says of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Track:
    """An object. Times are those of captures: `since` and `seen` are Unix time, the others monotonic, in seconds."""

    id: int
    since: float
    seen: float
    seen_s: float
    label: str  # what it was taken for most often
    labels: Counter[str] = field(default_factory=Counter)
    hits: int = 1
    speed: float = 0.0  # pixels per second
    stationary: bool = False
    jitter: float = 0.0  # pixels by which its centre is off from one frame to the next
    anchor: tuple[float, float] = (0.0, 0.0)
    resting_s: float = 0.0  # since when it is near its anchor
    said: dict[str, str] = field(default_factory=dict)  # of it, by other pipelines
    picture: str = ""  # key of its best picture, where it will lie once it is sent

    def count(self, label: str) -> None:
        self.labels[label] += 1
        if self.labels[label] > self.labels[self.label]:
            self.label = label


@dataclass
class Step:
    """One frame: the track of each detection, None for those that have none, and the tracks that ended."""

    now_s: float  # when it was taken: monotonic, in seconds
    at: float  # likewise, Unix time
    tracks: list[Track | None]
    ended: list[Track]
