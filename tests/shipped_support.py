"""Lines as tests of the log shipper write them to files, one by one or by the thousand."""

import time
from datetime import UTC, datetime, timedelta

NOW = int(time.time())
STAMP_S = NOW - 7200
STAMP = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(STAMP_S))


def line(text: str, level: str = "INFO") -> str:
    return f"{STAMP} [{level}] (main) a: {text}\n"


DAY = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=3)  # CloudWatch takes it
PREFIX = f"{DAY:%Y-%m-%d}T10:00:00.000Z [INFO] (Copier) edgeml.A: stdout. "
GROUP = "/aws/greengrass/UserComponent/eu-west-1/edgeml.A"


def lines(count: int, start: int = 0) -> list[str]:
    return [f"{PREFIX}line {number}" for number in range(start, start + count)]


def text_of(items: list[str]) -> str:
    return "".join(f"{item}\n" for item in items)
