"""Log groups and streams, named as aws.greengrass.LogManager names them unless configured otherwise."""

import re
from dataclasses import dataclass
from datetime import date, datetime, timezone

from log_shipper.parse import DAY_MS

_NOT_IN_GROUP = re.compile(r"[^A-Za-z0-9_./#-]")


@dataclass(frozen=True)
class Names:
    """Templates and what they are filled with."""

    group: str
    stream: str
    region: str
    thing: str

    def group_of(self, kind: str, component: str) -> str:
        name = (
            self.group.replace("{componentType}", kind)
            .replace("{region}", self.region)
            .replace("{componentName}", component)
            .replace("{thingName}", self.thing)
        )
        return _NOT_IN_GROUP.sub("_", name)[:512]

    def stream_of(self, component: str, day: int) -> str:
        """The stream of a UTC day, counted from 1970."""
        name = self.stream.replace("{thingName}", self.thing).replace("{componentName}", component)
        return name.replace("{date}", _date(day)).replace(":", "+").replace("*", "_")[:512]


def _date(day: int) -> str:
    try:
        moment: date = datetime.fromtimestamp(day * DAY_MS / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):  # a line claims to be from beyond the year 9999
        return "unknown"
    return f"{moment:%Y/%m/%d}"
