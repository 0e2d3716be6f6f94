"""Which logs there are, by configuration and by what lies in the folders, and which files belong to which log.

The nucleus names a component's active log `<name>.log` and rotated ones `<name>_yyyy_MM_dd_HH_<i>.log`. Names are
matched whole, so `com.example.A` never takes the files of `com.example.A_B`.
"""

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeml.errors import ConfigError
from log_shipper.config import ComponentLogs, Config, Options
from log_shipper.identity import Key, Seen
from log_shipper.java_regex import compiled
from log_shipper.watch import Folder, Pattern

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
    made: dict[str, Log] = field(default_factory=dict)

    def owner(self, filename: str) -> Log | None:
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
            return self.made.setdefault(name, Log(name))
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
        self._watched = [Folder(os.path.abspath(path), owners.owner) for path, owners in self._folders.items()]  # noqa: PTH100
        self._patterns = {name: Pattern(path, log, is_compressed) for name, (log, path) in self._globs.items()}
        self._found: dict[Log, tuple[Seen, ...]] | None = None

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

    def scan(self) -> dict[Log, tuple[Seen, ...]]:
        """Every log with its files; a file belongs to one log only, and folders that are not there have none.

        As long as nothing changes the answer is the same object.
        """
        changed = [folder.look() for folder in self._watched] + [part.look() for part in self._patterns.values()]
        if self._found is None or any(changed):
            self._found = self._sorted(self._all_folders())
        return self._found

    def files_refused(self) -> dict[str, str]:
        """Why files and folders are not read although their names say that they are logs, by path."""
        return {path: reason for folder in self._all_folders() for path, reason in folder.refused.items()}

    def unreadable(self) -> dict[str, str]:
        """Why folders cannot be read, by path."""
        return {folder.path: folder.unreadable for folder in self._all_folders() if folder.unreadable}

    def limits(self) -> dict[str, str]:
        """Patterns that find more folders than are looked at, by the name of their log."""
        return {name: pattern.limit for name, pattern in self._patterns.items() if pattern.limit}

    def _all_folders(self) -> Sequence[Folder[Log]]:
        return [*self._watched, *(folder for part in self._patterns.values() for folder in part.folders.values())]

    def _sorted(self, folders: Sequence[Folder[Log]]) -> dict[Log, tuple[Seen, ...]]:
        groups: dict[int, tuple[Log, list[Seen]]] = {id(log): (log, []) for log, _ in self._globs.values()}
        taken: set[Key] | None = set() if len(folders) > 1 else None  # one folder has each file once
        for folder in folders:
            for log, seen in folder.files.values():
                if taken is not None:
                    if seen.key in taken:
                        continue
                    taken.add(seen.key)
                groups.setdefault(id(log), (log, []))[1].append(seen)
        found: dict[Log, list[Seen]] = {}
        for log, files in groups.values():
            found.setdefault(log, []).extend(files)
        before = self._found or {}
        made = {log: tuple(seen) for log, seen in found.items()}
        return {log: before[log] if before.get(log) == seen else seen for log, seen in made.items()}


def is_compressed(path: str) -> bool:
    """Whether the name is that of a file which a rotation has compressed: it was a log, and is none any more."""
    return path.lower().endswith(_COMPRESSED)


def is_rotated(path: str) -> bool:
    """Whether the nucleus has rotated the file away."""
    match = _LOG_NAME.fullmatch(Path(path).name)
    return match is not None and match["rotated"] is not None
