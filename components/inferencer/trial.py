"""Trying what a machine may run of a bundle: whatever answers as model.onnx does, in turns with it, for its speed."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from edgeml import models
from edgeml.bundle import MODEL, Bundle
from edgeml.errors import EdgemlError, ProviderError
from edgeml.log import kv
from edgeml.place import Place
from edgeml.throttling import Throttling
from edgeml.variants import Processor, this_processor
from inferencer.choices import MAX_WHY, Choice
from inferencer.preprocess import Preprocessor
from inferencer.providers import CPU, session_providers
from inferencer.tasks.runner import NO_IMAGE, Session

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)
T = TypeVar("T")

Wanted = Literal["auto", "fp32", "int8", "fp16"]
GAIN = 1.05  # so many times as fast as model.onnx, or it is not worth its rounding
ROUNDS = 12  # of all candidates at most
START_S = 60.0  # of an accelerator that builds a program of the model, at each start
# How far outputs may be off, as a part of their size, and besides. Broken arithmetic is off by all of it; how accurate
# a variant is was seen when it was made.
TOLERANCE, FLOOR = 0.5, 0.05
PICTURE = (640, 384)  # width and height in pixels where the model takes any
NICENESS = 10  # of trying, beside pipelines that run


def opened(bundle: Bundle, how: How) -> Session:
    """A session of its own, tried on zeros. Raises EdgemlError."""
    providers = session_providers(bundle, how.providers)
    session = models.open_session(bundle, providers=providers, threads=how.threads, optimization=how.optimization)
    models.probe(session, bundle)
    return Session(bundle, session)


@dataclass(frozen=True)
class How:
    """How a pipeline runs models: on `providers`, or on one of the `accelerators` where that is faster.

    `clock` gives seconds, `own_time` those that the thread itself has computed. `place` tells of throttling, whose end
    is waited for by who is `patient`.
    """

    wanted: Wanted
    probe_s: float
    providers: Sequence[str]
    threads: int
    optimization: Literal["all", "extended", "basic", "off"]
    max_side: int = 0
    processor: Processor = field(default_factory=this_processor)
    clock: Callable[[], float] = time.perf_counter
    open: Callable[[Bundle, How], Session] = opened
    stopping: Callable[[], bool] = lambda: False
    own_time: Callable[[], float] = time.thread_time
    accelerators: Sequence[str] = ()
    place: Place = field(default_factory=Place)
    patient: bool = True


class Candidate(NamedTuple):
    """A file of a bundle, on an accelerator where `provider` names one."""

    file: str
    precision: str
    provider: str = ""


REFERENCE = Candidate(MODEL, "fp32")


class Found(NamedTuple):
    """`lasting` is what may be remembered: nothing was out of order that may be in order at the next start."""

    choice: Choice
    lasting: bool


def tried(bundle: Bundle, candidates: Sequence[Candidate], how: How) -> Found | None:
    """The fastest that works; model.onnx where none does, or none is faster by GAIN and none was asked for.

    None where it was stopped, or model.onnx does not run: whoever opens it says what is wrong.
    """
    trial = _Trial(bundle, how)
    for candidate in (REFERENCE, *candidates):
        if how.stopping():
            return None
        trial.take_in(candidate)
        if not trial.running:
            return None
    if not trial.measured():
        return None
    choice = trial.fastest()
    return Found(choice, bool(choice.provider or not trial.without) and not trial.throttling.look())


class _Trial:
    """`running` are the candidates that work, model.onnx first; `without` says of providers why they do not start."""

    def __init__(self, bundle: Bundle, how: How) -> None:
        self._bundle, self._how, self._inputs = bundle, how, _inputs(bundle, how)
        self.throttling = Throttling(how.place)
        self.running: dict[Candidate, Session] = {}
        self.without: dict[str, str] = {}
        self._expected: list[dict[str, Any]] = []
        self._best: dict[Candidate, float] = {}
        self._end, self._broken = math.inf, ""

    def take_in(self, candidate: Candidate) -> None:
        """Open it, unless its provider does not start, and compare its answers with those of the first one."""
        how = self._how
        if candidate.provider in self.without:
            return
        began = how.clock()
        try:
            session = how.open(self._using(candidate), how)
            answers = [session.run(*each) for each in self._inputs]  # the first run is slower than all later ones
            if not self.running:
                self._expected, self._end = answers, how.clock() + how.probe_s
            elif off := differing(answers, self._expected):
                raise EdgemlError(off)
            if candidate.provider and (took := how.clock() - began) > START_S:
                raise EdgemlError(f"it takes {took:.0f} s to start, more than {START_S:.0f} s")
            self.running[candidate] = session
        except (EdgemlError, ValueError, TypeError) as error:  # of NumPy, at outputs that are no numbers
            self._pass_over(candidate, error)
        if candidate.provider:  # what an accelerator takes to start leaves as much time for measuring
            self._end += how.clock() - began

    def measured(self) -> bool:
        """False where it was stopped, or model.onnx works no longer."""
        how = self._how
        # Others' work must not count, where that can be told: by the thread's own time, if it computes all by itself.
        alone = how.threads == 1 and tuple(how.providers) == CPU
        for turn in range(ROUNDS):
            if len(self.running) == 1 or (turn and how.clock() >= self._end):
                break
            for candidate, session in list(self.running.items()):
                if how.stopping():
                    return False
                watch = how.own_time if alone and not candidate.provider else how.clock
                began = watch()
                try:
                    session.run(*self._inputs[-1])
                except EdgemlError as error:
                    self._pass_over(candidate, error)
                    continue
                self._best[candidate] = min(self._best.get(candidate, math.inf), watch() - began)
            self.throttling.look()
        return REFERENCE in self.running

    def _using(self, candidate: Candidate) -> Bundle:
        return self._bundle.using(candidate.file, provider=candidate.provider)

    def _pass_over(self, candidate: Candidate, error: Exception) -> None:
        self.running.pop(candidate, None)
        if candidate.provider and isinstance(error, ProviderError):
            self.without[candidate.provider] = str(error)
        else:
            self._broken = f"{self._using(candidate).variant} does not work here"
        facts = kv(file=self._bundle.path / candidate.file, provider=candidate.provider, error=error)
        log.warning("variant passed over %s", facts)

    def fastest(self) -> Choice:
        wanted = [each for each in self.running if self._how.wanted in ("auto", each.precision)] or list(self.running)
        others = [each for each in wanted if each != REFERENCE]
        if not others:
            return self._choice(REFERENCE, self._broken)
        best = min(others, key=self._best.__getitem__)
        gain = self._best[REFERENCE] / max(self._best[best], 1e-9)
        if REFERENCE in wanted and gain < GAIN:
            what = self._using(best).variant if best.provider else "the best variant"
            return self._choice(REFERENCE, f"{what} is {gain:.2f} x as fast here")
        return self._choice(best, f"{gain:.2f} x as fast as fp32 {'on the CPU' if best.provider else 'here'}")

    def _choice(self, candidate: Candidate, why: str) -> Choice:
        said = "; ".join(filter(None, (why, *self.without.values())))
        return Choice(candidate.file, said[:MAX_WHY], provider=candidate.provider)


def _inputs(bundle: Bundle, how: How) -> list[tuple[Array, Any]]:
    """What is tried: something that looks like a picture, or numbers of the usual size."""
    declared, random = bundle.manifest.input, np.random.default_rng(0)
    if declared.layout == "tensor":
        integers = "int" in declared.dtype
        values = random.integers(0, 100, declared.shape) if integers else random.standard_normal(declared.shape)
        return [(values.astype(declared.dtype)[np.newaxis], NO_IMAGE)]
    import cv2

    width, height = (side or usual for side, usual in zip(declared.size, PICTURE, strict=True))
    spots = random.integers(0, 256, (9, 16, 3), np.uint8)
    image = np.asarray(cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC))
    try:
        return [Preprocessor(declared, how.max_side if 0 in declared.size else 0)(image)]
    except ValueError as error:
        raise EdgemlError(str(error)) from error


def differing(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> str:
    """How answers differ from those of model.onnx by more than rounding; nothing if they do not."""
    for one, other in zip(found, expected, strict=True):
        if one.keys() != other.keys():
            return f"outputs {', '.join(one)} where model.onnx has {', '.join(other)}"
        for name, value in one.items():
            ours, theirs = np.asarray(value, np.float64), np.asarray(other[name], np.float64)
            if ours.shape != theirs.shape:
                return f"output {name} has shape {ours.shape}, that of model.onnx {theirs.shape}"
            if not ours.size:  # nothing found in this picture
                continue
            off, size = (math.sqrt(np.square(each).mean()) for each in (ours - theirs, theirs))
            if not off <= TOLERANCE * size + FLOOR:  # not a number is no agreement
                return f"output {name} is off by {off:.3g}, where model.onnx answers {size:.3g}"
    return ""


def politely(work: Callable[[], T]) -> Future[T]:
    """`work` begins, on a thread that gives way to others, and whose threads do."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001  (it is raised again by whoever waits)
            found.set_exception(error)

    threading.Thread(target=run, name="variants", daemon=True).start()
    return found
