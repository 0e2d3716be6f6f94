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

SYSTEM = "System"
USER_KIND, SYSTEM_KIND = "UserComponent", "GreengrassSystemComponent"
_CORE_FILES = {"greengrass", "main"}  # logs in the logs folder that are not a component's

_LOG_NAME = re.compile(r"(?P<name>.+?)(?P<rotated>_\d{4}_\d\d_\d\d_\d\d_\d+)?\.log")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|$)")


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
        if filename.endswith(_COMPRESSED):
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
    """Finds the files of all logs. Raises ConfigError on a regular expression that is none."""

    def __init__(self, config: Config, logs_folder: Path) -> None:
        self._folders: dict[Path, _Folder] = {logs_folder: _Folder(patterns=list(config.components))}
        self._globs = {
            name: (_log(name, USER_KIND, files, f"files.{name}"), files.path) for name, files in config.files.items()
        }
        uploader = config.logs_uploader_configuration
        if uploader.system_logs_configuration.upload_to_cloud_watch:
            where = "logsUploaderConfiguration.systemLogsConfiguration"
            system = _log(SYSTEM, SYSTEM_KIND, uploader.system_logs_configuration, where)
            self._folders[logs_folder].named["greengrass"] = system
        listed = {entry.component_name: entry for entry in uploader.component_logs_configuration}
        for name, entry in {**listed, **uploader.component_logs_configuration_map}.items():
            self._add(name, entry, logs_folder)

    def _add(self, name: str, entry: ComponentLogs, logs_folder: Path) -> None:
        path = Path(entry.log_file_directory_path) if entry.log_file_directory_path else logs_folder
        folder = self._folders.setdefault(path, _Folder())
        where = f"logsUploaderConfiguration.componentLogsConfigurationMap.{name}"
        log = _log(name, USER_KIND, entry, where)
        if entry.log_file_regex:
            folder.matched.append((java_regex(entry.log_file_regex, f"{where}.logFileRegex"), log))
        else:
            folder.named[name] = log

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
                if not match.endswith(_COMPRESSED) and (seen := _seen(match, taken)) is not None:
                    found[log].append(seen)
        return found


def _log(name: str, kind: str, options: Options, where: str) -> Log:
    pattern = options.multi_line_start_pattern
    return Log(name, kind, options, java_regex(pattern, f"{where}.multiLineStartPattern") if pattern else None)


def java_regex(text: str, where: str) -> re.Pattern[str]:
    """A regular expression as LogManager takes it, in Java's syntax with \\Q...\\E."""
    try:
        return re.compile(_QUOTED.sub(lambda match: re.escape(match[1]), text))
    except re.error as error:
        raise ConfigError(where, f"not a regular expression ({error}), found {text}") from error


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
