"""What stands in the way of reading a log, as problems that name it, and how it can be removed."""

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from edgeml.health import Health
from log_shipper.scan import Scanner
from log_shipper.tail import Tail

MAX_NAMED = 20  # of each kind


class Obstacles:
    """Reports what is in the way now; what is no longer in the way is reported as over."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._said: dict[tuple[str, str], str] = {}
        self._refused = 0
        health.gauge("files_refused", lambda: self._refused)

    def report(self, scanner: Scanner, tails: Iterable[Tail]) -> None:
        refused, unreadable = scanner.files_refused(), scanner.unreadable()
        for tail in tails:
            unreadable |= tail.unreadable
        self._refused = len(refused)
        found = {("file_refused", path): f"{path} is not read: {reason}" for path, reason in _first(refused)}
        found |= {("unreadable", path): _cannot_read(path, reason) for path, reason in _first(unreadable)}
        found |= {("too_large", name): f"files.{name}: {reason}" for name, reason in _first(scanner.limits())}
        for code, subject in self._said.keys() - found.keys():
            self._health.problems.cleared(code, subject)
        for (code, subject), text in found.items():
            if self._said.get((code, subject)) != text:
                self._health.problems.found(code, subject, text)
        self._said = found

    def journal(self) -> None:
        """Say whether the journal can be read as a whole."""
        problems = self._health.problems
        if text := journal_obstacle():
            problems.found("unreadable", "journal", text)
        else:
            problems.cleared("unreadable", "journal")


def _first(found: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(found.items())[:MAX_NAMED]


def _cannot_read(path: str, reason: str) -> str:
    user = _user()
    folder = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
    access = f"setfacl -R -m u:{user}:rX,d:u:{user}:rX {folder}"
    return f"{user} cannot read {path} ({reason}): `{access}`, or deploy the privileged build"


def journal_obstacle(folders: tuple[str, ...] = ("/var/log/journal", "/run/log/journal")) -> str:
    """Why the core's journal cannot be read, and what to do about it; empty if it can be, or if there is none."""
    files = [path for folder in folders for path in Path(folder).glob("*/system.journal")]
    closed = next((path for path in files if not _opens(path)), None)
    if closed is None:
        return ""
    user = _user()
    access = f"usermod -aG systemd-journal {user}"
    return f"{user} cannot read {closed}: `{access}` and a restart, or deploy the privileged build"


def _opens(path: Path) -> bool:
    """Tried, for a capability to read everything is not known to os.access."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        return True  # just rotated
    return True


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
