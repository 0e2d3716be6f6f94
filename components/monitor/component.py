"""Serves a page about this device to browsers on it."""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec

from edgeml import messages
from edgeml.backoff import Backoff
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError, RefusedError
from edgeml.log import kv
from edgeml.messages import CameraCommand
from monitor import __version__
from monitor.access import Access, AccessError, password_of
from monitor.app import application
from monitor.config import Config
from monitor.pictures import Pictures
from monitor.server import Server, ServerError
from monitor.state import State
from monitor.vitals.device import checks
from monitor.vitals.watch import Watch

log = logging.getLogger(__name__)

STATIC = Path(__file__).resolve().parent / "static"
ASK_S = 5.0  # between two looks at the configurations of others


class Monitor(Component[Config]):
    """Shows in a browser what the device sees and how it does."""

    name = "edgeml.Monitor"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._state = State(context.thing_name, __version__, context.health.problems.current)
        self._watch = Watch(checks(context), context.health.problems)
        self._look = threading.Event()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._access: Access | None = None  # kept while the server moves, and the sessions with it
        self._backoff = Backoff(first_s=1.0, ceiling_s=30.0, floor_s=0.2)

    def start(self, config: Config) -> None:
        self._config = config
        self._state.neighbours.place(Path(config.ring_directory))
        for topic, take in self._state.topics().items():
            self._subscribe(topic, take)
        self.context.spawn("neighbours", self._ask_for_ever)
        self.context.spawn("server", self._serve_for_ever)
        self.context.spawn("vitals", self._look_for_ever)

    def reconfigure(self, config: Config) -> None:
        with self._lock:
            moved = config != msgspec.structs.replace(self._config, vitals=config.vitals)
            self._config = config
        self._state.neighbours.place(Path(config.ring_directory))
        self._look.set()
        if moved:
            self._again()

    def stop(self) -> None:
        self._look.set()
        self._again()

    def _subscribe(self, topic: str, take: Callable[[str, bytes], bool]) -> None:
        """Hear a topic; one that an older deployment does not allow leaves the others worth having."""

        def heard(topic: str, payload: bytes) -> None:
            self.context.health.count("messages" if take(topic, payload) else "messages.refused")

        try:
            self.context.ipc.subscribe(topic, heard)
        except RefusedError as error:
            self.context.health.problems.found("unauthorized", topic, str(error))

    def _ask_for_ever(self) -> None:
        while True:
            self._state.neighbours.ask(self.context.ipc)
            if self.context.stopping.wait(ASK_S):
                return

    def _look_for_ever(self) -> None:
        while not self.context.stopping.is_set():
            self._look.clear()
            limits = self._config.vitals
            self._watch.round(limits)
            self._look.wait(limits.interval_s)

    def _command(self, camera: str, command: Literal["start", "stop"]) -> None:
        """Have CameraCapture start or stop a camera, whose answer is heard as others'."""
        log.info("command from a page %s", kv(camera=camera, command=command))
        try:
            message = messages.encode(CameraCommand(command=command))
            self.context.ipc.publish(messages.camera_command(camera), message, wait=1.0)
        except EdgemlError as error:  # whoever asked sees that nothing happens
            self.context.health.error(error)
            log.warning("command not sent %s", kv(camera=camera, error=error))

    def _again(self) -> None:
        """End what serves now, or the pause before the next attempt."""
        self._changed.set()
        with self._lock:
            if self._server is not None:
                self._server.stop()

    def _serve_for_ever(self) -> None:
        problems = self.context.health.problems
        while not self.context.stopping.is_set():
            self._changed.clear()
            try:
                self._serve()
                self._backoff.reset()
            except ServerError as error:
                problems.found("address_in_use", "page", str(error))
                self._changed.wait(self._backoff.next())
            except AccessError as error:
                problems.found("file_refused", "password", str(error))
                self._changed.wait(self._backoff.next())

    def _serve(self) -> None:
        """Serve until the configuration changes or the component stops. Raises ServerError, AccessError."""
        config = self._config
        self._state.auth = config.auth
        access = None if config.auth == "off" else self._asked()
        self.context.health.problems.cleared("file_refused", "password")
        pictures = Pictures(
            self._state, self.context.health, self.context.spawn, fps=config.fps, max_width=config.max_width
        )
        app = application(STATIC, self._state, pictures, self._command, access)
        with closing(pictures), Server(app, config.port) as server:
            self.context.health.problems.cleared("address_in_use", "page")
            log.info("page %s", kv(address=server.address))
            with self._lock:
                self._server = server
                # What changed or stopped before the server was there could not tell it.
                if self._changed.is_set() or self.context.stopping.is_set() or config != self._config:
                    server.stop()
            try:
                server.run()
            finally:
                with self._lock:
                    self._server = None

    def _asked(self) -> Access:
        if self._access is None:
            file = self.context.work / "password"
            self._access = Access(password_of(file))
            log.info("the password is in %s", file)
        return self._access
