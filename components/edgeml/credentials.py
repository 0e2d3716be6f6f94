"""The AWS credentials of this process: one place that asks for them, and knows what to do when none come.

botocore's chain finds them; on a device at the token exchange service, whose address the core gives to a process when
it starts it. Nucleus Lite's service takes another port at each start: whoever runs on then holds a dead address, and
only a new process gets the new one. Without a cloud the service answers `null`.
"""

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from edgeml.clock import CLOCK
from edgeml.errors import CloudError, CredentialsError
from edgeml.files import write_atomic
from edgeml.health import Health

log = logging.getLogger(__name__)

TELL_AFTER = 3  # failures in a row until it is a problem
PATIENCE_S = (300.0, 600.0)  # from the first failure to the end of the process, jittered for fleets
END_EVERY_S = 3600.0  # three ends within an hour make a component BROKEN, and no more than one of them is this one's
PROBE_TIMEOUT_S = 12.0  # Nucleus Lite takes up to 10 s to answer that it has none
ENDED = "credentials-ended"
_PRINTED = re.compile(r"[!-~]+")  # anything else fits into no header
_MAKING = threading.Lock()  # a session makes one client at a time
_ADDRESS, _TOKEN = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"


class Process(Protocol):
    """What a component's Context has: where to say that credentials fail, and how to end."""

    health: Health
    work: Path

    def fail(self, error: BaseException) -> None: ...


class _Watched:
    process: Process | None = None


_watched = _Watched()


def watch(process: Process | None) -> None:
    """Tell `process` when credentials fail, and end it when the address that it was given is dead."""
    _watched.process = process


class Credentials:
    """Thread-safe. Asked only by work that needs credentials now; a component without such work never ends for them."""

    def __init__(self, *, patience_s: Callable[[], float] = lambda: random.uniform(*PATIENCE_S)) -> None:  # noqa: S311
        self._lock = threading.Lock()
        self._session: Any = None
        self._patience_s = patience_s
        self._failures = 0
        self._give_up_at = 0.0

    def session(self) -> Any:
        """A botocore session that has credentials which are not expired. Raises CredentialsError."""
        return self._valid()[0]

    def frozen(self) -> Any:
        """botocore's ReadOnlyCredentials as they are now. Raises CredentialsError."""
        return self._valid()[1]

    def forget(self) -> None:
        """Fetch them anew for the next request: a service said that these are expired or unknown."""
        with self._lock:
            self._session = None

    def _valid(self) -> tuple[Any, Any]:
        from botocore.session import Session

        with self._lock:
            try:
                session = self._session or Session()
                found = session.get_credentials()
                if found is None:
                    raise CredentialsError(
                        "aws.greengrass.TokenExchangeService, AWS_ACCESS_KEY_ID or a profile must give some"
                    )
                frozen = found.get_frozen_credentials()
                needs_token = getattr(found, "method", "") == "container-role"  # keys of a role are nothing without it
                parts = [frozen.access_key, frozen.secret_key]
                parts += [frozen.token] if needs_token or frozen.token else []
                if not all(isinstance(part, str) and _PRINTED.fullmatch(part) for part in parts):
                    raise CredentialsError("what was given is empty, or no key and token")
            except Exception as error:  # botocore lets TypeError through for `null`, KeyError for half an answer, ...
                self._session = None
                raise self._failed(error) from error
            self._session, self._failures = session, 0
            if _watched.process is not None:
                _watched.process.health.problems.cleared("credentials", "credentials")
            return session, frozen

    def _failed(self, error: Exception) -> CredentialsError:
        known = isinstance(error, CredentialsError) or type(error).__module__.startswith("botocore")
        why = str(error) if known or isinstance(error, RuntimeError) else f"the answer holds none ({error!r})"
        failure = CredentialsError(f"no AWS credentials: {why}")
        now = time.monotonic()
        if self._failures == 0:
            self._give_up_at = now + self._patience_s()
        self._failures += 1
        if _watched.process is None:
            return failure
        if self._failures >= TELL_AFTER:
            _watched.process.health.problems.found("credentials", "credentials", str(failure))
        if now >= self._give_up_at and os.environ.get(_ADDRESS):
            self._give_up_at = now + self._patience_s()
            self._end(_watched.process, os.environ[_ADDRESS])
        return failure

    def _end(self, process: Process, address: str) -> None:
        """End the process if that can help: the address is dead, and it did not end for it a short time ago."""
        if not _is_dead(address):
            return
        now, file = CLOCK.now(), process.work / ENDED
        try:
            before = json.loads(file.read_bytes())
            pause = END_EVERY_S * random.uniform(1.0, 1.5)  # noqa: S311
            if before["boot"] == now.boot and now.uptime - before["uptime"] < pause:
                return
        except (OSError, ValueError, TypeError, KeyError):
            pass  # the first time, or the file is damaged
        try:
            write_atomic(file, json.dumps({"boot": now.boot, "uptime": now.uptime}), 0o600)
        except OSError as error:
            log.error("the process goes on without credentials: %s: %s", file, error)
            return
        process.fail(
            CredentialsError(f"nobody gives credentials at {address}: the core gives a new process the new one")
        )


def _is_dead(address: str) -> bool:
    """Whether no token exchange service answers there: nobody at all, or something else that took the port."""
    import http.client

    parts = urlsplit(address)
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_TIMEOUT_S)
    except (ValueError, http.client.HTTPException):
        return True
    try:
        connection.request("GET", parts.path or "/", headers={"Authorization": os.environ.get(_TOKEN, "")})
        answer = connection.getresponse()
        text = answer.read(65536)
        if answer.status == http.client.OK:
            json.loads(text)
    except (OSError, ValueError, http.client.HTTPException):
        return True
    finally:
        connection.close()
    return False


class AwsClient:
    """A boto3 client of `service`, made with the first use, and anew when the credentials are. Thread-safe.

    `config` are the arguments of botocore's Config.
    """

    def __init__(self, service: str, *, credentials: Credentials | None = None, **config: Any) -> None:
        self._service, self._credentials, self._config = service, credentials or Credentials(), config
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None

    def get(self) -> Any:
        """Raises CredentialsError; CloudError when the environment makes no client possible (no region)."""
        session = self._credentials.session()
        with self._lock:
            if self._session is not session:
                import boto3
                from botocore.config import Config

                try:
                    with _MAKING:
                        boto = boto3.Session(botocore_session=session)
                        self._client = boto.client(self._service, config=Config(**self._config))
                except Exception as error:  # BotoCoreError, ValueError for an address that is none, ...
                    raise CloudError(f"{self._service}: {error}") from error
                self._session = session
            return self._client
