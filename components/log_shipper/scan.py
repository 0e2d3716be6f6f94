"""Which logs there are, by configuration and by what lies in the folders, and which files belong to which log.

The nucleus names a component's active log `<name>.log` and rotated ones `<name>_yyyy_MM_dd_HH_<i>.log`. Names are
matched whole, so `com.example.A` never takes the files of `com.example.A_B`.
"""

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeml.errors import ConfigError
from log_shipper.config import ComponentLogs, Config, Options
from log_shipper.identity import Key, Seen
from log_shipper.java_regex import compiled

SYSTEM = "System"
USER_KIND, SYSTEM_KIND = "UserComponent", "GreengrassSystemComponent"
_CORE_FILES = {"greengrass", "main"}  # logs in the logs folder that are not a component's

_LOG_NAME = re.compile(r"(?P<name>.+?)(?P<rotated>_\d{4}_\d\d_\d\d_\d\d_\d+)?\.log")
_COMPRESSED = (
    *(".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".lzma", ".zst", ".tzst", ".zip", ".lz4", ".lz", ".lzo"),
    *(".z", ".taz", ".br", ".7z", ".rar", ".tar"),
)


@dataclass(frozen=True)
class Log:
    """One log to be shipped: `name` is its component's in group names."""

    name: str
    kind: str = USER_KIND
    options: Options = field(default_factory=Options)
    record_start: re.Pattern[str] | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass
class _Folder:
    """What belongs to whom in one folder: whole names first, then the users' own regular expressions in their order."""

    named: dict[str, Log] = field(default_factory=dict)
    matched: list[tuple[re.Pattern[str], Log]] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    owners: dict[str, Log | None] = field(default_factory=dict)

    def owner(self, filename: str) -> Log | None:
        if filename not in self.owners:
            if len(self.owners) > 100_000:
                self.owners.clear()
            self.owners[filename] = self._owner(filename)
        return self.owners[filename]

    def _owner(self, filename: str) -> Log | None:
        if is_compressed(filename):
            return None
        match = _LOG_NAME.fullmatch(filename)
        name = match["name"] if match else ""
        if name in self.named:
            return self.named[name]
        for pattern, log in self.matched:
            if pattern.search(filename):
                return log
        if name and name not in _CORE_FILES and any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns):
            return Log(name)
        return None


class Scanner:
    """Finds the files of all logs. `refused_patterns`: why regular expressions cannot be used, by their paths."""

    def __init__(self, config: Config, logs_folder: Path) -> None:
        self.refused_patterns: dict[str, str] = {}
        self._folders: dict[Path, _Folder] = {logs_folder: _Folder(patterns=config.component_patterns)}
        self._globs = {
            name: (self._log(name, USER_KIND, entry, f"files.{name}"), entry.path)
            for name, entry in config.files.items()
        }
        uploader = config.logs_uploader_configuration
        if uploader.system_logs_configuration.upload_to_cloud_watch:
            where = "logsUploaderConfiguration.systemLogsConfiguration"
            system = self._log(SYSTEM, SYSTEM_KIND, uploader.system_logs_configuration, where)
            self._folders[logs_folder].named["greengrass"] = system
        listed = {entry.component_name: entry for entry in uploader.component_logs_configuration}
        for name, entry in {**listed, **uploader.component_logs_configuration_map}.items():
            self._add(name, entry, logs_folder)

    def _add(self, name: str, entry: ComponentLogs, logs_folder: Path) -> None:
        path = Path(entry.log_file_directory_path) if entry.log_file_directory_path else logs_folder
        folder = self._folders.setdefault(path, _Folder())
        where = f"logsUploaderConfiguration.componentLogsConfigurationMap.{name}"
        log = self._log(name, USER_KIND, entry, where)
        if not entry.log_file_regex:
            folder.named[name] = log
        elif (pattern := self._pattern(entry.log_file_regex, f"{where}.logFileRegex")) is not None:
            folder.matched.append((pattern, log))

    def _log(self, name: str, kind: str, options: Options, where: str) -> Log:
        text = options.multi_line_start_pattern
        return Log(name, kind, options, self._pattern(text, f"{where}.multiLineStartPattern") if text else None)

    def _pattern(self, text: str, where: str) -> re.Pattern[str] | None:
        """An expression that cannot be used costs its own log and no other: None, and `refused_patterns` says why."""
        try:
            return compiled(text, where)
        except ConfigError as error:
            self.refused_patterns[where] = str(error)
            return None

    def scan(self) -> dict[Log, list[Seen]]:
        """Every log with its files; a file belongs to one log only, and folders that are not there have none."""
        found: dict[Log, list[Seen]] = {log: [] for log, _ in self._globs.values()}
        taken: set[Key] = set()
        for path, folder in self._folders.items():
            for name in _names(path):
                log = folder.owner(name)
                if log is not None and (seen := _seen(f"{path}/{name}", taken)) is not None:
                    found.setdefault(log, []).append(seen)
        for log, pattern in self._globs.values():
            for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207  (pathlib knows no absolute patterns)
                if not is_compressed(match) and (seen := _seen(match, taken)) is not None:
                    found[log].append(seen)
        return found


def is_compressed(path: str) -> bool:
    """Whether the name is that of a file which a rotation has compressed: it was a log, and is none any more."""
    return path.lower().endswith(_COMPRESSED)


def is_rotated(path: str) -> bool:
    """Whether the nucleus has rotated the file away."""
    match = _LOG_NAME.fullmatch(Path(path).name)
    return match is not None and match["rotated"] is not None


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from os.listdir(folder)  # noqa: PTH208  (a Path for each of 10,000 names costs more than the scan)
    except OSError:
        return  # not there yet, or not readable: the caller sees that the log has no files


def _seen(path: str, taken: set[Key]) -> Seen | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None  # renamed or deleted since it was listed
    key = (status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode) or key in taken:
        return None
    taken.add(key)
    return Seen(key, path, status.st_size, status.st_mtime_ns)
