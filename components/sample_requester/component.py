"""Publishes requests for inference in turn, and logs the answers."""

import filecmp
import itertools
import logging
import stat
import threading
from pathlib import Path

import msgspec

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import IpcError, SourceError
from edgeml.files import write_atomic
from edgeml.ipc import Subscription
from edgeml.log import kv
from sample_requester import __version__
from sample_requester.config import Config

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parent / "pictures"  # put into the artifact by build.py
PICTURES = {".jpg", ".jpeg", ".png", ".npy"}


class Request(msgspec.Struct):
    image_dir: str
    fname: str
    request_id: str


class Reply(msgspec.Struct):
    """Answer of the format `label`; one of the format `full` has `results` instead."""

    label: str = ""
    score: float = 0.0
    request_id: str = ""
    error: str = ""
    results: list[msgspec.Raw] = []


class SampleRequester(Component[Config]):
    """Asks the inferencer about pictures, one every few seconds."""

    name = "edgeml.SampleRequester"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._changed = threading.Event()
        self._listening: tuple[str, Subscription] | None = None

    def start(self, config: Config) -> None:
        self.reconfigure(config)
        self.context.spawn("requests", self._ask_for_ever)

    def reconfigure(self, config: Config) -> None:
        self._config = config
        former = self._listening
        if former is None or former[0] != config.reply_topic:
            self._listening = config.reply_topic, self.context.ipc.subscribe(config.reply_topic, self._answered)
            if former is not None:
                former[1].close()
        self._changed.set()

    def stop(self) -> None:
        self._changed.set()

    def _ask_for_ever(self) -> None:
        for number in itertools.count(1):
            self._changed.clear()
            if self.context.stopping.is_set():
                return
            try:
                self._ask(number)
            except (IpcError, SourceError) as error:
                self.context.health.error(error)
                log.error("not asked %s", kv(error=error))
            self._changed.wait(self._config.interval_s)

    def _ask(self, number: int) -> None:
        folder = Path(self._config.image_dir) if self._config.image_dir else self._shipped()
        names = self._config.fnames or pictures(folder)
        request = Request(str(folder), names[(number - 1) % len(names)], f"sample-{number}")
        self.context.ipc.publish(self._config.topic, messages.encode(request))
        self.context.health.count("requests")
        log.info("asked %s", kv(fname=request.fname, request_id=request.request_id))

    def _shipped(self) -> Path:
        """The pictures of the artifact, below the work folder, whose path is the same for every version."""
        folder = self.context.work / "pictures"
        try:
            copy_changed(SHIPPED, folder)
        except OSError as error:
            raise SourceError(f"{SHIPPED} cannot be copied: {error}") from error
        return folder

    def _answered(self, topic: str, payload: bytes) -> None:
        try:
            reply = messages.decode(payload, Reply)
            first = messages.decode(reply.results[0], Reply) if reply.results else reply
        except msgspec.MsgspecError as error:
            log.warning("answer not understood %s", kv(topic=topic, error=error))
            return
        self.context.health.count("refusals" if reply.error else "answers")
        if reply.error:
            log.warning("refused %s", kv(request_id=reply.request_id, error=reply.error))
        else:
            log.info("answer %s", kv(request_id=reply.request_id, label=first.label or "nothing", score=first.score))


def copy_changed(source: Path, target: Path) -> None:
    """Make `target` hold each file of `source` with the same content; other files there stay. Raises OSError.

    Modes are not copied: artifacts are read-only, and a copy that is read-only could not be replaced by the next one.
    """
    target.mkdir(exist_ok=True)
    if target.stat().st_mode & stat.S_IRWXU != stat.S_IRWXU:
        target.chmod(0o755)  # version 1.0 copied the folder's mode, too
    for file in sorted(source.iterdir()):
        if not _same(file, target / file.name):
            write_atomic(target / file.name, file.read_bytes())


def _same(source: Path, copy: Path) -> bool:
    try:
        return not copy.is_symlink() and filecmp.cmp(source, copy, shallow=False)
    except OSError:
        return False


def pictures(folder: Path) -> list[str]:
    """Names of the pictures in `folder`, sorted. Raises SourceError if there are none."""
    try:
        found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}") from error
    if not found:
        raise SourceError(f"{folder}: no pictures")
    return found
