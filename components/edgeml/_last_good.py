"""The last configuration that a component ran on, for a restart at which the deployed one is refused.

A wrong value that arrives while a component runs leaves the deployment SUCCEEDED: the component says so and goes on.
Without this file the next restart, at the next power cut of a whole fleet, would end it for good. The way that
Greengrass has for it, SubscribeToValidateConfigurationUpdates, is not taken: on the nucleus one subscriber beside
changed components that do not subscribe fails the whole deployment ("Error while waiting for validation report").

Kept per version of the component, the newest two: a version that never ran on this device has none, so a deployment
that brings it with a wrong configuration fails and rolls back.
"""

import json
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml import json_limits
from edgeml.config import CORE_KEYS
from edgeml.errors import JsonError
from edgeml.files import write_atomic
from edgeml.log import kv

log = logging.getLogger("edgeml.component")

KEPT = 2
_PREFIX = "last-good-"


class LastGood:
    """Keeps configurations in the component's work folder, readable by its own user alone: they may name passwords."""

    def __init__(self, work: Path, version: str) -> None:
        self._folder, self._path = work, work / f"{_PREFIX}{version}.json"

    def keep(self, raw: Mapping[str, Any]) -> None:
        """Remember what the component runs on now; older versions' are removed but for one. Never raises."""
        text = json.dumps({key: value for key, value in raw.items() if key not in CORE_KEYS}, sort_keys=True)
        try:
            if self._kept() != text.encode():  # a file that `load` would not take is replaced, too
                write_atomic(self._path, text, mode=0o600)
            known = sorted(self._folder.glob(f"{_PREFIX}*.json"), key=lambda path: path.lstat().st_mtime_ns)
            for path in [path for path in known if path != self._path][: -(KEPT - 1)]:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the configuration cannot be kept for a restart %s", kv(reason=error))

    def load(self) -> dict[str, Any] | None:
        """What this version ran on the last time; None if it never did, or if the file is not wholly our own."""
        try:
            raw = json_limits.loads(self._read(), str(self._path))
        except FileNotFoundError:
            return None
        except (OSError, JsonError) as error:
            log.warning("no last good configuration %s", kv(reason=error))
            return None
        return raw if isinstance(raw, dict) else None

    def _kept(self) -> bytes | None:
        try:
            return self._read()
        except OSError:
            return None

    def _read(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
            if not ours or found.st_nlink != 1:
                raise OSError(f"{self._path} is not a file of our own that nobody else may read or write")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(json_limits.MAX_BYTES + 1)
        finally:
            os.close(descriptor)
