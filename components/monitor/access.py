"""Who may look: one password, and a session for each browser that gave it.

Whoever has a session is never asked again while it lasts, whatever others try.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeml.files import read_regular, write_atomic
from monitor.attempts import Attempts
from monitor.errors import AccessError
from monitor.private import is_private
from monitor.sessions import Sessions, kept_in

PASSWORD_BYTES = 15  # random, 20 characters
MIN_PASSWORD, MAX_PASSWORD = 8, 1024  # bytes of a password that somebody gives
SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # 16 MB and some 50 ms for an attempt
MAX_BROWSERS = 64  # that have signed in before


def password_of(file: Path) -> str:
    """The password in `file`; where there is none, one is made, for its owner alone. Raises AccessError."""
    if not is_private(file):
        return _generated(file)
    try:
        password = read_regular(file, MAX_PASSWORD, follow=False).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{file}: {error}") from error
    if not password:
        raise AccessError(f"{file}: expected a password, found none; remove the file, and a new one is made")
    return checked(password, str(file))


def checked(password: str, where: str) -> str:
    """A password that somebody has chosen. Raises AccessError, without its text."""
    if not MIN_PASSWORD <= len(password.encode(errors="replace")) <= MAX_PASSWORD:
        raise AccessError(f"{where}: expected a password of {MIN_PASSWORD} to {MAX_PASSWORD} bytes")
    return password


def _generated(file: Path) -> str:
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    try:
        write_atomic(file, f"{password}\n", mode=0o600)
    except OSError as error:
        raise AccessError(f"{file}: {error.strerror}") from error
    return password


class Access:
    """The hash of the password and the sessions, which `file` keeps; thread-safe. `clock` is monotonic."""

    def __init__(self, password: str, clock: Callable[[], float] = time.monotonic, *, file: Path | None = None) -> None:
        kept = kept_in(file)
        self._salt = kept.salt
        self._hash = self._hashed(password)
        self._sessions = Sessions(self._hash, kept, file, clock)
        self._lock = threading.Lock()
        self._browsers: dict[bytes, None] = {}  # by the hash of what they were given, the oldest first
        self.attempts = Attempts(clock)

    def sign_in(self, password: str, token: str = "") -> str | None:
        """The token of a new session, `token` if it is given, if the password is right. Takes a while, and 16 MB."""
        if not hmac.compare_digest(self._hashed(password), self._hash):
            return None
        token = token or secrets.token_urlsafe(32)
        self._sessions.begin(token)
        return token

    def valid(self, token: str) -> bool:
        return self._sessions.valid(token)

    def sign_out(self, token: str) -> None:
        """May wait for the disk."""
        self._sessions.end(token)

    def remembered(self) -> str:
        """What a browser that has signed in is given, to be told from others: its attempts are its own from then on."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            while len(self._browsers) >= MAX_BROWSERS:
                del self._browsers[next(iter(self._browsers))]
            self._browsers[_key(token)] = None
        return token

    def browser(self, token: str) -> str:
        """A name for the browser that was given `token`; empty where none was."""
        key = _key(token)
        with self._lock:
            return f"browser {key.hex()}" if key in self._browsers else ""

    def _hashed(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(errors="replace"), salt=self._salt, **SCRYPT)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
