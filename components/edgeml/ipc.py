"""The one Greengrass IPC client of a process, and what takes its place outside Greengrass.

Why it looks like this: the SDK's default thread pool reorders messages, and a handler that calls IPC on the
network thread never gets its answer. So the network thread only puts messages into one bounded inbox, and one
thread hands them to their handlers, in order. The SDK does not reconnect: a lost socket is reported once, the
process exits, and the core starts it again with a valid token.
"""

import base64
import contextlib
import json
import logging
import os
import queue
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edgeml import json_limits
from edgeml.errors import ConfigError, DisconnectedError, IpcError, NotFoundError, RefusedError, UnauthorizedError
from edgeml.log import kv
from edgeml.messages import MAX_IPC_BYTES

log = logging.getLogger(__name__)

Handler = Callable[[str, bytes], None]  # topic, payload

TIMEOUT_S = 10.0
IN_FLIGHT = 64  # local publishes not yet answered by the core
INBOX = 1000  # received messages not yet handled
MAX_IOT_BYTES = 128 * 1024  # AWS IoT Core's limit on a payload


class Ipc(Protocol):
    """What a component may ask of the core. Handlers run one at a time, in order, on one thread."""

    max_iot_bytes: int

    def publish(self, topic: str, payload: bytes, *, wait: float = TIMEOUT_S) -> None:
        """Send to local subscribers without waiting for the answer; refusals are counted and logged.

        Only when the core is many answers behind is it given `wait` seconds to catch up. Raises IpcError after that.
        """

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        """Send to AWS IoT Core and wait until the core has taken it. Raises IpcError."""

    def subscribe(self, topic: str, handler: Handler) -> None: ...

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> None:
        """Raises IpcError. The same topic and handler again take the place of the subscription they had."""

    def configuration(self) -> dict[str, Any]: ...

    def on_configuration(self, changed: Callable[[], None]) -> None: ...

    def secret(self, secret_id: str) -> str: ...

    def dropped(self) -> int:
        """Messages received or sent that were lost because a queue was full or the core refused them."""

    def ready(self) -> None:
        """The component has made its first subscriptions: messages may come."""

    def close(self) -> None: ...


