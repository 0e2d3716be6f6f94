"""Bundles on ONNX Runtime: loaded and probed in the background, swapped between two samples."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

import edgeml.place
from edgeml import messages, models
from edgeml.errors import BackendError, ConfigError, EdgemlError, ProviderError
from edgeml.fields import Name
from edgeml.log import kv
from edgeml.messages import ModelActivate, ModelStatus
from inferencer import choices
from inferencer.parts import BackendSettings, Model, Place
from inferencer.providers import Providers
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml.component import Context
    from inferencer.opening import Opener
    from inferencer.parts import Pipeline, Topics
    from inferencer.tasks.runner import Runner

log = logging.getLogger(__name__)

POLL_S = 1.0
MAX_REASON = 1000  # characters of a refusal that go into a message


class OnnxBackend(BackendSettings, frozen=True, tag="onnx", tag_field="type"):
    model: Annotated[Name, Meta(description="Name of an installed model bundle (edgeml.model.<name> or an update)")]
    path: Annotated[str, Meta(description="Folder of a bundle, instead of an installed one")] = ""
    providers: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)] | Literal["auto"],
        Meta(description="ONNX Runtime execution providers, the preferred one first; auto tries and takes the fastest"),
    ] = ("CPUExecutionProvider",)
    fallback_to_cpu: Annotated[
        bool,
        Meta(
            description="Let the CPU answer while a provider is not there or fails, which is a problem meanwhile; "
            "with providers auto it always does"
        ),
    ] = False
    threads: Annotated[
        Annotated[int, Meta(ge=0, le=256)] | Literal["auto"],
        Meta(description="Threads of one inference; 0 lets ONNX Runtime choose, auto shares the cores among pipelines"),
    ] = 1
    max_side: Annotated[
        int, Meta(ge=0, le=16384, description="Shrink larger pictures to so many pixels a side; 0 leaves them")
    ] = 0
    tiles: Annotated[
        str,
        Meta(
            pattern=r"^[1-8]x[1-8]$(?!\n)", description="Columns x rows of tiles that are looked at besides the whole"
        ),
    ] = "1x1"
    optimization: Annotated[
        Literal["all", "extended", "basic", "off"], Meta(description="Graph optimization level")
    ] = "all"
    variant: Annotated[
        Literal["auto", "fp32", "int8", "fp16"],
        Meta(description="Which of a bundle's variants runs, where it has some; auto tries and takes the fastest"),
    ] = "auto"
    probe_s: Annotated[
        float, Meta(ge=0, le=60, description="Seconds for trying variants and providers; 0 tries none")
    ] = 3.0

    def check(self, path: str, thing: str) -> None:
        from edgeml.onnx_session import runtime

        if self.providers == "auto":
            return
        if "auto" in self.providers:
            place = f"{path}.providers.{self.providers.index('auto')}"
            raise ConfigError(place, "auto takes the place of the list, found it in one")
        if self.fallback_to_cpu:
            return
        present = runtime().get_available_providers()
        for index, provider in enumerate(self.providers):
            if provider not in present:
                found = f"{provider} is not in this ONNX Runtime, present are {', '.join(present)}"
                raise ConfigError(f"{path}.providers.{index}", found)

    def open(self, place: Place) -> Model:
        return OnnxModel(self, place.pipeline, place.context, place.prefix, place.sharing)


class OnnxModel(Model):
    """The newest good version of a bundle. A version that does not load or run leaves the running one in place."""

    def __init__(
        self,
        settings: OnnxBackend,
        pipeline: Pipeline,
        context: Context,
        prefix: str,
        sharing: int = 1,
        device: edgeml.place.Place | None = None,
    ) -> None:
        self._settings, self._pipeline, self._context = settings, pipeline, context
        self._device = device or edgeml.place.Place()
        self._threads = threads(settings.threads, sharing)
        self._health = context.health.scope(prefix)
        self._of_model = self._health.scope("model")
        place = Path(settings.path) if settings.path else None
        self._watcher = models.Watcher(settings.model, context.root, place)
        self._memory = context.work / "variants.json"  # of which variant runs best
        self._providers = Providers(
            settings.providers, self._health.scope("provider"), fallback_to_cpu=settings.fallback_to_cpu
        )
        self._runner: Runner | None = None
        self._loaded: Runner | None = None  # put by the loader, taken by the pipeline's threads
        self._swap = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._request: ModelActivate | None = None
        self._refused = False
        self._of_model.note(f"waiting for model {settings.model}")
        self._thread = context.spawn(f"{prefix}-loader", self._load_for_ever)

    def topics(self) -> Topics:
        return [(messages.model_activate(self._settings.model), self.activate)]

    def poll(self) -> bool:
        if self._loaded is not None:
            with self._swap:
                loaded, self._loaded = self._loaded, None
                if loaded is not None:
                    loaded.follow(self._runner.memory if self._runner else None)
                    self._runner = loaded
        return self._runner is not None

    @property
    def together(self) -> int:
        return self._runner.together if self._runner is not None else 1

    def infer(self, sample: Sample) -> Outcome | None:
        runner = self._runner
        if runner is None:
            raise BackendError(f"model {self._settings.model} is not loaded")
        try:
            return runner.infer(sample)
        except BackendError:
            self._providers.suspect = runner
            raise

    def infer_all(self, samples: Sequence[Sample]) -> list[Outcome | None]:
        runner = self._runner
        if runner is None:
            raise BackendError(f"model {self._settings.model} is not loaded")
        try:
            return runner.infer_all(samples)
        except BackendError:
            self._providers.suspect = runner
            raise

    def activate(self, topic: str, payload: bytes) -> None:
        """Handler of `edgeml/model/<name>/activate`: look now, and answer."""
        try:
            self._request = messages.decode(payload, ModelActivate)
        except msgspec.MsgspecError as error:
            log.warning("not an activation %s", kv(topic=topic, error=error))
            return
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=0.5)  # it may be in the middle of a large model
        choices.excused(self._memory)  # what it tries may go on without it

    def _load_for_ever(self) -> None:
        opener = self._opener()
        while not self._closed:
            request, self._request = self._request, None
            folder = self._watcher.changed()
            self._say_unreadable()
            if (runner := opener.replace(self._runner)) is not None:
                self._offer(opener, runner)
            if folder is not None:
                self._load(opener, folder, request)
            elif request is not None:
                self._answer(self._state(request), request)
            if self._refused and not self._watcher.refusing():  # replaced by a good one, or taken away
                self._refused = False
                self._of_model.cleared("model_refused")
            if (runner := opener.better(self._of_model.variant)) is not None and not self._closed:
                self._offer(opener, runner)
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _opener(self) -> Opener:
        from inferencer.opening import Opener  # which needs heavy libraries
        from inferencer.trial import How

        settings = self._settings
        how = How(
            wanted=settings.variant,
            probe_s=settings.probe_s,
            providers=self._providers.now,
            threads=self._threads,
            optimization=settings.optimization,
            max_side=settings.max_side,
            stopping=lambda: self._closed or self._request is not None,
            place=self._device,
        )
        columns, rows = map(int, settings.tiles.split("x"))
        return Opener(how, (columns, rows), self._pipeline, self._providers, self._memory)

    def _say_unreadable(self) -> None:
        if self._watcher.unreadable:
            self._of_model.found("unreadable", self._watcher.unreadable)
        else:
            self._of_model.cleared("unreadable")

    def _load(self, opener: Opener, folder: Path, request: ModelActivate | None) -> None:
        try:
            runner = opener.load(folder)
        except EdgemlError as error:
            if self._closed:  # nobody takes the problem of a pipeline that is gone back
                return
            self._health.error(error)
            self._health.count("models_refused")
            log.error("model refused %s", kv(folder=folder, error=error))
            version = request.version if request else _version(folder)
            self._answer(self._status("refused", version, str(error)[:MAX_REASON]), request)
            self._watcher.refuse(folder)
            self._refused = True
            if not isinstance(error, ProviderError):
                self._of_model.found("model_refused", str(error))
            if self._runner is None and self._loaded is None:
                self._wake.set()  # nothing answers yet: see at once whether another installed bundle can
            return
        if self._closed:
            return
        self._of_model.note("")
        self._offer(opener, runner)
        self._health.count("models_loaded")
        self._answer(self._status("accepted", runner.bundle.ref.version), request)

    def _offer(self, opener: Opener, runner: Runner) -> None:
        opener.answers(runner.bundle)
        with self._swap:
            self._loaded = runner
        models.give_back()
        self._of_model.variant(runner.bundle.variant and f"{runner.bundle.variant}: {runner.bundle.why}")
        log.info("model loaded %s", _facts(runner.bundle))

    def _state(self, request: ModelActivate) -> ModelStatus:
        """The answer to an activation of what is there already."""
        runner = self._loaded or self._runner
        running = runner.bundle.ref.version if runner else ""
        if running == request.version:
            return self._status("accepted", running)
        return self._status("refused", request.version, f"the newest usable version here is {running or 'none'}")

    def _status(self, status: Literal["accepted", "refused"], version: str, reason: str = "") -> ModelStatus:
        return ModelStatus(
            model=self._settings.model, version=version, status=status, component="edgeml.Inferencer", reason=reason
        )

    def _answer(self, status: ModelStatus, request: ModelActivate | None) -> None:
        if request is not None:
            status = msgspec.structs.replace(status, request_id=request.request_id)
        try:
            self._context.ipc.publish(messages.model_status(self._settings.model), messages.encode(status))
        except EdgemlError as error:
            self._health.error(error)
            log.error("%s", error)


def threads(wanted: int | Literal["auto"], sharing: int, cores: int = 0) -> int:
    """Of one inference, where `sharing` pipelines run models here on `cores`, by default those of this process."""
    cores = cores or len(os.sched_getaffinity(0))
    return max(1, cores // max(1, sharing)) if wanted == "auto" else wanted


def _facts(bundle: models.Bundle) -> str:
    chosen = {"variant": bundle.variant, "why": bundle.why} if bundle.variant else {}
    return kv(model=bundle.ref.name, version=bundle.ref.version, **chosen, folder=bundle.path)


def _version(folder: Path) -> str:
    try:
        return models.read_manifest(folder).version
    except EdgemlError:
        return "unknown"
