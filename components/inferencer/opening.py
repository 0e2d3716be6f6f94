"""Opens bundles as a pipeline runs them: what answers first, what is tried meanwhile, what is left if that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml import models
from edgeml.bundle import MODEL, Bundle
from edgeml.errors import BundleError, EdgemlError
from edgeml.log import kv
from inferencer import variants
from inferencer.providers import Providers, session_providers
from inferencer.sessions import session_of
from inferencer.tasks import runner_of
from inferencer.trial import How

if TYPE_CHECKING:
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

log = logging.getLogger(__name__)

PATIENCE_S = 600.0  # for the CPU to be at full speed again
UNTRIED = ("until its variants are tried", "until other providers are tried")


class Opener:
    """For one pipeline; of one thread.

    An accelerator that is chosen starts while the CPU answers, at each start: it may take long, or not start at all.
    """

    def __init__(
        self, how: How, tiles: tuple[int, int], pipeline: Pipeline, providers: Providers, memory: Path
    ) -> None:
        self._how, self._tiles, self._pipeline = how, tiles, pipeline
        self._providers, self._memory = providers, memory
        self._for_now: Bundle | None = None  # what was opened last, if others are to be tried
        self._untried: Bundle | None = None  # the same, once it runs
        self._patient_until = 0.0

    def load(self, folder: Path) -> Runner:
        """The bundle, loaded, probed and warmed up by one whole inference. Raises EdgemlError."""
        try:
            return self._providers.opened(lambda: self._first(models.load(folder)))
        except EdgemlError:
            raise
        except Exception as error:  # whatever a bundle declares: the version that runs goes on running
            raise BundleError(f"{folder}: model.json and model.onnx do not fit: {error!r}") from error

    def replace(self, running: Runner | None) -> Runner | None:
        """As Providers.replaced."""
        return self._providers.replaced(running, self._again)

    def answers(self, bundle: Bundle) -> None:
        """`bundle` does, from now on."""
        self._untried = bundle if bundle is self._for_now else None
        self._patient_until = time.monotonic() + PATIENCE_S
        self._providers.answers(bundle, for_now=self._untried is not None)

    def better(self, say: Callable[[str], None]) -> Runner | None:
        """What is found by trying, if there is something to try, while what was opened first answers.

        None also where that is not the time: to stop, or the CPU is slowed down or busy with a trial, which is told by
        `say`. Never raises.
        """
        bundle = self._untried
        if bundle is None:
            return None
        how, found = self._now(), bundle
        try:
            found = variants.chosen(bundle, how, self._memory)
            if found.why in (variants.HOT, variants.BUSY):
                say(f"{found.variant}: {found.why}")
                return None
            if found.why == variants.NOT_TRIED and how.stopping():
                return None
            self._untried = None
            return self._running_or_plain(found)
        except Exception as error:
            self._untried = None
            log.exception("variants not tried %s", kv(folder=bundle.path, error=error))
            if found.provider:
                self._providers.failed(error)
                self._untried = found  # on the CPU, once more
            return None

    def _first(self, bundle: Bundle) -> Runner:
        how = self._now()
        known = variants.known(bundle, how, self._memory)
        self._for_now = None
        if known is None or known.provider:
            known = self._for_now = bundle.using(MODEL, UNTRIED[bool(how.accelerators)])
        return self._running_or_plain(known)

    def _again(self, bundle: Bundle) -> Runner:
        """`bundle`, or what the CPU runs of it where that is what is left."""
        return self._running(bundle) if bundle.provider in self._providers.accelerators else self._first(bundle)

    def _running_or_plain(self, bundle: Bundle) -> Runner:
        if bundle.file == MODEL and not bundle.provider:
            return self._running(bundle)
        try:
            with variants.outlived(bundle, self._now(), self._memory):
                return self._running(bundle)
        except Exception as error:
            if bundle.provider:
                raise
            log.warning("variant does not run, model.onnx does %s", kv(file=bundle.model, error=error))
            return self._running(bundle.using(MODEL, f"{bundle.variant} does not work here"))

    def _now(self) -> How:
        return replace(
            self._how,
            providers=self._providers.now,
            accelerators=self._providers.accelerators,
            patient=time.monotonic() < self._patient_until,
        )

    def _running(self, bundle: Bundle) -> Runner:
        session = session_of(
            bundle,
            providers=session_providers(bundle, self._providers.now),
            threads=self._how.threads,
            optimization=self._how.optimization,
        )
        models.probe(session, bundle)
        runner = runner_of(bundle, session, self._pipeline)
        runner.look(self._how.max_side, self._tiles)
        runner.rehearse()
        return runner
