"""The sessions of who has signed in. They outlast the process, so that a page on a wall goes on after a restart.

The file tells no token and no password: tokens are there as HMACs, whose key is the password's scrypt hash.
"""

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeml.files import read_regular, write_atomic
from edgeml.log import kv
from monitor.errors import AccessError
from monitor.private import is_private

log = logging.getLogger(__name__)

MAX_SESSIONS = 32
SESSION_S = 12 * 3600.0
SALT_BYTES, MAX_FILE = 16, 16384
OWN = b"this password's"  # what the file's `check` is the HMAC of


class Kept(msgspec.Struct, frozen=True):
    """What the file holds: `ends` in Unix time, by the HMAC of the token; the one that began first first."""

    salt: bytes
    check: bytes = b""
    ends: dict[str, float] = {}


def kept_in(file: Path | None) -> Kept:
    """What an earlier process kept; with a new salt, and nothing else, where that is not to be relied on."""
    try:
        if file is not None and is_private(file):
            found = msgspec.json.decode(read_regular(file, MAX_FILE, follow=False), type=Kept)
            if len(found.salt) == SALT_BYTES:
                return found
    except (OSError, AccessError, msgspec.MsgspecError) as error:
        log.warning("sessions are not kept over this restart %s", kv(file=file, reason=error))
    return Kept(secrets.token_bytes(SALT_BYTES))


class Sessions:
    """Thread-safe. `key` is the password's hash, made with the salt of `kept`; `clock` is monotonic."""

    def __init__(self, key: bytes, kept: Kept, file: Path | None, clock: Callable[[], float]) -> None:
        self._key, self._salt, self._file, self._clock = key, kept.salt, file, clock
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._ends: dict[str, float] = {}  # monotonic
        if hmac.compare_digest(kept.check, self._sealed(OWN)):  # else they are of another password
            # What lasts longer than any session was kept by another clock.
            left = {token: end - time.time() for token, end in kept.ends.items()}
            self._ends = {token: clock() + s for token, s in left.items() if 0 < s <= SESSION_S}

    def begin(self, token: str) -> None:
        with self._lock:
            while len(self._ends) >= MAX_SESSIONS:
                del self._ends[next(iter(self._ends))]
            self._ends[self._name(token)] = self._clock() + SESSION_S
        self._keep()

    def valid(self, token: str) -> bool:
        with self._lock:
            end = self._ends.get(self._name(token), 0.0)
            if end and end <= self._clock():
                del self._ends[self._name(token)]
                return False
            return end > 0

    def end(self, token: str) -> None:
        with self._lock:
            known = self._ends.pop(self._name(token), None)
        if known is not None:
            self._keep()

    def _keep(self) -> None:
        """Write them down. Where that fails they last as long as this process."""
        if self._file is None:
            return
        with self._writing:
            with self._lock:
                ends = {token: end - self._clock() + time.time() for token, end in self._ends.items()}
            try:
                data = msgspec.json.encode(Kept(self._salt, self._sealed(OWN), ends))
                write_atomic(self._file, data, mode=0o600)
            except OSError as error:
                log.warning("sessions are not kept %s", kv(file=self._file, reason=error))

    def _name(self, token: str) -> str:
        return self._sealed(token.encode(errors="replace")).hex()

    def _sealed(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")
