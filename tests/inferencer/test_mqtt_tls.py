"""A broker that wants TLS, a user and a password: played by a socket server that reads the CONNECT packet itself."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import certificate
from inferencer.sources.mqtt import MqttSamples, MqttSource
from inferencer_support import Recorder, make_context
from support import eventually

CONNACK, SUBACK = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"
MESSAGE = b"\x30\x08\x00\x01t1,2,3"


class TlsBroker:
    """Serves one client at a time: takes its CONNECT and SUBSCRIBE, sends one message, waits for its end."""

    def __init__(self, pem: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connects: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(5)
            client = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            try:
                with client:
                    client.do_handshake()
                    self.connects.append(client.recv(4096))
                    client.sendall(CONNACK)
                    client.recv(4096)  # SUBSCRIBE, packet 1
                    client.sendall(SUBACK + MESSAGE)
                    client.recv(4096)
            except OSError:
                continue  # a client that does not trust us leaves in the handshake


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TlsBroker]:
    running = TlsBroker(certificate(tmp_path))
    yield running
    running.close()


def test_a_broker_with_tls_user_and_password(tmp_path: Path, broker: TlsBroker) -> None:
    context = make_context(tmp_path / "work", Recorder(secrets={"broker": "pass-word"}))
    settings = MqttSource(
        port=broker.port,
        tls=True,
        ca_file=str(tmp_path / "broker.pem"),
        user="turbine-7",
        password_secret="broker",
        topic="t",
    )
    source = MqttSamples(settings, 10, context, "pipelines.p")
    try:
        sample = eventually(lambda: source.next(0.2), what="the message")
        assert sample is not None
        assert sample.values == ["1", "2", "3"]
        assert b"turbine-7" in broker.connects[0]
        assert b"pass-word" in broker.connects[0]
    finally:
        source.close()
