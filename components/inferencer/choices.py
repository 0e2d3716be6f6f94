"""What of a bundle ran best, and where, as it is remembered; and what ends the process, lest it does at each start."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from edgeml.bundle import MODEL
from edgeml.files import read_regular, write_atomic
from edgeml.log import kv

log = logging.getLogger(__name__)

KEPT, MAX_BYTES = 64, 1 << 16  # choices, and bytes of the file that remembers them
MAX_WHY = 200  # characters
LETHAL = 2  # starts that did not outlive what was tried, after which it is left alone; of three the core starts no more

_lock = threading.Lock()  # held by whoever changes a file of choices
_begun: set[tuple[Path, str]] = set()  # what this process has counted as begun


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """As it is remembered. `begun` counts the starts of the process that have not outlived it so far.

    `provider` is that of an accelerator, if one is chosen.
    """

    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$(?!\n)")]
    why: Annotated[str, msgspec.Meta(max_length=MAX_WHY)]  # nothing: nothing is chosen so far
    begun: Annotated[int, msgspec.Meta(ge=0)] = 0
    provider: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{0,64}$(?!\n)")] = ""


Memory = Annotated[dict[str, Choice], msgspec.Meta(max_length=KEPT)]


def read(memory: Path) -> dict[str, Choice]:
    """What was found before. Something else in its place counts as nothing."""
    try:
        return msgspec.json.decode(read_regular(memory, MAX_BYTES, follow=False), type=Memory)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("choices of variants not readable, trying again %s", kv(file=memory, error=error))
        return {}


def put(memory: Path, key: str, choice: Choice) -> None:
    with _lock:
        _write(memory, read(memory), key, choice)


@contextlib.contextmanager
def outlived(memory: Path, key: str) -> Iterator[None]:
    """Counts that variants begin, and takes that back at the end."""
    with _lock:
        choices = read(memory)
        before = choices.get(key, Choice(MODEL, ""))
        if counts := (memory, key) not in _begun:
            _begun.add((memory, key))
            _write(memory, choices, key, msgspec.structs.replace(before, begun=before.begun + 1))
    try:
        yield
    finally:
        if counts:
            with _lock:
                _excuse(memory, key)


def excused(memory: Path) -> None:
    """What has begun has no part in the end of the process, which was told to end."""
    with _lock:
        for key in [key for file, key in _begun if file == memory]:
            _excuse(memory, key)


def _excuse(memory: Path, key: str) -> None:
    _begun.discard((memory, key))
    choices = read(memory)
    now = choices.get(key)
    if now is not None and now.begun:
        _write(memory, choices, key, msgspec.structs.replace(now, begun=0) if now.why else None)


def _write(memory: Path, choices: dict[str, Choice], key: str, choice: Choice | None) -> None:
    """`choices` with that of `key`, or without any."""
    kept = [(each, one) for each, one in choices.items() if each != key]
    if choice is not None:
        kept = [*kept[-KEPT + 1 :], (key, choice)]
    try:
        write_atomic(memory, msgspec.json.encode(dict(kept)), mode=0o600)
    except OSError as error:
        log.warning("choice of a variant not remembered %s", kv(file=memory, error=error))
