"""Which execution providers a pipeline runs on: those that it asks for, or the CPU's while they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from edgeml import variants
from edgeml.errors import EdgemlError, ProviderError
from edgeml.log import kv
from edgeml.onnx_session import runtime

if TYPE_CHECKING:
    from edgeml.bundle import Bundle
    from edgeml.health import Scope
    from inferencer.tasks.runner import Runner

log = logging.getLogger(__name__)

SUSPECT_S = 10.0  # between two looks whether a provider still works
CPU = (variants.CPU,)
BESIDE = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}  # who computes what it cannot, before the CPU does


def session_providers(bundle: Bundle, configured: Sequence[str]) -> tuple[str, ...]:
    """Those of a session that runs `bundle`."""
    if not bundle.provider:
        return tuple(configured)
    return (bundle.provider, *BESIDE.get(bundle.provider, ()), *CPU)


class Providers:
    """`now` are those that the next session is to have; problems and what runs are told in `scope`.

    With `auto` that is the CPU's, and one of the `accelerators` that this ONNX Runtime has may be chosen instead, until
    one that was chosen fails. `suspect` is the last runner that failed at a sample; any thread may name it.
    """

    def __init__(self, wanted: tuple[str, ...] | Literal["auto"], scope: Scope, *, fallback_to_cpu: bool) -> None:
        self._is_auto = wanted == "auto"
        self._wanted: tuple[str, ...] = CPU if wanted == "auto" else wanted
        self.now, self._scope, self._falls_back = self._wanted, scope, fallback_to_cpu
        self.accelerators: tuple[str, ...] = ()
        self.suspect: Runner | None = None
        self._looked_at = -SUSPECT_S

    def opened(self, open_runner: Callable[[], Runner], *, it_ran: bool = False) -> Runner:
        """What `open_runner` makes on the providers that are asked for, else, if that is allowed, on the CPU.

        `it_ran`: this very model did run on them. Raises ProviderError if it may not be the CPU, and EdgemlError where
        the model fails there, too.
        """
        self.now = self._wanted
        if self._is_auto:
            self.accelerators = present()
        if self._wanted == CPU:
            return open_runner()
        try:
            runner = open_runner()
        except EdgemlError as error:
            if self._falls_back or not (it_ran or isinstance(error, ProviderError)):
                self.now = CPU
                runner = open_runner()  # where this fails, too, it is the model's own fault
            self._scope.found("provider_failed", str(error) + ("; the CPU answers" if self._falls_back else ""))
            if not self._falls_back:
                raise ProviderError(str(error)) from error
        else:
            self._scope.cleared("provider_failed")
        return runner

    def replaced(self, running: Runner | None, open_runner: Callable[[Bundle], Runner]) -> Runner | None:
        """One on the CPU, where the `running` one is suspect and fails at zeros, too, and that is allowed.

        Never raises. An error may be of the sample, or of a provider that no longer works.
        """
        suspect, now = self.suspect, time.monotonic()
        if suspect is None or now - self._looked_at < SUSPECT_S:
            return None
        self.suspect, self._looked_at = None, now
        if suspect is not running or (self.now == CPU and not suspect.bundle.provider):
            return None
        try:
            if suspect.bundle.provider:
                return self._instead(suspect.bundle, open_runner)
            runner = self.opened(lambda: open_runner(suspect.bundle), it_ran=True)
        except Exception as error:
            log.exception("provider fails %s", kv(model=suspect.bundle.model, error=error))
            return None
        return runner if self.now == CPU else None

    def _instead(self, bundle: Bundle, open_runner: Callable[[Bundle], Runner]) -> Runner | None:
        """What the CPU runs, where the accelerator that was chosen fails."""
        try:
            open_runner(bundle)
        except EdgemlError as error:
            self.failed(error)
            return open_runner(bundle)
        return None

    def failed(self, error: Exception) -> None:
        """An accelerator that was chosen does: the CPU is what is left, until the next model."""
        self.accelerators = ()
        self._scope.found("provider_failed", f"{error}; the CPU answers")

    def answers(self, bundle: Bundle, *, for_now: bool) -> None:
        """Tell what does, and why. `for_now`: others are still to be tried."""
        if not self._is_auto:
            self._scope.note(f"runs on {self.now[0]}" if self._wanted != CPU else "")
            return
        if self.accelerators and not for_now:
            self._scope.cleared("provider_failed")
        why = bundle.why if self.accelerators else "" if present() else "no other is in this ONNX Runtime"
        self._scope.note(f"runs on {bundle.provider or self.now[0]}" + (f", {why}" if why else ""))


def present() -> tuple[str, ...]:
    """Accelerators of which this ONNX Runtime has the provider, the preferred first."""
    there = runtime().get_available_providers()
    return tuple(provider for provider in variants.ACCELERATORS if provider in there)
