"""Marks whose file is no longer under its key, found by key and by content among a hundred thousand others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from log_shipper.identity import MIN_CONTENT, Key, Mark, digest


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
    """Iterates in the order in which they were added. What they begin with is looked into only when it is asked for."""

    def __init__(self, orphans: Iterable[Orphan]) -> None:
        self._all: dict[int, Orphan] = {}
        self._by_key: dict[Key, Orphan] = {}  # the first that had it
        self._twice = 0  # how many others there are
        self._by_head: dict[int, dict[bytes, list[Orphan]]] | None = None
        for orphan in orphans:
            self.add(orphan)

    def __iter__(self) -> Iterator[Orphan]:
        return iter(list(self._all.values()))

    def add(self, orphan: Orphan) -> None:
        self._all[id(orphan)] = orphan
        self._twice += self._by_key.setdefault(orphan.key, orphan) is not orphan
        if self._by_head is not None:
            _index(self._by_head, orphan)

    def remove(self, orphan: Orphan) -> None:
        del self._all[id(orphan)]
        if self._by_key[orphan.key] is not orphan:
            self._twice -= 1
        else:
            del self._by_key[orphan.key]
            other = next((item for item in self._all.values() if item.key == orphan.key), None) if self._twice else None
            if other is not None:
                self._by_key[other.key] = other
                self._twice -= 1
        size, head = orphan.beginning
        if self._by_head is not None and size >= MIN_CONTENT:
            alike = self._by_head[size][head]
            alike.remove(orphan)
            if not alike:
                del self._by_head[size][head]

    def of(self, key: Key) -> Orphan | None:
        """The first that had this key."""
        return self._by_key.get(key)

    def like(self, fd: int) -> Iterator[Orphan]:
        """Those whose beginning an open file has."""
        if self._by_head is None:
            self._by_head = {}
            for orphan in self._all.values():
                _index(self._by_head, orphan)
        for size, heads in list(self._by_head.items()):
            yield from list(heads.get(digest(fd, 0, size), ()))


def _index(table: dict[int, dict[bytes, list[Orphan]]], orphan: Orphan) -> None:
    size, head = orphan.beginning
    if size >= MIN_CONTENT:
        table.setdefault(size, {}).setdefault(head, []).append(orphan)
