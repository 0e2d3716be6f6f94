"""What takes the place of the core with --standalone: edgeml.ipc.StandaloneIpc."""

import atexit
import base64
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml import json_limits
from edgeml._subscription import Subscription
from edgeml.errors import ConfigError, IpcError, NotFoundError
from edgeml.health import Health
from edgeml.inbox import Handler, Inbox
from edgeml.log import kv
from edgeml.messages import MAX_IPC_BYTES

if sys.version_info >= (3, 11):
    from tomllib import loads as toml
else:

    def toml(text: str) -> Any:
        raise ValueError("Python 3.10 reads no TOML, expected JSON")


log = logging.getLogger("edgeml.ipc")

MAX_IOT_BYTES = 128 * 1024
CHANNELS = ("local", "iot_core")
MAX_LINE = 1024 * 1024  # bytes of a line on stdin


def work_folder(component: str, config_file: Path) -> Path:
    """Where a run by hand keeps its files: the same folder for the same configuration file, out of the way of others.

    Below $XDG_STATE_HOME (~/.local/state); where that cannot be written, a folder that lives as long as the process.
    """
    mark = hashlib.sha256(os.fsencode(config_file.resolve())).hexdigest()[:12]
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folder = state.absolute() / "greengrass-edge-ml" / f"{component}-{mark}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        pass
    folder = Path(tempfile.mkdtemp(prefix=f"{component}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def matches(pattern: str, topic: str) -> bool:
    """Whether the MQTT filter `pattern` (`+` one level, trailing `#` the rest) covers `topic`."""
    wanted, given = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(w in ("+", g) for w, g in zip(wanted, given, strict=True))


class StandaloneIpc:
    """Ipc of `--standalone`: publishes become JSON lines on stdout, JSON lines on stdin become messages.

    A line is `{"channel": "local" | "iot_core", "topic": ..., "payload": ...}`; on stdin `channel` may be left out for
    local. A payload that is not JSON goes as `payload_base64`. The configuration is a JSON or TOML file, watched for
    changes; secrets are its `secrets` table.
    """

    def __init__(self, config_file: Path, health: Health | None = None) -> None:
        self._file = config_file
        self._inbox = Inbox(health)
        self._handlers: list[tuple[str, str, Handler]] = []
        self._secrets: dict[str, Any] = {}
        self._stdout = threading.Lock()
        self._closed = threading.Event()
        self.max_iot_bytes = MAX_IOT_BYTES

    def publish(self, topic: str, payload: bytes, *, wait: float = 10.0) -> None:
        if len(payload) > MAX_IPC_BYTES:
            raise IpcError(f"publish {topic}: {len(payload)} bytes, {MAX_IPC_BYTES} are allowed")
        self._print("local", topic, payload)

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self._print("iot_core", topic, payload)

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        return self._subscribed("local", topic, handler)

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        return self._subscribed("iot_core", topic, handler)

    def _subscribed(self, channel: str, topic: str, handler: Handler) -> Subscription:
        key = channel, topic, handler

        def forget() -> None:
            self._handlers = [known for known in self._handlers if known != key]

        if key not in self._handlers:
            self._handlers = [*self._handlers, key]
        return Subscription(lambda received: None, handler, forget)

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component:
            raise NotFoundError(f"configuration of {component}: no other component runs beside this one")
        try:
            text = self._file.read_text()
            raw = toml(text) if self._file.suffix == ".toml" else json_limits.loads(text, "configuration")
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError("", f"{self._file}: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError("", f"{self._file}: expected an object, found {type(raw).__name__}")
        secrets = raw.pop("secrets", {})
        if not isinstance(secrets, dict):
            raise ConfigError("secrets", f"expected an object of texts, found {type(secrets).__name__}")
        self._secrets = secrets
        return raw

    def on_configuration(self, changed: Callable[[], None]) -> None:
        def state() -> tuple[int, int, int]:  # the time alone: a second change within 4 ms would never be seen
            found = self._file.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino

        def watch(seen: tuple[int, int, int]) -> None:  # nothing in here raises: `changed` only puts into a queue
            while not self._closed.wait(0.5):
                try:
                    now = state()
                except OSError:
                    continue  # between an editor's unlink and its rename
                if now != seen:
                    seen = now
                    changed()

        try:
            now = state()
        except OSError as error:
            raise ConfigError("", f"{self._file}: {error.strerror}") from error
        threading.Thread(target=watch, args=[now], name="config", daemon=True).start()

    def secret(self, secret_id: str) -> str:
        try:
            return str(self._secrets[secret_id])
        except KeyError as error:
            raise NotFoundError(f"secret {secret_id}: not in the secrets table of {self._file}") from error

    def dropped(self) -> int:
        return self._inbox.dropped

    def ready(self) -> None:
        threading.Thread(target=self._read_stdin, name="stdin", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._inbox.close()

    def _print(self, channel: str, topic: str, payload: bytes) -> None:
        line: dict[str, Any] = {"channel": channel, "topic": topic}
        try:
            line["payload"] = json.loads(payload)
        except ValueError:
            line["payload_base64"] = base64.b64encode(payload).decode()
        with self._stdout:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def _read_stdin(self) -> None:
        try:
            lines = open(0, "rb", closefd=False)  # noqa: SIM115  (sys.stdin, read by a thread, aborts Python at its end)
        except OSError:  # started without one
            return
        while line := lines.readline(MAX_LINE):
            if not line.strip():
                continue
            try:
                channel, topic, payload = _message(line)
            except (ValueError, RecursionError) as error:
                log.error("stdin line not understood %s", kv(error=error, line=line[:200].decode(errors="replace")))
                continue
            heard = [h for wanted, pattern, h in self._handlers if wanted == channel and matches(pattern, topic)]
            for handler in heard:
                self._inbox.put(handler, topic, payload)
            if not heard:
                log.warning("stdin line for nobody %s", kv(channel=channel, topic=topic))


def _message(line: bytes) -> tuple[str, str, bytes]:
    """Channel, topic and payload of a line of stdin. Raises ValueError that says what was expected."""
    message = json.loads(line)
    if not isinstance(message, dict) or not isinstance(message.get("topic"), str):
        raise ValueError('expected {"topic": TEXT, "payload": ANY}')
    channel = message.get("channel", CHANNELS[0])
    if channel not in CHANNELS:
        raise ValueError(f"channel: expected {' or '.join(CHANNELS)}, found {channel!r}")
    coded = message.get("payload_base64")
    if coded is not None and not isinstance(coded, str):
        raise ValueError("payload_base64: expected text")
    if coded is None and "payload" not in message:
        raise ValueError("expected payload or payload_base64")
    payload = json.dumps(message["payload"]).encode() if coded is None else base64.b64decode(coded, validate=True)
    return channel, message["topic"], payload
