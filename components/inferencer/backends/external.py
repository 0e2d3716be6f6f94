"""Models in another process: an accelerator's runtime, in its maker's own Python, behind a Unix socket."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.backoff import Backoff
from edgeml.errors import BackendError, BundleError, ConfigError, EdgemlError
from edgeml.log import kv
from inferencer.parts import BackendSettings, Model, Place
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.health import Scope
    from inferencer.backends.external_session import ExternalSession
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

log = logging.getLogger(__name__)

MAX_PATH = 107  # bytes of a socket's address
WATCH_S = 1.0


class ExternalBackend(BackendSettings, frozen=True, tag="external", tag_field="type"):
    socket: Annotated[str, Meta(description="Unix socket of the helper that runs the model (backends/EXTERNAL.md)")]
    user: Annotated[
        str, Meta(description="User whom the helper runs as; empty for the component's own user, or root")
    ] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="Limit for one inference; a slower helper is left")] = 5.0
    max_bytes: Annotated[
        int, Meta(ge=4096, le=1 << 30, description="Shared memory for all inputs and outputs of the model")
    ] = 64 << 20

    def check(self, path: str, thing: str) -> None:
        import pwd

        if not self.socket.startswith("/") or "\0" in self.socket or len(os.fsencode(self.socket)) > MAX_PATH:
            found = f"expected an absolute path of at most {MAX_PATH} bytes, without NUL, found {self.socket!r}"
            raise ConfigError(f"{path}.socket", found)
        if self.user:
            try:
                pwd.getpwnam(self.user)
            except KeyError as error:
                raise ConfigError(f"{path}.user", f"there is no user {self.user!r} here") from error

    def open(self, place: Place) -> Model:
        return ExternalModel(self, place.pipeline, place.context, place.prefix)


class ExternalModel(Model):
    """A helper's model, as long as the helper is there: it is asked for again and again, with backoff, on a thread."""

    def __init__(self, settings: ExternalBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        self._settings, self._pipeline, self._context = settings, pipeline, context
        self._health = context.health.scope(prefix)
        self._current: tuple[Runner, ExternalSession] | None = None
        self._wake = threading.Event()
        self._closed = False
        self._thread = context.spawn(f"{prefix}-helper", self._connect_for_ever)

    def poll(self) -> bool:
        return self._current is not None

    def infer(self, sample: Sample) -> Outcome | None:
        current = self._current
        if current is None:
            raise BackendError(f"{self._settings.socket}: the helper is not there")
        runner, session = current
        try:
            outcome = runner.infer(sample)
        finally:
            if session.closed:
                self._current = None
                self._wake.set()
        if outcome is not None:
            outcome.backend = "external"
        return outcome

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=0.5)  # it may wait for a helper, for a bounded time
        if self._current is not None:
            self._current[1].close()

    def _connect_for_ever(self) -> None:
        health = self._health.scope("helper")
        backoff = Backoff(ceiling_s=30.0, floor_s=0.1)
        while not self._closed:
            pause = WATCH_S
            if self._current is None:
                try:
                    self._current = current = self._connected()
                except EdgemlError as error:
                    self._failed(health, error)
                    pause = backoff.next()
                else:
                    health.well()
                    backoff.reset()
                    log.info("helper answers %s", kv(socket=self._settings.socket, model=current[0].bundle.ref.name))
            self._wake.wait(pause)
            self._wake.clear()
        if self._current is not None:
            self._current[1].close()

    def _failed(self, health: Scope, error: EdgemlError) -> None:
        if self._closed:  # nobody takes the problem of a pipeline that is gone back
            return
        health.failed(error, "model_refused" if isinstance(error, BundleError) else "unreachable")
        self._health.count("helper_failures")

    def _connected(self) -> tuple[Runner, ExternalSession]:
        """A helper that answered once. Raises EdgemlError."""
        from inferencer.backends.external_session import ExternalSession
        from inferencer.tasks import runner_of

        settings, session = self._settings, None
        try:
            session = ExternalSession(settings.socket, settings.user, settings.timeout_s, settings.max_bytes)
            runner = runner_of(session.bundle, session, self._pipeline)
            runner.rehearse()
        except BaseException as error:
            if session is not None:
                session.close()
            if isinstance(error, EdgemlError) or not isinstance(error, Exception):
                raise
            raise BundleError(f"{settings.socket}: the helper's model does not fit: {error!r}") from error
        return runner, session
