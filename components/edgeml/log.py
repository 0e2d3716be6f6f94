"""Log lines of a component: `LEVEL logger message key=value`, one flushed line each.

The Java nucleus records stdout at INFO and stderr at WARN, so a record goes to the stream of its own level.
"""

import logging
import sys
from typing import TextIO

from edgeml import redact


def kv(**fields: object) -> str:
    """`fields` as `key=value key="two words"`: the tail of a log message."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def _quoted(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text and not any(character in text for character in ' "\n\r\t='):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _readable(text: str, encoding: str) -> str:
    """`text` as `encoding` can hold it: a name of a file that is no UTF-8 must not swallow its line."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


class ByLevel(logging.Handler):
    """Writes records below WARNING to one stream and the others to a second one."""

    def __init__(self, calm: TextIO, urgent: TextIO) -> None:
        super().__init__()
        self._calm, self._urgent = calm, urgent

    def emit(self, record: logging.LogRecord) -> None:
        stream = self._urgent if record.levelno >= logging.WARNING else self._calm
        try:
            stream.write(_readable(redact.text(self.format(record)), stream.encoding or "utf-8") + "\n")
            stream.flush()
        except (OSError, ValueError):  # the reader of our output is gone; there is nowhere left to say so
            self.handleError(record)


def setup(level: str = "INFO", *, stdout_is_data: bool = False) -> None:
    """Route all logging of this process. With `stdout_is_data` every record goes to stderr."""
    handler = ByLevel(sys.stderr if stdout_is_data else sys.stdout, sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    logging.raiseExceptions = False
    for chatty in ("awsiot", "botocore", "boto3", "urllib3"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
