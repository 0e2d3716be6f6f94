"""What stands in the way of reading a log, as problems that name it, and how it can be removed."""

import os
import pwd
from collections.abc import Iterable

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
    return f"{user} cannot read {path} ({reason}): `setfacl -R -m u:{user}:rX,d:u:{user}:rX {folder}`, or privileged"


def journal_obstacle(folders: tuple[str, ...] = ("/var/log/journal", "/run/log/journal")) -> str:
    """Why the journal cannot be read as a whole, and what to do about it; empty if it can be, or if there is none."""
    there = [folder for folder in folders if os.path.isdir(folder)]  # noqa: PTH112
    closed = [
        folder for folder in there if not all(os.access(path, os.R_OK | os.X_OK) for path in (folder, *_in(folder)))
    ]
    if not closed:
        return ""
    user = _user()
    return f"{user} cannot read {closed[0]}: `usermod -aG systemd-journal {user}` and start again, or privileged"


def _in(folder: str) -> list[str]:
    """The folders of machines in it, which are closed even where it is not."""
    try:
        return [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
