"""Results kept for later: image and payload of each published one, in a folder of files, bounded.

What the cache wrote is written down in a ledger, first and durably, so that clearing it never touches anything else,
not even after a crash or a restart.
"""

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgeml.files import write_atomic
from edgeml.log import kv

log = logging.getLogger(__name__)

DEFAULT_MAX_ITEMS, DEFAULT_MAX_BYTES = 1000, 256 * 1024 * 1024
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_uuid(text: object) -> bool:
    """Whether `text` is an id as results have it, and so no path."""
    return isinstance(text, str) and _UUID.fullmatch(text) is not None


class Cache(Protocol):
    """Where published results are kept, by their uuid. Both removals say whether they did what was asked."""

    def put(self, uuid: str, payload: bytes, image: bytes) -> None: ...

    def clear(self) -> bool: ...

    def clear_one(self, uuid: str) -> bool: ...


class Ledger:
    """What was stored under which key prefix and how large it is, oldest first: one line per item in a text file.

    `remove` deletes one stored item; it raises OSError when that failed, and the item then stays in the ledger.
    Bounds are kept by removing the oldest. Thread-safe.
    """

    def __init__(self, path: Path, remove: Callable[[str], None], *, max_items: int, max_bytes: int) -> None:
        self._path, self._remove = path, remove
        self._max_items, self._max_bytes = max_items, max_bytes
        self._lock = threading.RLock()
        self._sizes = _read(path)
        self._bytes = sum(self._sizes.values())
        self._lines = len(self._sizes)

    def add(self, key: str, size: int) -> None:
        """Make room for an item and write it down. To be called before the item is stored. Raises OSError."""
        with self._lock:
            while self._sizes and (len(self._sizes) >= self._max_items or self._bytes + size > self._max_bytes):
                self._drop(next(iter(self._sizes)))
            self._sizes[key] = size
            self._bytes += size
            if self._lines > 2 * len(self._sizes) + 16:
                self._rewrite()
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{size} {key}\n")
                file.flush()
                os.fsync(file.fileno())
            self._lines += 1

    def entries(self) -> list[str]:
        with self._lock:
            return list(self._sizes)

    def clear(self, keys: list[str]) -> bool:
        """Remove items; False if one could not be removed."""
        done = True
        with self._lock:
            for key in keys:
                try:
                    self._drop(key)
                except OSError as error:
                    log.error("cannot clear %s", kv(item=key, error=error))
                    done = False
            self._rewrite()
        return done

    def _drop(self, key: str) -> None:
        self._remove(key)
        self._bytes -= self._sizes.pop(key)

    def _rewrite(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, "".join(f"{size} {key}\n" for key, size in self._sizes.items()))
        self._lines = len(self._sizes)


def _read(path: Path) -> dict[str, int]:
    """A line that a crash cut short names an item that was not stored yet."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition(" ") for line in lines)
    return {key: int(size) for size, _, key in pairs if size.isascii() and size.isdigit() and key}


class FileCache:
    """`<uuid>.img` (JPEG) and `<uuid>.json` (the payload) in one folder, which may hold other people's files too."""

    def __init__(
        self,
        folder: Path,
        ledger: Path,
        *,
        max_items: int = DEFAULT_MAX_ITEMS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._ledger = Ledger(ledger, self._unlink, max_items=max_items, max_bytes=max_bytes)

    def put(self, uuid: str, payload: bytes, image: bytes) -> None:
        """Raises OSError when the files cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        base = self._folder.resolve() / uuid
        self._ledger.add(str(base), len(payload) + len(image))
        write_atomic(base.with_suffix(".json"), payload)
        write_atomic(base.with_suffix(".img"), image)

    def clear(self) -> bool:
        return self._ledger.clear(self._ledger.entries())

    def clear_one(self, uuid: str) -> bool:
        keys = [key for key in self._ledger.entries() if is_uuid(uuid) and Path(key).name == uuid]
        return bool(keys) and self._ledger.clear(keys)

    def _unlink(self, base: str) -> None:
        path = Path(base)
        if is_uuid(path.name):  # the ledger is a file like any other: never delete what it could not have named
            path.with_suffix(".json").unlink(missing_ok=True)
            path.with_suffix(".img").unlink(missing_ok=True)
