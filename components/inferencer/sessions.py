"""One ONNX Runtime session for all pipelines of the process that use the same model in the same way."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal
from weakref import WeakValueDictionary

from edgeml import models
from edgeml.bundle import Bundle
from edgeml.onnx_session import check_input

if TYPE_CHECKING:
    import onnxruntime as ort

_lock = threading.Lock()
_open: WeakValueDictionary[Hashable, ort.InferenceSession] = WeakValueDictionary()  # closed with their last pipeline
_opening: dict[Hashable, threading.Lock] = {}  # one for each: a model that takes long keeps no other waiting


def session_of(
    bundle: Bundle,
    *,
    providers: Sequence[str],
    threads: int,
    optimization: Literal["all", "extended", "basic", "off"],
) -> ort.InferenceSession:
    """As models.open_session, or the session that another pipeline has. Any number of threads may run it."""
    manifest = bundle.manifest
    files = tuple(sorted(manifest.files.items()))  # weights among them
    key = manifest.digest(bundle.file), files, tuple(providers), threads, optimization
    with _lock:
        for gone in [each for each, opening in _opening.items() if each not in _open and not opening.locked()]:
            del _opening[gone]
        opening = _opening.setdefault(key, threading.Lock())
    with opening:
        session = _open.get(key)
        if session is None:
            session = models.open_session(bundle, providers=providers, threads=threads, optimization=optimization)
            _open[key] = session
    check_input(session, bundle)
    return session


def count() -> int:
    return len(_open)
