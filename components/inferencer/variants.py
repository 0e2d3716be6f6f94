"""Which of a bundle's files runs here, and on which provider: the fastest, found by trying, and remembered."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from edgeml.bundle import MODEL, Bundle
from edgeml.onnx_session import runtime
from edgeml.throttling import is_throttled
from edgeml.variants import COMPILING, runnable
from inferencer import choices
from inferencer.trial import Candidate, Found, How, politely, tried

NOT_TRIED, HOT = "not tried", "not tried, the CPU is slowed down"
BUSY = "not tried so far, something is being tried"
TURN_S = 0.2  # between two looks whether one that waits is to stop

_trying = threading.Lock()  # two at once would measure each other


def known(bundle: Bundle, how: How, memory: Path) -> Bundle | None:
    """`bundle` with the file that is to run, and where, None if that is to be tried. `memory` is the file of what was
    found.
    """
    candidates = list(_candidates(bundle, how))
    if not candidates:
        return _alone(bundle, how)
    choice = choices.read(memory).get(_key(bundle, how))
    if choice is not None and choice.begun >= choices.LETHAL:
        others = "others" if how.accelerators else "variants"
        return bundle.using(MODEL, f"with {others} the process ended {choice.begun} times")
    if not how.probe_s:
        wanted = [each.file for each in candidates if each.precision == how.wanted and not each.provider]
        return bundle.using(wanted[0] if wanted else MODEL, NOT_TRIED)
    places = [(MODEL, ""), *((each.file, each.provider) for each in candidates)]
    if choice is None or (choice.file, choice.provider) not in places:
        return None
    if choice.begun and not choice.why:
        return None
    return bundle.using(choice.file, choice.why, choice.provider)


def outlived(bundle: Bundle, how: How, memory: Path) -> AbstractContextManager[None]:
    """Counts in `memory` that variants of `bundle` begin, as long as they have not begun."""
    return choices.outlived(memory, _key(bundle, how))


def chosen(bundle: Bundle, how: How, memory: Path) -> Bundle:
    """As `known`, tried if need be: not while the CPU is slowed down, if there is the patience (HOT), nor while another
    trial runs (BUSY). One that is not waited for to its end keeps others from being begun, and what it finds for later.

    Never raises for what does not load, run or agree: it is passed over, and the log says why. What was found while the
    CPU was slowed down is not remembered, and not the CPU where a provider did not start: it may at the next one.
    """
    if not _trying.acquire(timeout=TURN_S):
        return bundle.using(MODEL, NOT_TRIED if how.stopping() else BUSY)
    trial = None
    try:
        if found := known(bundle, how, memory):
            return found
        if how.stopping():
            return bundle.using(MODEL, NOT_TRIED)
        if how.patient and is_throttled(how.place):
            return bundle.using(MODEL, HOT)
        trial = politely(lambda: _remembered(bundle, how, memory))
    finally:
        if trial is None:
            _trying.release()
    while not wait([trial], TURN_S).done:
        if how.stopping():  # without it, which may be within a driver that takes minutes or hangs
            return bundle.using(MODEL, NOT_TRIED)
    if (outcome := trial.result()) is None:
        return bundle.using(MODEL, NOT_TRIED)
    choice = outcome.choice
    return bundle.using(choice.file, choice.why, choice.provider)


def _remembered(bundle: Bundle, how: How, memory: Path) -> Found | None:
    """Try, remember what is found, and let others try."""
    try:
        with outlived(bundle, how, memory):
            outcome = tried(bundle, list(_candidates(bundle, how)), how)
        if outcome is not None and outcome.lasting:
            choices.put(memory, _key(bundle, how), outcome.choice)
        return outcome
    finally:
        _trying.release()


def _alone(bundle: Bundle, how: How) -> Bundle:
    """Of a bundle for which there is nothing to choose."""
    if bundle.provider:
        return bundle.using(MODEL, f"{bundle.provider} has failed")
    if not bundle.manifest.variants:
        return bundle
    if how.wanted == "fp32":
        return bundle.using(MODEL, "as configured")
    sought, isas = "" if how.wanted == "auto" else f"{how.wanted} ", how.processor.isas
    return bundle.using(MODEL, f"no {sought}variant for {isas[0] if isas else how.processor.machine}")


def _candidates(bundle: Bundle, how: How) -> Iterator[Candidate]:
    """What there is besides model.onnx as configured: of each provider, of each precision, the best of its files."""
    sizes = bundle.manifest.input.size if bundle.manifest.input.layout != "tensor" else ()
    for provider in ("", *how.accelerators):
        if provider in COMPILING and 0 in sizes:
            continue
        if provider:
            yield Candidate(MODEL, "fp32", provider)
        seen = set()
        for variant in runnable(bundle.manifest.variants, how.processor, (provider,) if provider else how.providers):
            if how.wanted in ("auto", variant.precision) and variant.precision not in seen:
                seen.add(variant.precision)
                yield Candidate(variant.file, variant.precision, provider)


def _key(bundle: Bundle, how: How) -> str:
    """All that the choice depends on."""
    processor, manifest = how.processor, bundle.manifest
    facts = (
        [manifest.sha256, *sorted(variant.sha256 for variant in manifest.variants), *sorted(manifest.files.values())],
        [processor.machine, *sorted(processor.flags)],
        [runtime().__version__, *how.providers, *(["auto", *how.accelerators] if how.accelerators else [])],
        [how.wanted, how.threads, how.optimization, how.max_side],
    )
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
