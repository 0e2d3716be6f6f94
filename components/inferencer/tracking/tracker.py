"""Which detection is which object: two stages of matching, as in ByteTrack (Zhang et al. 2022), by capture time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from inferencer.tracking.motion import SEEN, Array, Motion
from inferencer.tracks import Step, Track

if TYPE_CHECKING:
    from edgeml.messages import Detection

CERTAIN = 2  # times that an object is seen before it is told of, and outlives a frame in which it is not
PATIENT_S = 0.3  # where frames come more slowly, or none came before, it is told of at once
NEAR, ALIKE = 5.0, 4.0  # standard deviations that a centre and a size may be off from what is expected
WIDER = 1.2  # standard deviations by which boxes are widened before their overlap is taken
LEAST = {"sure": 0.1, "unsure": 0.3}  # overlap of widened boxes, for scores above and below the threshold
THERE = 0.4  # overlap of the boxes as they are, from which on it is no other object, however odd its box
AWAY = 0.05  # of overlap, that a standard deviation between centres counts as much as
FRAMES_LOST = 3  # an object is waited for over so many frames, however slow they come
REFUSED = 10.0  # cost of a pair that does not fit
AT_REST = 0.1  # of its size: what an object's centre may wander and be at rest, or three times its jitter
MAX_TRACKS = 500


class Tracker:
    """Holds the tracks of one pipeline. `number` gives an id that was never given before."""

    def __init__(self, number: Callable[[], int], *, lost_s: float = 2.0, stationary_s: float = 5.0) -> None:
        self._number, self._lost_s, self._stationary_s = number, lost_s, stationary_s
        self._motion = Motion()
        self._last_s: float | None = None
        self._step_s = 0.0  # between two frames, on average
        self.tracks: list[Track] = []

    def update(self, found: Sequence[Detection], threshold: float, now_s: float, at: float) -> Step:
        """The detections of a frame of `now_s` (monotonic, later than the one before) and `at` (Unix time)."""
        passed = 0.0 if self._last_s is None else max(now_s - self._last_s, 1e-4)
        if self._last_s is not None:
            self._step_s = passed if not self._step_s else 0.9 * self._step_s + 0.1 * min(passed, 2 * self._lost_s)
        self._last_s = now_s
        ended = self._forget(now_s)
        self._motion.predict(passed)
        boxes = np.array([one.box for one in found], float).reshape(-1, 4)
        boxes[:, :2] += boxes[:, 2:] / 2
        owners: list[Track | None] = [None] * len(found)
        sure = [index for index, one in enumerate(found) if one.score >= threshold]
        rows = list(range(len(self.tracks)))
        rows = self._match(found, boxes, sure, rows, partial(self._expected, LEAST["sure"]), owners)
        rows = self._match(found, boxes, sure, rows, self._there, owners)
        if len(sure) < len(found):
            unsure = [index for index, one in enumerate(found) if one.score < threshold]
            known = [row for row in rows if self.tracks[row].hits >= CERTAIN]
            self._match(found, boxes, unsure, known, partial(self._expected, LEAST["unsure"]), owners)
        self._correct(found, boxes, owners, now_s, at)
        ended += self._drop_uncertain(now_s)
        new = [index for index in sure if owners[index] is None]
        self._begin(found, boxes, new, owners, now_s, at)
        if passed > 0 and self._step_s < PATIENT_S:
            owners = [owner if owner is not None and owner.hits >= CERTAIN else None for owner in owners]
        return Step(now_s, at, owners, ended)

    def _match(
        self,
        found: Sequence[Detection],
        boxes: Array,
        columns: list[int],
        rows: list[int],
        cost_of: Callable[[list[int], Array], Array],
        owners: list[Track | None],
    ) -> list[int]:
        """Give those of the detections `columns` that fit to the tracks `rows`; the tracks that are left."""
        columns = [column for column in columns if owners[column] is None]
        if not rows or not columns:
            return rows
        from lap import lapjv

        cost = cost_of(rows, boxes[columns])
        names, known = [found[column].label for column in columns], [self.tracks[row].label for row in rows]
        if len({*names, *known}) > 1:
            cost = np.where(np.array(known)[:, None] == np.array(names)[None], cost, REFUSED)
        _, chosen, _ = lapjv(cost, extend_cost=True, cost_limit=REFUSED / 2)
        left = []
        for row, column in zip(rows, chosen.tolist(), strict=True):
            if column >= 0:
                owners[columns[column]] = self.tracks[row]
            else:
                left.append(row)
        return left

    def _expected(self, least: float, rows: list[int], seen: Array) -> Array:
        """Costs [rows, seen] by how far boxes are from where, and how large, they are expected."""
        spread, there = self._motion.spread()[rows], self._motion.at[rows]
        x, y, w, h = np.abs(seen.T[:, None] - there.T[:, :, None]) / spread.T[:, :, None]
        away = np.maximum(x, y)
        overlap = _overlaps(there, seen, WIDER * spread)
        fits = (away < NEAR) & (np.maximum(w, h) < ALIKE) & (overlap > least)
        return np.where(fits, 1 - overlap + AWAY * away, REFUSED)

    def _there(self, rows: list[int], seen: Array) -> Array:
        """Likewise of what is left, by overlap alone: a detector's box may be far off for a moment, half hidden say."""
        there = self._motion.at[rows]
        overlap = _overlaps(there, seen, np.zeros_like(there))
        return np.where(overlap > THERE, 1 - overlap, REFUSED)

    def _correct(
        self, found: Sequence[Detection], boxes: Array, owners: list[Track | None], now_s: float, at: float
    ) -> None:
        place = {track.id: row for row, track in enumerate(self.tracks)}
        pairs = [(index, track) for index, track in enumerate(owners) if track is not None]
        if not pairs:
            return
        which, chosen = [place[track.id] for _, track in pairs], [index for index, _ in pairs]
        where, speed = self._motion.correct(which, boxes[chosen])
        speeds = np.hypot(speed[:, 0], speed[:, 1]).tolist()
        smooth, off = where.tolist(), (boxes[chosen] - where).tolist()
        for number, (index, track) in enumerate(pairs):
            track.count(found[index].label)
            track.hits += 1
            track.seen, track.seen_s, track.speed = at, now_s, speeds[number]
            self._rest(track, smooth[number], math.hypot(*off[number][:2]), now_s)

    def _rest(self, track: Track, at: Sequence[float], off: float, now_s: float) -> None:
        """Is it at rest? It is while it stays near its anchor, and moves again once it has left."""
        track.jitter += 0.1 * (off - track.jitter)
        away = math.hypot(at[0] - track.anchor[0], at[1] - track.anchor[1])
        if away > max(AT_REST * math.sqrt(max(at[2] * at[3], 1.0)), 3 * track.jitter):
            track.anchor, track.resting_s, track.stationary = (at[0], at[1]), now_s, False
        elif now_s - track.resting_s >= self._stationary_s:
            track.stationary = True

    def _begin(
        self,
        found: Sequence[Detection],
        boxes: Array,
        new: list[int],
        owners: list[Track | None],
        now_s: float,
        at: float,
    ) -> None:
        new = new[: max(0, MAX_TRACKS - len(self.tracks))]
        for index in new:
            track = Track(self._number(), at, at, now_s, found[index].label)
            track.count(track.label)
            track.jitter = SEEN * float(boxes[index, 2:].max())
            track.anchor, track.resting_s = (float(boxes[index, 0]), float(boxes[index, 1])), now_s
            owners[index] = track
            self.tracks.append(track)
        if new:
            self._motion.add(boxes[new])

    def _forget(self, now_s: float) -> list[Track]:
        """End what was not seen for too long."""
        limit = max(self._lost_s, FRAMES_LOST * self._step_s)
        return self._keep([now_s - track.seen_s <= limit for track in self.tracks])

    def _drop_uncertain(self, now_s: float) -> list[Track]:
        return self._keep([track.hits >= CERTAIN or track.seen_s == now_s for track in self.tracks])

    def _keep(self, which: list[bool]) -> list[Track]:
        if all(which):
            return []
        gone = [track for track, kept in zip(self.tracks, which, strict=True) if not kept]
        self._motion.keep(np.array(which, bool))
        self.tracks = [track for track, kept in zip(self.tracks, which, strict=True) if kept]
        return gone


def _overlaps(one: Array, other: Array, wider: Array) -> Array:
    """Intersection over union [n, m] of boxes by centre, each pair widened on each side by `wider` [n, 4] of `one`."""
    centres, sides = np.abs(other.T[:2, None] - one.T[:2, :, None]), (one.T[2:, :, None], other.T[2:, None])
    more = 2 * wider.T[:2, :, None]
    first, second = sides[0] + more, sides[1] + more
    shared = np.minimum(np.minimum(first, second), np.maximum((first + second) / 2 - centres, 0))
    inner = shared[0] * shared[1]
    return np.asarray(inner / (first[0] * first[1] + second[0] * second[1] - inner))
