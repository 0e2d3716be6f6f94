"""The large stream of a camera that has two: its packets go into the pre-roll, and nothing of it is decoded."""

import logging
import threading
import time

from camera_capture.camera import NetworkCamera
from camera_capture.errors import UndecodableError
from camera_capture.packets import PacketReader
from camera_capture.passwords import Passwords
from camera_capture.preroll import Preroll
from camera_capture.source import reason
from edgeml import redact
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.errors import EdgemlError, SourceError
from edgeml.log import kv

log = logging.getLogger(__name__)

PASSWORD_WAIT_S = 2.0
STOP_S = 2.0
MAX_DAMAGED = 30  # packets in a row, after which the stream is opened anew


class Recorder:
    """Reads the stream from `start` until `stop`, and opens it again, with pauses of its own, whenever it fails."""

    def __init__(
        self, name: str, camera: NetworkCamera, preroll: Preroll, context: Context, passwords: Passwords
    ) -> None:
        self._name, self._camera, self._preroll, self._passwords = name, camera, preroll, passwords
        self._context, self._health = context, context.health.scope(f"cameras.{name}").scope("record")
        self._backoff = Backoff(camera.reconnect_min_s, camera.reconnect_max_s, camera.reconnect_min_s / 2)
        self._stopping = threading.Event()
        self._reader: PacketReader | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread left."""
        if self._thread is None:
            self._thread = self._context.spawn(f"record-{self._name}", self._record)

    def ask_to_stop(self) -> None:
        """Ask for the end, and do not wait for it."""
        self._stopping.set()
        if (reader := self._reader) is not None:
            reader.cancel()

    def stop(self) -> None:
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(timeout=STOP_S)
        self._preroll.close()
        self._health.forget()

    def _record(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._read()
            except EdgemlError as error:
                if self._stopping.is_set():
                    return
                text = reason(error, self._camera.where)
                self._health.count("reconnects")
                self._health.error(f"camera {self._name}: {text}")
                self._health.found("source_failed", f"the stream to record: {text}")
            pause = self._backoff.next()
            if time.monotonic() - began > pause:
                self._backoff.reset()
            self._stopping.wait(pause)

    def _read(self) -> None:
        """Until the stream fails. Raises SourceError."""
        camera = self._camera.unlocked(lambda reference: self._passwords.get(reference, PASSWORD_WAIT_S))
        self._reader = reader = camera.reader()
        try:
            if self._stopping.is_set():
                return
            reader.packets = self._preroll.tap()
            reader.open()
            log.info("stream to record open %s", kv(camera=self._name, location=redact.location(camera.where)))
            damaged = 0
            while True:
                try:
                    packet = reader.read()
                except UndecodableError:
                    damaged += 1
                    self._health.count("damaged")
                    if damaged > MAX_DAMAGED:
                        raise
                    continue
                if packet is None:
                    raise SourceError("the stream ended")
                damaged = 0
                self._health.count("packets")
                self._health.cleared("source_failed")
        finally:
            self._reader = None
            reader.close()