class Inbox:
    """One bounded queue and one thread between whoever receives messages and their handlers."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Handler, str, bytes] | None] = queue.Queue(INBOX)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="ipc-inbox", daemon=True)
        self._thread.start()

    def put(self, handler: Handler, topic: str, payload: bytes) -> None:
        """Never blocks: the network thread must go on. What does not fit is dropped, counted and logged."""
        try:
            self._queue.put_nowait((handler, topic, payload))
        except queue.Full:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8 ...: a flood must not flood the log as well
                log.warning("inbox full, message dropped %s", kv(topic=topic, dropped=self.dropped))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            handler, topic, payload = item
            try:
                handler(topic, payload)
            except Exception:  # one message that a handler cannot stand must not end the handling of all others
                log.exception("handler failed %s", kv(topic=topic))

    def close(self) -> None:
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return  # the thread is a daemon and a handler hangs: the process is about to end anyway
        self._thread.join(timeout=2)


class GreengrassIpc:
    """Ipc over the core's Unix socket. `on_lost` is called once, from the network thread, when the socket is gone."""

    def __init__(self, on_lost: Callable[[Exception], None]) -> None:
        from awsiot import greengrasscoreipc as gg
        from awsiot.eventstreamrpc import LifecycleHandler
        from awsiot.greengrasscoreipc import model
        from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

        self._model = model
        self._closing = False
        self._inbox = Inbox()
        self._window = threading.BoundedSemaphore(IN_FLIGHT)
        self._refused: dict[str, int] = {}
        self._iot_streams: dict[tuple[str, Handler], Any] = {}
        lite = Path(os.environ.get("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "")).name == "gg-ipc.socket"
        self.max_iot_bytes = MAX_IPC_BYTES if lite else MAX_IOT_BYTES
        owner = self

        class Lifecycle(LifecycleHandler):  # type: ignore[misc]
            def on_disconnect(self, reason: Exception | None) -> None:
                if not owner._closing:
                    on_lost(DisconnectedError(f"the Greengrass core closed the IPC connection: {reason}"))

        try:
            client = gg.connect(lifecycle_handler=Lifecycle(), timeout=TIMEOUT_S)
        except KeyError as error:
            raise IpcError(
                f"{error.args[0]} is not set: not started by Greengrass? Use --standalone --config FILE"
            ) from error
        except Exception as error:
            raise translated(error, "connect") from error
        self._client = GreengrassCoreIPCClientV2(client=client, executor=None)

    def publish(self, topic: str, payload: bytes, *, wait: float = TIMEOUT_S) -> None:
        if len(payload) > MAX_IPC_BYTES:
            raise IpcError(f"publish {topic}: {len(payload)} bytes, {MAX_IPC_BYTES} are allowed")
        if not self._window.acquire(timeout=wait):
            raise IpcError(f"publish {topic}: the core has {IN_FLIGHT} publishes to answer, waited {wait:g} s")
        message = self._model.PublishMessage(binary_message=self._model.BinaryMessage(message=payload))
        try:
            future = self._client.publish_to_topic_async(topic=topic, publish_message=message)
        except Exception as error:
            self._window.release()
            raise translated(error, f"publish {topic}") from error
        future.add_done_callback(lambda done: self._published(topic, done))

    def _published(self, topic: str, done: Any) -> None:
        self._window.release()
        error = done.exception()
        if error is None:
            return
        count = self._refused[topic] = self._refused.get(topic, 0) + 1
        if count & (count - 1) == 0 and not self._closing:
            log.error("publish refused %s", kv(error=translated(error, f"publish {topic}"), times=count))

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        if len(payload) > self.max_iot_bytes:
            raise IpcError(f"publish to IoT Core {topic}: {len(payload)} bytes, {self.max_iot_bytes} are allowed")
        self._call(
            f"publish to IoT Core {topic}",
            self._client.publish_to_iot_core_async,
            topic_name=topic,
            qos=str(qos),
            payload=payload,
        )

    def subscribe(self, topic: str, handler: Handler) -> None:
        def received(event: Any) -> None:
            message = event.binary_message or event.json_message
            body = message.message
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            self._inbox.put(handler, (message.context and message.context.topic) or topic, payload)

        self._stream(f"subscribe {topic}", self._client.subscribe_to_topic_async, received, topic=topic)

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> None:
        def received(event: Any) -> None:
            self._inbox.put(handler, event.message.topic_name, event.message.payload or b"")

        if (former := self._iot_streams.pop((topic, handler), None)) is not None:
            former.close()
        self._iot_streams[topic, handler] = self._stream(
            f"subscribe to IoT Core {topic}",
            self._client.subscribe_to_iot_core_async,
            received,
            topic_name=topic,
            qos=str(qos),
        )

    def configuration(self) -> dict[str, Any]:
        value = self._call("get configuration", self._client.get_configuration_async, key_path=[]).value
        return dict(value or {})

    def on_configuration(self, changed: Callable[[], None]) -> None:
        self._stream(
            "subscribe to configuration",
            self._client.subscribe_to_configuration_update_async,
            lambda event: changed(),
            key_path=[],
        )

    def secret(self, secret_id: str) -> str:
        value = self._call(f"secret {secret_id}", self._client.get_secret_value_async, secret_id=secret_id).secret_value
        return secret_text(secret_id, getattr(value, "secret_string", None), getattr(value, "secret_binary", None))

    def dropped(self) -> int:
        return self._inbox.dropped + sum(self._refused.values())

    def ready(self) -> None:
        return

    def close(self) -> None:
        self._closing = True
        self._inbox.close()
        with contextlib.suppress(Exception):  # best effort: the process is about to end
            self._client.close().result(timeout=2)

    def _call(self, what: str, operation: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return operation(**arguments).result(timeout=TIMEOUT_S)
        except Exception as error:
            raise translated(error, what) from error

    def _stream(
        self, what: str, operation: Callable[..., Any], received: Callable[[Any], None], **arguments: Any
    ) -> Any:
        """The open stream; its `close()` ends it."""

        def failed(error: Exception) -> bool:
            log.error("stream error %s", kv(stream=what, error=error))
            return False  # keep the stream: one undecodable event is not a reason to stop listening

        stream = None
        try:
            future, stream = operation(**arguments, on_stream_event=received, on_stream_error=failed)
            future.result(timeout=TIMEOUT_S)
        except Exception as error:
            if stream is not None:  # the core may still open what we no longer wait for
                stream.close()
            raise translated(error, what) from error
        return stream


def translated(error: BaseException, what: str) -> IpcError:
    """An awsiot or awscrt error as one of ours, saying what was tried. Nucleus Lite sends no message text."""
    name = type(error).__name__
    text = f"{what}: {getattr(error, 'message', None) or str(error) or name}"
    if isinstance(error, IpcError):
        return error
    if name in ("UnauthorizedError", "AccessDeniedError"):
        return UnauthorizedError(f"{text} (accessControl of the recipe, or of the deployed configuration)")
    if name == "InvalidArgumentsError":
        return RefusedError(text)
    if name in ("ResourceNotFoundError", "ComponentNotFoundError"):
        return NotFoundError(text)
    if name in ("ConnectionClosedError", "StreamClosedError"):
        return DisconnectedError(text)
    return IpcError(f"{what}: no answer in {TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else f"{text} ({name})")


def secret_text(secret_id: str, string: str | None, binary: bytes | None) -> str:
    """The text of a secret, however it was given. Raises NotFoundError for an answer that holds none."""
    try:
        text = string or (bytes(binary).decode() if binary else "")
    except (ValueError, TypeError) as error:
        raise NotFoundError(f"secret {secret_id}: expected text, found bytes that are none") from error
    if not text:
        raise NotFoundError(f"secret {secret_id}: the answer is empty, it has neither a string nor bytes")
    return str(text)


def matches(pattern: str, topic: str) -> bool:
    """Whether the MQTT filter `pattern` (`+` one level, trailing `#` the rest) covers `topic`."""
    wanted, given = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(w in ("+", g) for w, g in zip(wanted, given, strict=True))


class StandaloneIpc:
    """Ipc of `--standalone`: publishes become JSON lines on stdout, JSON lines on stdin become messages.

    A line is `{"channel": "local" | "iot_core", "topic": ..., "payload": ...}`; a payload that is not JSON goes as
    `payload_base64`. The configuration is a JSON or TOML file, watched for changes; secrets are its `secrets` table.
    """

    def __init__(self, config_file: Path) -> None:
        self._file = config_file
        self._inbox = Inbox()
        self._handlers: list[tuple[str, str, Handler]] = []
        self._stdout = threading.Lock()
        self._closed = threading.Event()
        self.max_iot_bytes = MAX_IOT_BYTES

    def publish(self, topic: str, payload: bytes, *, wait: float = TIMEOUT_S) -> None:
        if len(payload) > MAX_IPC_BYTES:
            raise IpcError(f"publish {topic}: {len(payload)} bytes, {MAX_IPC_BYTES} are allowed")
        self._print("local", topic, payload)

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self._print("iot_core", topic, payload)

    def subscribe(self, topic: str, handler: Handler) -> None:
        self._handlers.append(("local", topic, handler))

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> None:
        if ("iot_core", topic, handler) not in self._handlers:
            self._handlers.append(("iot_core", topic, handler))

    def configuration(self) -> dict[str, Any]:
        try:
            text = self._file.read_text()
            raw = tomllib.loads(text) if self._file.suffix == ".toml" else json_limits.loads(text, "configuration")
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError("", f"{self._file}: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError("", f"{self._file}: expected an object, found {type(raw).__name__}")
        self._secrets = raw.pop("secrets", {})
        return raw

    def on_configuration(self, changed: Callable[[], None]) -> None:
        def watch(seen: int) -> None:
            while not self._closed.wait(0.5):
                try:
                    now = self._file.stat().st_mtime_ns
                except OSError:
                    continue  # between an editor's unlink and its rename
                if now != seen:
                    seen = now
                    changed()

        try:
            now = self._file.stat().st_mtime_ns
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
        for line in sys.stdin:
            try:
                message = json.loads(line)
                channel, topic = message["channel"], message["topic"]
                coded = message.get("payload_base64")
                payload = base64.b64decode(coded) if coded else json.dumps(message["payload"]).encode()
            except (ValueError, KeyError, TypeError) as error:
                log.error("stdin line not understood %s", kv(error=repr(error), line=line.strip()[:200]))
                continue
            for wanted, pattern, handler in self._handlers:
                if wanted == channel and matches(pattern, topic):
                    self._inbox.put(handler, topic, payload)
