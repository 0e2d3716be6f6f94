"""The demo's own logs, shipped while they are written: what lies in the files is what CloudWatch Logs holds."""

import time
from collections import Counter
from pathlib import Path

from localdev.demo.stage import Configuration, Evidence, Stage

GROUPS = "/aws/greengrass"
ARRIVE_TIMEOUT_S = 10.0

Lines = Counter[tuple[str, str]]  # component, line


class LogShipper(Stage):
    name = "log_shipper"
    title = "the logs of the core and the components in CloudWatch Logs"

    def prepare(self) -> None:
        self._lines, self._missing, self._surplus = Lines(), Lines(), Lines()
        self._events, self._looked = Lines(), 0.0

    def configuration(self) -> Configuration:
        system = {"systemLogsConfiguration": {"uploadToCloudWatch": True}}
        return {"log_shipper": {"logsUploaderConfiguration": system, "periodicUploadIntervalSec": 0.5}}

    def tick(self) -> None:
        if time.monotonic() - self._looked > 2:
            self._looked = time.monotonic()
            self._events = self._arrived()

    def progress(self) -> str:
        return f"{self._events.total()} lines have arrived"

    def finish(self) -> None:
        """The lines written until now must arrive, and nothing may arrive that is not written by then."""
        self._lines = written(self.world.core.root / "logs")
        deadline = time.monotonic() + ARRIVE_TIMEOUT_S
        while True:
            self._events = self._arrived()
            self._missing = self._lines - self._events
            if not self._missing or time.monotonic() > deadline:
                break
            time.sleep(0.25)
        self._surplus = self._events - written(self.world.core.root / "logs")

    def _arrived(self) -> Lines:
        logs, lines = self.world.cloud.aws.client("logs"), Lines()
        for group in logs.describe_log_groups(logGroupNamePrefix=GROUPS)["logGroups"]:
            name = group["logGroupName"].rpartition("/")[2]
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:  # one may hold several lines, such as a traceback
                    lines.update((name, line) for line in event["message"].splitlines() if line)
        return lines

    def evidence(self) -> Evidence:
        figures = {
            "components": len({name for name, _ in self._lines}),
            "lines_written": self._lines.total(),
            "of_these_in_cloudwatch": (self._lines & self._events).total(),
            "not_arrived": self._missing.total(),
            "arrived_twice_or_never_written": self._surplus.total(),
        }
        ok = bool(self._lines) and not self._missing and not self._surplus
        return Evidence(ok, figures, "expected each line of the log files once in CloudWatch Logs")


def written(folder: Path) -> Lines:
    """The whole lines of every log file; the core's own file belongs to `System`, as its log group says."""
    lines = Lines()
    for path in folder.glob("*.log"):
        name = "System" if path.stem == "greengrass" else path.stem
        text = path.read_text(errors="replace")
        lines.update((name, line) for line in text[: text.rfind("\n") + 1].splitlines() if line)
    return lines
