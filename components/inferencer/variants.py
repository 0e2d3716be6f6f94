"""Which of a bundle's files runs here: the fastest that answers as model.onnx does, found by trying, and remembered."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import numpy as np

from edgeml import models
from edgeml.bundle import MODEL, Bundle
from edgeml.errors import EdgemlError
from edgeml.log import kv
from edgeml.onnx_session import runtime
from edgeml.variants import Processor, Variant, runnable, this_processor
from inferencer import choices
from inferencer.choices import Choice
from inferencer.preprocess import Preprocessor
from inferencer.tasks.runner import NO_IMAGE, Session

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)
T = TypeVar("T")

Wanted = Literal["auto", "fp32", "int8", "fp16"]
NOT_TRIED = "not tried"
GAIN = 1.05  # so many times as fast as model.onnx, or it is not worth its rounding
ROUNDS = 12  # of all candidates at most
# How far outputs may be off, as a part of their size, and besides. Broken arithmetic is off by all of it; how accurate
# a variant is was seen when it was made.
TOLERANCE, FLOOR = 0.5, 0.05
PICTURE = (640, 384)  # width and height in pixels where the model takes any
NICENESS = 10  # of trying, beside pipelines that run

TURN_S = 0.2  # between two looks whether one that waits for its turn is to stop

_trying = threading.Lock()  # two at once would measure each other


def opened(bundle: Bundle, how: How) -> Session:
    """A session of its own, tried on zeros. Raises EdgemlError."""
    session = models.open_session(bundle, providers=how.providers, threads=how.threads, optimization=how.optimization)
    models.probe(session, bundle)
    return Session(bundle, session)


@dataclass(frozen=True)
class How:
    """How a pipeline runs models. `clock` gives seconds, `own_time` those that the thread itself has computed."""

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


def known(bundle: Bundle, how: How, memory: Path) -> Bundle | None:
    """`bundle` with the file that is to run, None if that is to be tried. `memory` is the file of what was found."""
    if not bundle.manifest.variants:
        return bundle
    if how.wanted == "fp32":
        return bundle.using(MODEL, "as configured")
    fitting = list(_fitting(bundle, how))
    if not fitting:
        sought = "" if how.wanted == "auto" else f"{how.wanted} "
        isas = how.processor.isas
        return bundle.using(MODEL, f"no {sought}variant for {isas[0] if isas else how.processor.machine}")
    choice = choices.read(memory).get(_key(bundle, how))
    if choice is not None and choice.begun >= choices.LETHAL:
        return bundle.using(MODEL, f"with variants the process ended {choice.begun} times")
    if not how.probe_s:
        return bundle.using(MODEL if how.wanted == "auto" else fitting[0].file, NOT_TRIED)
    if choice is None or choice.file not in (MODEL, *(variant.file for variant in fitting)):
        return None
    if choice.begun and choice.file == MODEL:
        return None
    return bundle.using(choice.file, choice.why)


def outlived(bundle: Bundle, how: How, memory: Path) -> AbstractContextManager[None]:
    """Counts in `memory` that variants of `bundle` begin, as long as they have not begun."""
    return choices.outlived(memory, _key(bundle, how))


def chosen(bundle: Bundle, how: How, memory: Path) -> Bundle:
    """As `known`, tried if need be.

    Never raises for a variant that does not load, run or agree: it is passed over, and the log says why.
    """
    while not _trying.acquire(timeout=TURN_S):
        if how.stopping():
            return bundle.using(MODEL, NOT_TRIED)
    try:
        if found := known(bundle, how, memory):
            return found
        if how.stopping():
            return bundle.using(MODEL, NOT_TRIED)
        with outlived(bundle, how, memory):
            choice = _politely(lambda: _tried(bundle, list(_fitting(bundle, how)), how))
        if choice is None:
            return bundle.using(MODEL, NOT_TRIED)
        choices.put(memory, _key(bundle, how), choice)
    finally:
        _trying.release()
    return bundle.using(choice.file, choice.why)


def _fitting(bundle: Bundle, how: How) -> Iterator[Variant]:
    """Those that run here, for the best instructions first; of a precision the first alone."""
    seen = set()
    for variant in runnable(bundle.manifest.variants, how.processor, how.providers):
        if how.wanted in ("auto", variant.precision) and variant.precision not in seen:
            seen.add(variant.precision)
            yield variant


def _tried(bundle: Bundle, fitting: Sequence[Variant], how: How) -> Choice | None:
    """The fastest that works; model.onnx where none does, or none is faster by GAIN and none was asked for.

    Nothing where it was stopped.
    """
    inputs, why = _inputs(bundle, how), ""
    best: dict[str, float] = {}
    given = [(MODEL, "fp32"), *((variant.file, variant.name) for variant in fitting)]
    running: dict[str, Session] = {}
    expected: list[dict[str, Any]] = []
    end = math.inf
    for file, name in given:
        if how.stopping():
            return None
        try:
            running[file] = session = how.open(replace(bundle, file=file), how)
            answers = [session.run(*each) for each in inputs]  # the first run is slower than all later ones
            if file == MODEL:
                expected, end = answers, how.clock() + how.probe_s
            elif off := differing(answers, expected):
                raise EdgemlError(off)
        except (EdgemlError, ValueError, TypeError) as error:  # of NumPy, at outputs that are no numbers
            running.pop(file, None)
            if file == MODEL:
                return None  # whoever opens it says what is wrong
            why = f"{name} does not work here"
            log.warning("variant passed over %s", kv(file=bundle.path / file, error=error))
    if len(running) == 1:
        return Choice(MODEL, why)
    watch = how.own_time if how.threads == 1 else how.clock  # others' work must not count, where that can be told
    for turn in range(ROUNDS):
        if turn and how.clock() >= end:
            break
        for file, session in running.items():
            if how.stopping():
                return None
            began = watch()
            session.run(*inputs[-1])
            best[file] = min(best.get(file, math.inf), watch() - began)
    return _fastest(best, how.wanted)


def _fastest(seconds: dict[str, float], wanted: Wanted) -> Choice:
    file = min((file for file in seconds if file != MODEL), key=seconds.__getitem__)
    gain = seconds[MODEL] / max(seconds[file], 1e-9)
    if wanted == "auto" and gain < GAIN:
        return Choice(MODEL, f"the best variant is {gain:.2f} x as fast here")
    return Choice(file, f"{gain:.2f} x as fast as fp32 here")


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


def _politely(work: Callable[[], T]) -> T:
    """`work`, on a thread that gives way to others, and whose threads do."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001  (it is raised again by whoever waits)
            found.set_exception(error)

    threading.Thread(target=run, name="variants", daemon=True).start()
    return found.result()


def _key(bundle: Bundle, how: How) -> str:
    """All that the choice depends on."""
    processor, manifest = how.processor, bundle.manifest
    facts = (
        [manifest.sha256, *sorted(variant.sha256 for variant in manifest.variants), *sorted(manifest.files.values())],
        [processor.machine, *sorted(processor.flags)],
        [runtime().__version__, *how.providers],
        [how.wanted, how.threads, how.optimization, how.max_side],
    )
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
