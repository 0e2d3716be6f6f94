"""The page's server, in a thread of its own: begun anew when its configuration changes, or when it could not begin."""

import ipaddress
import logging
import socket
import ssl
import threading
from contextlib import closing
from pathlib import Path
from typing import Literal

from edgeml import messages
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.errors import EdgemlError, SecretError
from edgeml.log import kv
from edgeml.messages import CameraCommand
from edgeml.secrets import secret_value
from monitor import certificate
from monitor.access import Access, checked, password_of
from monitor.app import application
from monitor.config import Config
from monitor.errors import AccessError, ServerError
from monitor.pictures import Cameras, Pictures
from monitor.requested import Requested
from monitor.server import Server
from monitor.state import State

log = logging.getLogger(__name__)

STATIC = Path(__file__).resolve().parent / "static"


class Page:
    """Serves until `stop`. Sessions last over moves and restarts; another password ends them."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._health, self._state = context, context.health.scope("page"), state
        self._config = Config()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._access: Access | None = None
        self._secret = ""  # that the password of `_access` came from
        self._backoff = Backoff(first_s=1.0, ceiling_s=30.0, floor_s=0.2)

    def start(self, config: Config) -> None:
        self._config = config
        self._context.spawn("server", self._serve_for_ever)

    def reconfigure(self, config: Config) -> None:
        with self._lock:
            moved, self._config = _served(config) != _served(self._config), config
        if moved:
            self.ask_to_stop()

    def ask_to_stop(self) -> None:
        """End what serves now, or the pause before the next attempt."""
        self._changed.set()
        with self._lock:
            if self._server is not None:
                self._server.ask_to_stop()

    def _serve_for_ever(self) -> None:
        while not self._context.stopping.is_set():
            self._changed.clear()
            try:
                self._serve()
                self._backoff.reset()
            except (ServerError, AccessError, SecretError) as error:
                self._health.failed(error)
                self._changed.wait(self._backoff.next())

    def _serve(self) -> None:
        """Serve until the configuration changes or the component stops.

        Raises ServerError, AccessError, and SecretError where there is no password yet.
        """
        config = self._config
        self._state.auth = config.auth
        access = None if config.auth == "off" else self._asked(config.password_secret)
        tls, shown = self._tls(config)
        pictures = Pictures(
            self._state, self._context.health, self._context.spawn, fps=config.fps, max_width=config.max_width
        )
        self._state.has_request_dirs = bool(config.request_dirs)
        requested = Requested(self._state, config.request_dirs, config.max_width)
        cameras = Cameras(pictures, self._command)
        app = application(STATIC, self._state, access, frozenset(_names(config)), cameras, requested)
        with closing(pictures), Server(app, config.port, config.address, tls) as server:
            self._health.well()
            log.info("page %s", kv(address=server.address, **shown))
            with self._lock:
                self._server = server
                # What changed or stopped before the server was there could not tell it.
                if (
                    self._changed.is_set()
                    or self._context.stopping.is_set()
                    or _served(config) != _served(self._config)
                ):
                    server.ask_to_stop()
            try:
                server.run()
            finally:
                with self._lock:
                    self._server = None

    def _command(self, camera: str, command: Literal["start", "stop"]) -> None:
        """Have CameraCapture start or stop a camera, whose answer is heard as those to others are."""
        log.info("command from a page %s", kv(camera=camera, command=command))
        try:
            message = messages.encode(CameraCommand(command=command))
            self._context.ipc.publish(messages.camera_command(camera), message, wait=1.0)
        except EdgemlError as error:  # whoever asked sees that nothing happens
            self._context.health.error(error)
            log.warning("command not sent %s", kv(camera=camera, error=error))

    def _tls(self, config: Config) -> tuple[ssl.SSLContext | None, dict[str, str]]:
        if config.certificate:
            tls, found = certificate.given(Path(config.certificate), Path(config.key))
        elif ipaddress.ip_address(config.address).is_loopback:
            return None, {}
        else:
            names = [*_names(config), config.address, "localhost", "127.0.0.1"]
            tls, found = certificate.own(self._context.work / "certificate.pem", names)
        return tls, {"sha256": found}

    def _asked(self, secret: str) -> Access:
        if self._access is None or secret != self._secret:
            if secret:
                password = checked(secret_value(self._context.ipc, secret, "password"), f"secret {secret}")
            else:
                file = self._context.work / "password"
                password = password_of(file)
                log.info("the password is in %s", file)
            self._access, self._secret = Access(password, file=self._context.work / "sessions"), secret
        return self._access


def _served(config: Config) -> tuple[object, ...]:
    """What of the configuration a new server is needed for."""
    secret = config.password_secret
    place = config.port, config.address, config.auth, secret, config.certificate, config.key, config.hosts
    return *place, config.fps, config.max_width, config.request_dirs


def _names(config: Config) -> list[str]:
    """By which browsers may call the device, beside its addresses."""
    names = [] if ipaddress.ip_address(config.address).is_loopback else [host := socket.gethostname(), f"{host}.local"]
    return [name.lower() for name in (*names, *config.hosts)]
