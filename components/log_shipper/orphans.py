"""Marks whose file is no longer under its key, found by key and by content among a hundred thousand others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from log_shipper.identity import MIN_CONTENT, Key, Mark, digest

K = TypeVar("K")


@dataclass(eq=False, slots=True)
class Orphan:
    """A mark whose file is no longer under its key: truncated, replaced, or not found again after a restart."""

    key: Key
    mark: Mark
    undelivered: int
    patience: int
    head_size: int = 0  # how the file began, if it was seen
    head: bytes = b""

    @property
    def beginning(self) -> tuple[int, bytes]:
        """Size and digest of what a file must begin with to be this one, by content alone."""
        return (self.mark.head_size, self.mark.head) if self.mark.offset else (self.head_size, self.head)


class Orphans:
    """Iterates in the order in which they were added."""

    def __init__(self, orphans: Iterable[Orphan]) -> None:
        self._all: dict[int, Orphan] = {}
        self._by_key: dict[Key, list[Orphan]] = {}
        self._by_head: dict[int, dict[bytes, list[Orphan]]] = defaultdict(dict)
        for orphan in orphans:
            self.add(orphan)

    def __iter__(self) -> Iterator[Orphan]:
        return iter(list(self._all.values()))

    def add(self, orphan: Orphan) -> None:
        self._all[id(orphan)] = orphan
        self._by_key.setdefault(orphan.key, []).append(orphan)
        size, head = orphan.beginning
        if size >= MIN_CONTENT:
            self._by_head[size].setdefault(head, []).append(orphan)

    def remove(self, orphan: Orphan) -> None:
        del self._all[id(orphan)]
        _drop(self._by_key, orphan.key, orphan)
        size, head = orphan.beginning
        if size >= MIN_CONTENT:
            _drop(self._by_head[size], head, orphan)

    def of(self, key: Key) -> Orphan | None:
        """The first that had this key."""
        return next(iter(self._by_key.get(key, ())), None)

    def like(self, fd: int) -> Iterator[Orphan]:
        """Those whose beginning an open file has."""
        for size, heads in list(self._by_head.items()):
            if heads:
                yield from list(heads.get(digest(fd, 0, size), ()))


def _drop(table: dict[K, list[Orphan]], key: K, orphan: Orphan) -> None:
    table[key].remove(orphan)
    if not table[key]:
        del table[key]
