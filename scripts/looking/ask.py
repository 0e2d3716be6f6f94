"""A question to a device over MQTT: to AWS IoT Core, signed with AWS credentials, or to a broker in its place."""

import json
import queue
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from awscrt import auth, io, mqtt
from awscrt.exceptions import AwsCrtError
from awsiot import mqtt_connection_builder

from looking import LookError
from looking.answer import MAX_ANSWER_BYTES, parsed

CONNECT_S, DONE_S = 15.0, 10.0
KEEP_ALIVE_S = 30
MAX_WAITING = 100  # answers to others


def to_aws(endpoint: str, region: str, credentials: Any) -> Any:
    """A connection to AWS IoT Core. `credentials` are botocore's, frozen."""
    provider = auth.AwsCredentialsProvider.new_static(credentials.access_key, credentials.secret_key, credentials.token)
    return mqtt_connection_builder.websockets_with_default_aws_signing(
        region=region, credentials_provider=provider, endpoint=endpoint, **_session()
    )


def to_broker(url: str) -> Any:
    """A connection to a broker at `mqtt://host:port`, which stands in for AWS IoT Core. Raises LookError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError:
        host = None
    if not host or parts.scheme != "mqtt":
        raise LookError(f"{url}: expected mqtt://<host>:<port>")
    session = _session()
    return mqtt.Connection(mqtt.Client(_bootstrap()), host_name=host, port=port, **session)


def ask(connection: Any, thing: str, *, pictures: bool, timeout_s: float) -> tuple[str, dict[str, Any]]:
    """The request's id and the device's answer. Raises LookError."""
    topic, request_id = f"edgeml/device/{thing}/look", secrets.token_hex(16)
    answers: queue.Queue[bytes] = queue.Queue(MAX_WAITING)

    def heard(topic: str, payload: bytes, **_: Any) -> None:
        if not answers.full():
            answers.put_nowait(payload)

    with _connected(connection):
        _done(connection.subscribe(f"{topic}/reply", mqtt.QoS.AT_LEAST_ONCE, heard)[0], "subscribe")
        request = json.dumps({"id": request_id, "at": time.time(), "pictures": pictures})
        _done(connection.publish(topic, request, mqtt.QoS.AT_LEAST_ONCE)[0], "publish")
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                payload = answers.get(timeout=left)
                answer = parsed(payload, MAX_ANSWER_BYTES)
            except (queue.Empty, LookError):  # somebody else's, perhaps
                continue
            if answer.get("id") == request_id:
                return request_id, answer
    raise LookError(
        f"{thing} has not answered in {timeout_s:g} s: it is offline, has no edgeml.Monitor, its `look` is off, "
        "or it was asked too often"
    )


def _bootstrap() -> Any:
    return io.ClientBootstrap.get_or_create_static_default()


def _session() -> dict[str, Any]:
    return {"client_id": f"look-{secrets.token_hex(8)}", "clean_session": True, "keep_alive_secs": KEEP_ALIVE_S}


@contextmanager
def _connected(connection: Any) -> Iterator[None]:
    _done(connection.connect(), "connect", CONNECT_S)
    try:
        yield
    finally:
        with suppress(AwsCrtError, FutureTimeoutError):
            connection.disconnect().result(DONE_S)


def _done(future: Any, what: str, timeout_s: float = DONE_S) -> Any:
    try:
        return future.result(timeout_s)
    except FutureTimeoutError as error:
        raise LookError(
            f"{what}: no answer of AWS IoT Core in {timeout_s:g} s; may these credentials do that?"
        ) from error
    except Exception as error:  # awscrt has several kinds
        raise LookError(f"{what}: {error}") from error
