"""One life of the runner, from the start or a `restart` to the next: a model kept running on its input."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_impulse_runner.config import Config
from edge_impulse_runner.eim import Eim
from edge_impulse_runner.errors import EimError
from edge_impulse_runner.models import ModelFinder
from edge_impulse_runner.protocol import Hello
from edge_impulse_runner.pump import Pump, model_info
from edge_impulse_runner.sources import Source
from edgeml.backoff import Backoff
from edgeml.edge_impulse.parameters import Settings
from edgeml.edge_impulse.reporter import Reporter
from edgeml.errors import BundleError, EdgemlError, SecretError, SourceError, StudioError, UnreadableError
from edgeml.health import Health
from edgeml.log import kv
from edgeml.pace import Ration

log = logging.getLogger(__name__)

MODEL_CHECK_S = 2.0
STARTS = (60, 60.0)  # of models, at most, within so many seconds
STEADY_S = 60.0  # what worked for so long begins again with short pauses

# What each kind of error is about.
_SUBJECTS: dict[type[EdgemlError], str] = {
    SourceError: "input",
    EimError: "model",
    UnreadableError: "model",
    StudioError: "studio",
    SecretError: "studio",
}

OpenSource = Callable[[Hello], Source]  # raises SourceError, ConfigError


class Life:
    """`run` returns after `ask_to_stop`, which any thread may call. A model or source that fails is made anew."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        finder: ModelFinder,
        open_source: OpenSource,
        reporter: Reporter,
        health: Health,
        backoff: Backoff | None = None,
    ) -> None:
        self._config, self._settings, self._finder = config, settings, finder
        self._open_source, self.reporter, self._health = open_source, reporter, health
        self._backoff = backoff or Backoff()
        self._starts = Ration(*STARTS)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._model: Eim | None = None
        self._refused: Path | None = None

    def run(self) -> None:
        """Until it is asked to stop. What nobody expected goes to the worker that runs this, which begins anew."""
        self._say(self.reporter.started, "start")
        ended = threading.Event()
        metrics = threading.Thread(target=self._publish_metrics, args=[ended], name="metrics", daemon=True)
        metrics.start()
        try:
            self._live()
        finally:
            ended.set()
            metrics.join()

    def _live(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._serve()
            except EdgemlError as error:
                if self._stopping.is_set():
                    break  # the model was closed under its asker, on purpose
                if time.monotonic() - began > STEADY_S:
                    self._backoff.reset()
                self._failed(error)

    def ask_to_stop(self) -> None:
        self._stopping.set()
        with self._lock:
            model = self._model
        if model is not None:
            model.close()

    def _failed(self, error: EdgemlError) -> None:
        self._health.count("failures")
        self._health.error(error)
        self._health.note("state", str(error))
        for kind, subject in _SUBJECTS.items():
            if isinstance(error, kind):
                self._health.problems.found(error.code, subject, str(error))
        if isinstance(error, SourceError) and self._settings.wait_on_restart:
            log.error("waiting for the restart command %s", kv(reason=error))
            self._stopping.wait()
            return
        pause = self._backoff.next()
        log.error("trying again %s", kv(reason=error, failures=self._backoff.failures, pause_s=pause))
        self._stopping.wait(pause)

    def _well(self, *kinds: type[EdgemlError]) -> None:
        for kind in kinds:
            self._health.problems.cleared(kind.code, _SUBJECTS[kind])

    def _serve(self) -> None:
        """Make model and source, and use them until one fails, another model appears, or the life ends."""
        path = self._finder.locate(self._stopping)
        model = self._new_model(path)
        try:
            self._prepare(model)
            with contextlib.closing(self._open_source(model.hello)) as source:
                pump = Pump(model, source, self.reporter, self._health, self._config.input.max_fps)
                next_check = time.monotonic() + MODEL_CHECK_S
                while not self._stopping.is_set():
                    if pump.step():
                        self._well(SourceError, EimError)
                    if time.monotonic() > next_check:
                        next_check = time.monotonic() + MODEL_CHECK_S
                        if self._replaced(path):
                            return
        finally:
            model.close()

    def _new_model(self, path: Path) -> Eim:
        limits = self._config.model
        return Eim(
            path,
            start_timeout_s=limits.start_timeout_s,
            classify_timeout_s=limits.classify_timeout_s,
            folder=self._finder.work,
            starts=self._starts,
        )

    def _prepare(self, model: Eim) -> None:
        with self._lock:
            self._model = model
        if self._stopping.is_set():  # ask_to_stop() may have looked before there was a model to close
            model.close()
        hello = model.open().hello
        if hello.needs_warm_up:
            self._health.note("state", "warming up the model")
            model.warm_up(self._config.model.warm_up_timeout_s)
        for block, values in self._config.model.thresholds.items():
            model.set_threshold(int(block), values)
        self._well(UnreadableError, StudioError, SecretError)
        self.reporter.model = model_info(model)
        self._health.note("state", "")
        self._health.note("model", f"{hello.project.name} v{hello.project.deploy_version}")
        log.info(
            "model runs %s",
            kv(
                project=hello.project.name,
                version=hello.project.deploy_version,
                type=hello.model_parameters.model_type,
                sensor=hello.sensor_type,
                features=hello.model_parameters.input_features_count,
                shared_memory=model.uses_shared_memory,
            ),
        )

    def _replaced(self, path: Path) -> bool:
        """Whether another model has been installed that starts; one that does not leaves this one running."""
        try:
            found = self._finder.installed()
        except BundleError:
            return False  # in the middle of an installation
        except Exception as error:
            log.exception("no look for a new model %s", kv(reason=error))
            self._health.count("model_looks_failed")
            self._health.error(error)
            return False
        if found in (None, path, self._refused):
            return False
        try:
            with self._new_model(found):
                return True
        except Exception as error:  # the running one is worth more than knowing which
            self._refused = found
            self._health.count("models_refused")
            self._health.error(error)
            trace = None if isinstance(error, EimError) else error
            log.error("new model does not start, keeping the old one %s", kv(path=found, reason=error), exc_info=trace)
            return False

    def _publish_metrics(self, ended: threading.Event) -> None:
        while True:
            self._say(self.reporter.publish_metrics, "metrics")
            if ended.wait(self._settings.metrics_interval_s):
                return

    def _say(self, say: Callable[[], None], what: str) -> None:
        """One message that is lost is no reason to end what works."""
        try:
            say()
        except Exception as error:
            self._health.count("messages_lost")
            self._health.error(error)
            expected = isinstance(error, EdgemlError)
            log.error("%s not published %s", what, kv(reason=error), exc_info=None if expected else error)
