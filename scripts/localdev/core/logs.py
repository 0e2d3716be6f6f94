"""Log files in the two formats of the Greengrass nucleus, and their rotation.

Sources: GreengrassLogMessage and PersistenceConfig of aws-greengrass-logging-java.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

LogFormat = Literal["TEXT", "JSON"]
Clock = Callable[[], datetime]

FILE_BYTES = 1024 * 1024
TOTAL_BYTES = 10 * 1024 * 1024
SYSTEM = "greengrass"


def _now() -> datetime:
    return datetime.now(UTC)


class Record(NamedTuple):
    """One log line. `contexts` are shown in their order."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"]
    thread: str
    logger: str
    event: str
    message: str
    contexts: Mapping[str, str]


def format_text(record: Record, at: datetime) -> str:
    """TEXT format. Java's ISO_INSTANT drops the fraction of a whole second, and so does this."""
    milliseconds = at.microsecond // 1000
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{milliseconds:03d}Z" if milliseconds else "Z")
    parts = [record.event, record.message]
    if record.contexts:
        parts.append("{" + ", ".join(f"{key}={value}" for key, value in record.contexts.items()) + "}")
    text = ". ".join(part for part in parts if part)
    return f"{stamp} [{record.level}] ({record.thread}) {record.logger}: {text}"


def format_json(record: Record, at: datetime) -> str:
    """JSON format; the nucleus' order of fields."""
    return json.dumps(
        {
            "thread": record.thread,
            "level": record.level,
            "eventType": record.event,
            "message": record.message,
            "contexts": dict(record.contexts),
            "loggerName": record.logger,
            "timestamp": int(at.timestamp()) * 1000 + at.microsecond // 1000,
            "cause": None,
        },
        separators=(",", ":"),
        ensure_ascii=False,
    )


class RotatingFile:
    """One log file that keeps its name; full or after the hour it is renamed `<base>_yyyy_MM_dd_HH_<i>.log`."""

    def __init__(self, path: Path, file_bytes: int, total_bytes: int, now: Clock = _now) -> None:
        self.path = path
        self._file_bytes = file_bytes
        self._total_bytes = total_bytes
        self._now = now
        self._hour = _hour(now())
        self._file = self._open()

    def write(self, line: str) -> None:
        """Appends a line."""
        data = line.encode(errors="replace") + b"\n"
        hour = _hour(self._now())
        if self._size and (hour != self._hour or self._size + len(data) > self._file_bytes):
            self._roll()
        self._hour = hour
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self) -> BinaryIO:
        file = self.path.open("ab", buffering=0)
        self._size = file.tell()
        return file

    def _roll(self) -> None:
        self._file.close()
        prefix = f"{self.path.stem}_{self._hour:%Y_%m_%d_%H}_"
        index = 0
        while (rotated := self.path.with_name(f"{prefix}{index}.log")).exists():
            index += 1
        self.path.rename(rotated)
        self._delete_oldest()
        self._file = self._open()

    def _delete_oldest(self) -> None:
        stamp = "[0-9]" * 4 + "_[0-9][0-9]" * 3
        rotated = sorted(
            self.path.parent.glob(f"{self.path.stem}_{stamp}_*.log"), key=lambda file: file.stat().st_mtime_ns
        )
        total = sum(file.stat().st_size for file in rotated) + self._file_bytes
        for file in rotated:
            if total <= self._total_bytes:
                break
            total -= file.stat().st_size
            file.unlink()


def _hour(at: datetime) -> datetime:
    return at.astimezone().replace(minute=0, second=0, microsecond=0)


class Logs:
    """The log folder of a core: greengrass.log and one file per component."""

    def __init__(
        self,
        folder: Path,
        log_format: LogFormat = "TEXT",
        file_bytes: int = FILE_BYTES,
        total_bytes: int = TOTAL_BYTES,
        now: Clock = _now,
    ) -> None:
        self.folder = folder
        self._format = format_json if log_format == "JSON" else format_text
        self._limits = (file_bytes, total_bytes)
        self._now = now
        self._files: dict[str, RotatingFile] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def write(self, file: str, record: Record) -> None:
        """Appends a record to `<file>.log`; `file` is a component's name or SYSTEM."""
        target = self._files.get(file)
        if target is None:
            target = self._files[file] = RotatingFile(self.folder / f"{file}.log", *self._limits, self._now)
        target.write(self._format(record, self._now()))

    def system(
        self, level: Literal["DEBUG", "INFO", "WARN", "ERROR"], event: str, message: str = "", **contexts: str
    ) -> None:
        """Appends a record of the core itself to greengrass.log."""
        self.write(SYSTEM, Record(level, "main", "com.aws.greengrass.localdev", event, message, contexts))

    def tail(self, file: str, lines: int = 30) -> str:
        """The last lines of a log file; empty if there is none."""
        path = self.folder / f"{file}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def close(self) -> None:
        """Closes every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()
