"""The files in which the kernel tells of the device."""

from dataclasses import dataclass
from pathlib import Path

from edgeml.files import read_regular

MAX_BYTES = 65536
MAX_FOUND = 64


@dataclass(frozen=True)
class Place:
    """`root` is the folder in which `sys`, `proc` and `run` lie."""

    root: Path = Path("/")

    def text(self, path: str) -> str:
        """What the file says; empty if there is none, or it cannot be read: sensors may be there and off."""
        try:
            return read_regular(self.root / path, MAX_BYTES).decode(errors="replace").strip()
        except (OSError, ValueError):  # ValueError: a NUL in a name
            return ""

    def number(self, path: str, base: int = 10) -> int | None:
        try:
            return int(self.text(path), base)
        except ValueError:
            return None

    def found(self, pattern: str) -> list[str]:
        """The paths that match, at most 64."""
        try:
            return [str(path.relative_to(self.root)) for path in sorted(self.root.glob(pattern))[:MAX_FOUND]]
        except OSError:
            return []
