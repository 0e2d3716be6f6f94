"""Which execution providers a pipeline runs on: those that it asks for, or the CPU's while they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError, ProviderError
from edgeml.log import kv

if TYPE_CHECKING:
    from edgeml.bundle import Bundle
    from edgeml.health import Scope
    from inferencer.tasks.runner import Runner

log = logging.getLogger(__name__)

SUSPECT_S = 10.0  # between two looks whether a provider still works
CPU = ("CPUExecutionProvider",)


class Providers:
    """`now` are those that the next session is to have; problems and what runs are told in `scope`.

    `suspect` is the last runner that failed at a sample; any thread may name it.
    """

    def __init__(self, wanted: tuple[str, ...], scope: Scope, *, fallback_to_cpu: bool) -> None:
        self.now, self._wanted, self._scope, self._falls_back = wanted, wanted, scope, fallback_to_cpu
        self.suspect: Runner | None = None
        self._looked_at = -SUSPECT_S

    def opened(self, open_runner: Callable[[], Runner], *, it_ran: bool = False) -> Runner:
        """What `open_runner` makes on the providers that are asked for, else, if that is allowed, on the CPU.

        `it_ran`: this very model did run on them. Raises ProviderError if it may not be the CPU, and EdgemlError where
        the model fails there, too.
        """
        self.now = self._wanted
        try:
            runner = open_runner()
        except EdgemlError as error:
            if self._wanted == CPU:
                raise
            if self._falls_back or not (it_ran or isinstance(error, ProviderError)):
                self.now = CPU
                runner = open_runner()  # where this fails, too, it is the model's own fault
            self._scope.found("provider_failed", str(error) + ("; the CPU answers" if self._falls_back else ""))
            if not self._falls_back:
                raise ProviderError(str(error)) from error
        else:
            self._scope.cleared("provider_failed")
        if self._wanted != CPU:
            self._scope.note(f"runs on {self.now[0]}")
        return runner

    def replaced(self, running: Runner | None, open_runner: Callable[[Bundle], Runner]) -> Runner | None:
        """One on the CPU, where the `running` one is suspect and fails at zeros, too, and that is allowed.

        Never raises. An error may be of the sample, or of a provider that no longer works.
        """
        suspect, now = self.suspect, time.monotonic()
        if suspect is None or now - self._looked_at < SUSPECT_S:
            return None
        self.suspect, self._looked_at = None, now
        if suspect is not running or self.now == CPU:
            return None
        try:
            runner = self.opened(lambda: open_runner(suspect.bundle), it_ran=True)
        except Exception as error:
            log.exception("provider fails %s", kv(model=suspect.bundle.model, error=error))
            return None
        return runner if self.now == CPU else None
