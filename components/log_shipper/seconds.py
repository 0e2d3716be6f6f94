"""The second that a line begins with, as Unix ms: parsed once, and looked up once for many lines that share it."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, repeat
from operator import itemgetter

from log_shipper.times import DAY_MS, EARLIEST_MS, wall_ms

_MAX_SECONDS = 4096
_SHARE = 32  # lines that share a second, so that it is worth looking where it ends
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", re.ASCII)
_SECOND = itemgetter(slice(19))
_LAST = "\U0010ffff"


class Seconds(dict[str, "int | None"]):
    """Of the 19 characters of a time up to its second, as if it were UTC. None for what is no time or before 2001."""

    def __missing__(self, key: str) -> int | None:
        moment = wall_ms(key) if _MOMENT.fullmatch(key) else None
        if moment is None or moment <= EARLIEST_MS + DAY_MS:  # below 0 is what marks lines that are dropped
            return None
        if len(self) >= _MAX_SECONDS:
            self.clear()
        self[key] = moment
        return moment

    def of(self, lines: list[str]) -> Iterator[int | None]:
        """Of each line."""
        middle = len(lines) // 2
        if len(lines) > 2 * _SHARE and _SECOND(lines[middle]) == _SECOND(lines[middle - _SHARE]):
            stretches = self._stretches(lines)
            if stretches is not None:
                return chain.from_iterable(stretches)
        return map(self.__getitem__, map(_SECOND, lines))

    def _stretches(self, lines: list[str]) -> list[Iterator[int | None]] | None:
        """Of lines that share their second. None where few do, or lines are so out of order that it cannot be told."""
        found: list[Iterator[int | None]] = []
        begin = 0
        while begin < len(lines):
            key = _SECOND(lines[begin])
            end = bisect_right(lines, key + _LAST, begin)
            stretch = lines[begin:end]
            # What lies between two texts that begin alike begins so, too.
            if not stretch or not _SECOND(min(stretch)) == key == _SECOND(max(stretch)):
                return None
            found.append(repeat(self[key], end - begin))
            if len(found) * _SHARE > len(lines):
                return None
            begin = end
        return found
