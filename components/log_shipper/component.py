"""Configuration to running parts: which sinks, which logs, the journal, health metrics."""

import os
import resource
import shutil
from pathlib import Path

import msgspec

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError
from log_shipper import __version__, privileges, sinks
from log_shipper.config import Config, Files
from log_shipper.emf import HealthLog
from log_shipper.scan import Scanner
from log_shipper.shipper import Shipper

_STOP_S = 3.0
_LITE_SOCKET = "gg-ipc.socket"


class LogShipper(Component[Config]):
    """Sends the device's logs to CloudWatch Logs or AWS IoT Core, near real time, losing none."""

    name = "edgeml.LogShipper"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._shipper: Shipper | None = None
        self._sinks: dict[str, sinks.Sink] = {}
        self._health_log: HealthLog | None = None
        self._listening = False
        self._refused: set[str] = set()

    def start(self, config: Config) -> None:
        _raise_file_limit()
        context = self.context
        if not privileges.reduce(may_delete=privileges.deletes(config)):
            context.fail(EdgemlError("files are to be deleted by now, which needs rights that this process gave up"))
            return
        files = dict(config.files)
        if config.health_metrics.enabled:
            files["edgeml.health"] = self._listen(config)
        config = _with_files(config, files)
        logs_folder = Path(config.logs_directory) if config.logs_directory else context.root / "logs"
        journal = _wants_journal(config)
        context.health.note("logs", "" if journal or logs_folder.is_dir() else f"no folder {logs_folder} yet")
        scanner = Scanner(config, logs_folder.resolve())
        self._tell_refused(scanner)
        for kind in dict.fromkeys(config.sinks):
            self._sinks[kind] = sinks.make(kind, config, context)
        shipper = self._shipper = Shipper(config, scanner, self._sinks, context, journal)
        context.health.gauge("backlog_bytes", shipper.backlog)
        context.health.gauge("lost_bytes", shipper.lost)
        context.health.gauge("logs", lambda: len(shipper))
        shipper.start()

    def reconfigure(self, config: Config) -> None:
        self._stop(_STOP_S)  # a request that hangs longer ends by itself; its batch may then be sent twice
        self.start(config)

    def stop(self) -> None:
        self._stop(_STOP_S)

    def _stop(self, timeout: float) -> None:
        if self._shipper is not None:
            self._shipper.stop(timeout)
        for sink in self._sinks.values():
            sink.close()
        self._sinks = {}

    def _tell_refused(self, scanner: Scanner) -> None:
        """Regular expressions that cannot be used cost their own logs, or the joining of their lines, and no more."""
        problems = self.context.health.problems
        for where in self._refused - scanner.refused_patterns.keys():
            problems.cleared("log_refused", where)
        for where, text in scanner.refused_patterns.items():
            problems.found("log_refused", where, text)
        self._refused = set(scanner.refused_patterns)

    def _listen(self, config: Config) -> Files:
        health_log = HealthLog(self.context.work / "health", config.health_metrics.namespace, self.context.thing_name)
        self._health_log = health_log
        if not self._listening:
            self._listening = True
            self.context.ipc.subscribe(messages.health("+"), self._health)
        return Files(path=health_log.pattern, minimum_log_level="TRACE", delete_log_file_after_cloud_upload=True)

    def _health(self, topic: str, payload: bytes) -> None:
        if self._health_log is not None:
            self._health_log.received(topic, payload)


def _with_files(config: Config, files: dict[str, Files]) -> Config:
    return msgspec.structs.replace(config, files=files)


def _wants_journal(config: Config) -> bool:
    if config.journald.enabled != "auto":
        return config.journald.enabled == "on"
    socket = os.environ.get("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "")
    return Path(socket).name == _LITE_SOCKET and shutil.which("journalctl") is not None


def _raise_file_limit() -> None:
    """Logs that wait are held open, so that their deletion does not lose them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
