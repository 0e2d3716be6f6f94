"""Download with resume: what is on disk already is not fetched again, and never more than was announced."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeml import http
from edgeml.backoff import Backoff, retry
from edgeml.errors import DisconnectedError, HttpError, HttpRedirectError, HttpUrlError, IpcError
from edgeml.log import kv
from model_updater.errors import JobGone, JobsError, Stopped, UpdateError

log = logging.getLogger(__name__)

CHUNK = 256 * 1024
ANY = 1 << 50  # bytes of a body: no more are read than were announced, whatever follows
MAX_REDIRECTS = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0


class Interrupted(Exception):  # noqa: N818  (an event the loop below deals with, never seen outside)
    """This attempt ended early; another one may get further."""


class Expired(Interrupted):
    """The server no longer honours this URL."""


@dataclass(frozen=True)
class Limits:
    """`total_s` bounds the whole download, `stall_s` the wait for each piece."""

    total_s: float
    stall_s: float
    allow_http: bool


def download(
    url: Callable[[bool], str],
    path: Path,
    size: int,
    limits: Limits,
    stopping: threading.Event,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Fetch exactly `size` bytes into `path`, going on from what it holds. Interruptions are retried.

    `url(renew)` gives the URL; `renew` asks for a fresh one because the last has expired. `progress` is told the
    bytes on disk. Raises UpdateError when the server refuses or the time is up, Stopped when told to stop, JobGone.
    """
    deadline = time.monotonic() + limits.total_s
    backoff, address, expired = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, floor_s=FIRST_PAUSE_S / 2), url(False), False

    def fetch() -> None:
        nonlocal address, expired
        if expired:
            address, expired = _renewed(url, address), False
        if (before := _bytes_of(path)) == size:
            return
        try:
            _attempt(address, path, size, limits, deadline, stopping, progress)
        except Interrupted as interruption:
            expired = isinstance(interruption, Expired)
            if _bytes_of(path) > before:
                backoff.reset()
            raise

    def failed(error: Exception, pause_s: float) -> None:
        log.warning("download interrupted %s", kv(reason=error, bytes=_bytes_of(path), of=size, pause_s=pause_s))

    try:
        retry(
            fetch, Interrupted, backoff=backoff, stopping=stopping, total_s=deadline - time.monotonic(), failed=failed
        )
    except Interrupted as interruption:
        if stopping.is_set():
            raise Stopped from None
        raise UpdateError(f"download: {interruption}, no more time after {limits.total_s:g} s") from interruption


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _renewed(url: Callable[[bool], str], address: str) -> str:
    """A fresh URL; `address`, to be refused and asked about again, while AWS IoT does not answer."""
    try:
        return url(True)
    except (JobGone, DisconnectedError):
        raise
    except (IpcError, JobsError) as error:
        log.warning("no fresh URL, will ask again %s", kv(error=error))
        return address


def check_url(url: str, allow_http: bool) -> None:
    """Raises UpdateError for a scheme other than https (and http where allowed), a missing host, or credentials."""
    allowed = ("https", "http") if allow_http else ("https",)
    try:
        parts = http.check_url(url, allowed)
    except HttpUrlError as error:
        raise UpdateError(f"download URL {error}: only {' and '.join(allowed)} are allowed") from error
    if parts.username is not None:
        raise UpdateError(f"download URL {http.shown(url)}: it must not hold a user name")


def _attempt(
    url: str,
    path: Path,
    size: int,
    limits: Limits,
    deadline: float,
    stopping: threading.Event,
    progress: Callable[[int], None],
) -> None:
    check_url(url, limits.allow_http)
    start = path.stat().st_size if path.exists() else 0
    if start > size:
        path.unlink()
        start = 0
    ranged = {"Range": f"bytes={start}-"} if start else {}
    bounds = http.Limits(max(0.1, deadline - time.monotonic()), limits.stall_s, stall_s=limits.stall_s, max_bytes=ANY)
    # S3 redirects to a bucket's region.
    with (
        _network_faults(),
        http.opened("GET", url, bounds, headers=ranged, redirects=MAX_REDIRECTS, cross_host=True) as answer,
    ):
        _check_status(answer, size)
        start = _begins_at(answer, start, size)
        with path.open("r+b" if path.exists() else "xb") as file:
            file.truncate(start)
            file.seek(start)
            _copy(answer, file, start, size, deadline, stopping, progress)


def _check_status(answer: http.Stream, size: int) -> None:
    """Raises UpdateError, or Interrupted where another attempt may do better."""
    status = answer.status
    if status == 416:  # the object is shorter than what we hold, so it is not the one that was announced
        raise UpdateError(f"download: the object has fewer than {size} bytes")
    if status in (400, 401, 403):  # 400 is S3's answer when the session that signed the URL has expired
        raise Expired(f"HTTP {status}")
    if status >= 500 or status in (408, 429):
        raise Interrupted(f"HTTP {status}")
    if status >= 300:
        raise UpdateError(f"download: HTTP {status} {answer.reason[:100]}")


@contextmanager
def _network_faults() -> Iterator[None]:
    """Whatever the network does is an interruption; what it says of a URL that can never work is the job's end."""
    try:
        yield
    except (HttpUrlError, HttpRedirectError) as error:
        raise UpdateError(f"download: {error}") from error
    except HttpError as error:
        raise Interrupted(str(error)) from error


def _begins_at(response: http.Stream, start: int, size: int) -> int:
    """The offset at which this answer begins: `start` for 206, 0 where the server ignores ranges."""
    if response.status == 200:
        length = response.headers.get("Content-Length")
        if length is not None and length != str(size):
            raise UpdateError(f"download: the object has {length} bytes, the job says {size}")
        return 0
    found = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", response.headers.get("Content-Range", ""))
    if response.status != 206 or found is None or int(found[1]) != start:
        raise UpdateError(f"download: unexpected answer, HTTP {response.status}")
    if found[2] not in ("*", str(size)):
        raise UpdateError(f"download: the object has {found[2]} bytes, the job says {size}")
    return start


def _copy(
    response: http.Stream,
    file: IO[bytes],
    done: int,
    size: int,
    deadline: float,
    stopping: threading.Event,
    progress: Callable[[int], None],
) -> None:
    while done < size:
        if stopping.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise Interrupted("too slow")
        # read1 returns what has arrived, so that a trickle cannot keep us from looking at the clock
        chunk = response.read1(min(CHUNK, size - done))
        if not chunk:
            raise Interrupted(f"the connection ended after {done} bytes")
        file.write(chunk)
        done += len(chunk)
        progress(done)
    file.flush()
    os.fsync(file.fileno())
