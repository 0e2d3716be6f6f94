"""A model whose detections have tracks."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from edgeml.files import write_atomic
from edgeml.log import kv
from inferencer.parts import Around, Model
from inferencer.sample import Outcome, Sample
from inferencer.tracking.tracker import Tracker
from inferencer.tracks import Track

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml.messages import Detection
    from inferencer.parts import Place
    from inferencer.tracking import Tracking

log = logging.getLogger(__name__)

BLOCK = 1000  # ids that are set aside at a time


class Tracked(Around):
    """Asks `model`, and says which of its detections belong together.

    Samples are told apart by their capture times: one that is older than what was seen already keeps its detections,
    without tracks. Detections below the pipeline's threshold are left out unless they go on with an object.
    """

    def __init__(self, model: Model, settings: Tracking, place: Place) -> None:
        self._model = model
        ids = Ids(place.context.work / f"{place.prefix}.tracks")
        self._tracker = Tracker(ids.next, lost_s=settings.lost_s, stationary_s=settings.stationary_s)
        self._last_s = float("-inf")
        self._every, self._passed_over = settings.stationary_every, 0
        self._lock = threading.Lock()  # several threads may ask
        place.context.health.scope(place.prefix).gauge("tracks", lambda: float(len(self._tracker.tracks)))

    def infer(self, sample: Sample) -> Outcome | None:
        with self._lock:
            if self._rests():
                return None
        outcome = self._model.infer(sample)
        if outcome is None or outcome.task != "detection":
            return outcome
        now_s, at = sample.arrived_ns / 1e9, sample.source.captured_at or time.time()
        found = outcome.detections()
        with self._lock:
            step = self._tracker.update(found, outcome.threshold, now_s, at) if now_s > self._last_s else None
            self._last_s = max(now_s, self._last_s)
            owners = step.tracks if step is not None else [None] * len(found)
            kept = [index for index, one in enumerate(found) if owners[index] or one.score >= outcome.threshold]
            outcome.results = [_told(found[index], owners[index]) for index in kept]
        if step is not None:
            step.tracks = [owners[index] for index in kept]
            outcome.step = step
        return outcome

    def _rests(self) -> bool:
        """Is this frame passed over? Nothing moved before it, and whoever moves now is seen by a later one."""
        tracks = self._tracker.tracks
        if self._every == 1 or not tracks or not all(track.stationary for track in tracks):
            self._passed_over = 0
            return False
        self._passed_over = (self._passed_over + 1) % self._every
        return self._passed_over != 0


def _told(one: Detection, track: Track | None) -> Detection:
    if track is None:
        return one
    return msgspec.structs.replace(
        one, track=track.id, since=round(track.since, 3), speed=round(track.speed, 1), stationary=track.stationary
    )


class Ids:
    """Numbers that are never given again, over restarts too: blocks of them are set aside in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._next = max(1, int(path.read_text(encoding="ascii")))
        except FileNotFoundError:
            self._next = 1
        except (OSError, ValueError) as error:
            self._next = int(time.time() * 1000)  # above all that there were
            log.warning("track ids begin anew %s", kv(file=path, first=self._next, error=error))
        self._end = self._next

    def next(self) -> int:
        if self._next == self._end:
            self._end += BLOCK
            try:
                write_atomic(self._path, str(self._end))
            except OSError as error:  # the disk is full: ids go on, and may come again after a restart
                log.warning("track ids are not kept %s", kv(file=self._path, error=error))
        self._next += 1
        return self._next - 1
