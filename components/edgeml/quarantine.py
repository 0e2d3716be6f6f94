"""What a receiver refused: set aside in a folder, each payload beside a JSON file that says why.

Nothing here is sent until somebody asks for it again. The folder is bounded in bytes; the oldest go first.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.files import write_atomic
from edgeml.log import kv

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One refused item. `note` is its JSON: id, topic, headers, created_at, reason, refused_at and more."""

    name: str
    note: dict[str, Any]
    payload: bytes


class Quarantine:
    """The folder `folder`, made with the first entry. Not thread-safe. `max_bytes` counts both files of an entry."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._sizes: dict[str, int] = {}
        self._total = 0
        files = dict.fromkeys(sorted(folder.iterdir())) if folder.is_dir() else {}
        for payload in [file for file in files if file.suffix == ".payload" and file.with_suffix(".json") in files]:
            size = payload.stat().st_size + payload.with_suffix(".json").stat().st_size
            self._sizes[payload.stem] = size
            self._total += size
        for file in files:
            if file.stem not in self._sizes and file.suffix in (".payload", ".tmp"):  # of a process that was killed
                file.unlink(missing_ok=True)

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def size(self) -> int:
        return self._total

    @property
    def names(self) -> list[str]:
        """Of all entries, the oldest first."""
        return list(self._sizes)

    def add(self, note: dict[str, Any], payload: bytes) -> int:
        """Keep one more, durably; the number of older ones that had to go. Raises OSError, and nothing has changed."""
        name = f"{note['id']:019d}-{int(note['created_at'] * 1000) & (2**48 - 1):015d}"
        text = json.dumps(note, indent=1)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_atomic(self._file(name, "payload"), payload, 0o600)
        write_atomic(self._file(name, "json"), text, 0o600)  # last: without it the entry does not exist
        self.forget(name)
        self._sizes[name] = len(payload) + len(text.encode())
        self._total += self._sizes[name]
        gone = 0
        while self._total > self.max_bytes and len(self._sizes) > 1:
            self.remove(next(iter(self._sizes)))
            gone += 1
        return gone

    def read(self, name: str) -> Entry | None:
        """An entry; None when it is gone or unreadable, which is logged."""
        try:
            note = json.loads(self._file(name, "json").read_bytes())
            if not (isinstance(note, dict) and isinstance(note.get("id"), int) and isinstance(note.get("topic"), str)):
                raise ValueError("not the note of a refused item")
            return Entry(name, note, self._file(name, "payload").read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            log.error("quarantined item not readable %s", kv(file=self._file(name, "json"), error=error))
            return None

    def remove(self, name: str) -> None:
        """It is not there any more; the note goes first, so that no half entry is ever seen."""
        self.forget(name)
        self._file(name, "json").unlink(missing_ok=True)
        self._file(name, "payload").unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Leave an unreadable entry alone from now on."""
        self._total -= self._sizes.pop(name, 0)

    def _file(self, name: str, kind: str) -> Path:
        return self.folder / f"{name}.{kind}"
