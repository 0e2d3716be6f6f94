"""Passwords of cameras, from secrets; kept on disk so that a camera comes up after a reboot without a network."""

import hashlib
import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.component import Context
from edgeml.errors import EdgemlError, SourceError
from edgeml.files import read_regular, write_atomic
from edgeml.log import kv
from edgeml.secrets import secret_value

log = logging.getLogger(__name__)

AGAIN_S, RETRY_S = 60.0, 10.0  # between two questions for a secret: that was answered, that was not
MAX_BYTES = 4096


class Password(msgspec.Struct, frozen=True):
    secret: Annotated[str, Meta(min_length=1, max_length=2048, description="Secret that holds it, by name or ARN")]
    key: Annotated[
        str, Meta(min_length=1, max_length=256, description="Its key, in a secret that is no plain text")
    ] = "password"


@dataclass
class _Known:
    value: str  # empty while there is none
    error: str = ""
    wanted: bool = True
    due: float = 0.0  # monotonic


class Passwords:
    """Whoever wants a password gets the one that is known at once; a newer one is asked for beside that.

    A camera that opens its source wants it, so one that was changed is found when the old one is refused.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._folder = context, context.work / "passwords"
        self._changed = threading.Condition()
        self._disk = threading.Lock()  # what is being written is nothing that was left
        self._known: dict[Password, _Known] = {}
        self._thread: threading.Thread | None = None

    def keep(self, wanted: Collection[Password]) -> None:
        """These are configured; what others left on disk is removed."""
        with self._changed:
            for reference in [known for known in self._known if known not in wanted]:
                del self._known[reference]
                self._context.health.problems.cleared("secret_missing", reference.secret)
        names = {_name(reference) for reference in wanted}
        try:
            with self._disk:
                for path in self._folder.iterdir() if self._folder.is_dir() else ():
                    if path.name not in names:
                        path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("old passwords are not removed %s", kv(folder=self._folder, error=error))

    def get(self, reference: Password, wait_s: float) -> str:
        """The password, waited for where it was never known. Raises SourceError."""
        with self._changed:
            known = self._known.get(reference)
            if known is None:
                known = self._known[reference] = _Known(self._read(reference))
            known.wanted = True
            if self._thread is None:
                self._thread = self._context.spawn("passwords", self._ask_on)
            self._changed.notify_all()
            self._changed.wait_for(lambda: known.value or known.error, wait_s)
            if not known.value:
                raise SourceError(f"password: {known.error or f'secret {reference.secret} is asked for'}")
            return known.value

    def _ask_on(self) -> None:
        while not self._context.stopping.is_set():
            with self._changed:
                now = time.monotonic()
                due = [one for one, known in self._known.items() if known.wanted and known.due <= now]
                if not due:
                    self._changed.wait(0.5)
            for reference in due:
                self._ask(reference)

    def _ask(self, reference: Password) -> None:
        problems = self._context.health.problems
        try:
            value, failed = secret_value(self._context.ipc, reference.secret, reference.key), ""
        except EdgemlError as error:
            value, failed = "", str(error)
            problems.found("secret_missing", reference.secret, failed)
        else:
            problems.cleared("secret_missing", reference.secret)
        with self._changed:
            known = self._known.get(reference)
        if known is None:
            return
        if value and value != known.value:
            self._write(reference, value)
        with self._changed:
            known.value, known.error = value or known.value, failed
            known.wanted, known.due = bool(failed), time.monotonic() + (RETRY_S if failed else AGAIN_S)
            self._changed.notify_all()

    def _read(self, reference: Password) -> str:
        try:
            return read_regular(self._folder / _name(reference), MAX_BYTES, follow=False).decode()
        except FileNotFoundError:
            return ""
        except (OSError, EdgemlError, ValueError) as error:
            log.warning("a kept password cannot be read %s", kv(secret=reference.secret, error=error))
            return ""

    def _write(self, reference: Password, value: str) -> None:
        try:
            with self._disk:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._folder.chmod(0o700)
                write_atomic(self._folder / _name(reference), value, mode=0o600)
        except (OSError, ValueError) as error:
            log.warning("a password is not kept for the next start %s", kv(secret=reference.secret, error=error))


def _name(reference: Password) -> str:
    return hashlib.sha256(f"{reference.secret}\0{reference.key}".encode(errors="backslashreplace")).hexdigest()
