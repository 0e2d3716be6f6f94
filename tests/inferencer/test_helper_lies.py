"""What a helper may say that is not so, and who may be in its place."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import decoder_cases as cases
from edgeml.errors import BackendError, BundleError, ConfigError
from inferencer.backends.external import ExternalBackend
from inferencer.backends.external_session import ExternalSession
from inferencer.preprocess import Geometry
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.tasks.runner import Session
from inferencer_support import picture, pipeline, sample

MANIFEST: dict[str, Any] = {
    "name": "Tiny",
    "version": "1.0.0",
    "task": "detection",
    "labels": list(cases.LABELS),
    "input": {"name": "input", "size": [16, 16]},
    "output": {"decoder": "yolo"},
}
HELLO: dict[str, Any] = {
    "edgeml": 1,
    "manifest": MANIFEST,
    "inputs": {"input": {"shape": [1, 3, 16, 16], "dtype": "float32"}},
    "outputs": {"output0": {"shape": [1, 7, 40], "dtype": "float32"}},
}


@contextmanager
def speaking(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody on a socket who says what `talk` says to the first that comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(20)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(timeout=20)


def said(*messages: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        for message in messages:
            connection.send(message)
        while connection.recv(1 << 17):
            pass

    return talk


def hello(**changed: Any) -> bytes:
    return json.dumps({**HELLO, **changed}).encode()


def manifest(**changed: Any) -> bytes:
    return hello(manifest={**MANIFEST, **changed})


def output(**changed: Any) -> bytes:
    return hello(outputs={"output0": {**HELLO["outputs"]["output0"], **changed}})


LIES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"hello", "not a message of a helper"),
    "another version": (hello(edgeml=2), "Invalid enum value 2"),
    "a deep one": (b'{"a":' * 2000, "nested more than"),
    "more than a message": (b" " * ((1 << 17) + 1), "has more than 131072 bytes"),
    "no inputs": (hello(inputs={}), "length >= 1"),
    "negative sides": (output(shape=[1, -7, 40]), "Expected `int` >= 1"),
    "sides beyond sense": (output(shape=[1, 1 << 28, 1 << 28]), "max_bytes is 67108864"),
    "sides in words": (output(shape=["1", 7, 40]), "Expected `int`"),
    "too many sides": (output(shape=[1] * 9), "length <= 8"),
    "an unknown type": (output(dtype="object"), "Invalid enum value 'object'"),
    "another input": (hello(inputs={"x": HELLO["inputs"]["input"]}), "no input 'input', it has x"),
    "another shape": (hello(inputs={"input": {"shape": [1, 3, 8, 8]}}), "does not run on (1, 3, 16, 16) NCHW"),
    "outputs that nobody reads": (output(shape=[1, 9, 40]), "expected [1, n, 8] (v5)"),
    "an unknown decoder": (manifest(output={"decoder": "magic"}), "no decoder 'magic'"),
    "a path as name": (manifest(name="../x"), "manifest of the helper"),
    "anchors from a file": (manifest(output={"decoder": "ssd", "parameters": {"anchors": "a.npy"}}), "not declared"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_helper_says_wrongly_is_refused_in_words(folder: Path, lie: str) -> None:
    message, words = LIES[lie]

    def talk(connection: socket.socket) -> None:
        connection.send(message)
        while data := connection.recv(1 << 17):
            if b"infer" in data:
                connection.send(json.dumps({"done": json.loads(data)["infer"]}).encode())

    with speaking(folder / "s", talk), pytest.raises((BundleError, BackendError)) as caught:
        session = ExternalSession(str(folder / "s"), "", 2.0, 64 << 20)
        try:
            backend = ExternalBackend(socket="/s")
            runner_of(session.bundle, session, pipeline(backend, CameraSource(camera="c")))
        finally:
            session.close()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"done": 99}', "expected the answer to 1"),
        (b"{}", "expected the answer to 1"),
        (b"[1]", "not a message of a helper"),
        (b'{"error": 1, "reason": "too hot"}', "too hot"),
        (b'{"error": 1}', "failed without a reason"),
    ],
)
def test_answers_that_are_none_are_errors(folder: Path, answer: bytes, words: str) -> None:
    with speaking(folder / "s", said(hello(), answer)):
        session = ExternalSession(str(folder / "s"), "", 2.0, 1 << 20)
        with pytest.raises(BackendError, match=words):
            session.run(["output0"], {"input": np.zeros((1, 3, 16, 16), np.float32)})
        assert session.closed == (b"error" not in answer)
        session.close()


def test_a_user_that_was_removed_is_an_error(folder: Path) -> None:
    with speaking(folder / "s", said()), pytest.raises(BackendError, match="no user 'gone' any more"):
        ExternalSession(str(folder / "s"), "gone", 2.0, 1 << 20)


def test_a_helper_is_tried_on_pictures_that_differ(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its input is always in the same place: what is tried must not be overwritten before it is asked."""
    path = tmp_path_factory.mktemp("x") / "s"
    seen: list[float] = []

    def talk(connection: socket.socket) -> None:
        connection.send(hello())
        data, (descriptor,), _, _ = socket.recv_fds(connection, 1 << 16, 1)
        placed = json.loads(data)
        while data := connection.recv(1 << 16):
            given = np.frombuffer(os.pread(descriptor, 3 * 16 * 16 * 4, placed["inputs"]["input"]), np.float32)
            seen.append(float(given.mean()))
            os.pwrite(descriptor, np.full(280, seen[-1] / 255, np.float32).tobytes(), placed["outputs"]["output0"])
            connection.send(json.dumps({"done": json.loads(data)["infer"]}).encode())
        os.close(descriptor)

    with speaking(path, talk):
        session = ExternalSession(str(path), "", 2.0, 1 << 20)
        try:
            settings = pipeline(ExternalBackend(socket="/s"), CameraSource(camera="c"))
            runner = runner_of(session.bundle, session, settings)
            assert seen == [0, pytest.approx(127, abs=10)]
            assert runner.infer(sample(picture(9, 9, 9))) is not None
            assert seen[2] == 9
            shape = session.buffer("input").shape
            tried = [(np.full(shape, value, np.float32), Geometry(16, 16)) for value in (0, 255)]
            (found,) = Session(session.bundle, session).outputs(tried)
            assert [float(value.mean()) for value in found.values] == [0, 1]
        finally:
            session.close()


def test_quantized_outputs_come_as_numbers(folder: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.send(output(dtype="uint8", scale=0.5, zero_point=3))
        data, (descriptor,), _, _ = socket.recv_fds(connection, 1 << 16, 1)
        begin = json.loads(data)["outputs"]["output0"]
        connection.recv(1 << 16)
        os.pwrite(descriptor, bytes([13]) * 280, begin)
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(descriptor, 16)  # the other side would end by SIGBUS
        os.close(descriptor)
        connection.send(b'{"done": 1}')

    with speaking(folder / "s", talk):
        session = ExternalSession(str(folder / "s"), "", 2.0, 1 << 20)
        (value,) = session.run(["output0"], {"input": np.zeros((1, 3, 16, 16), np.float32)})
        session.close()
    np.testing.assert_array_equal(value, np.full((1, 7, 40), 5.0, np.float32))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("user", "words"), [("", "belongs to the user 65534"), ("root", "expected root")])
def test_a_socket_of_somebody_else_gets_and_gives_nothing(user: str, words: str) -> None:
    """Whoever can write to a socket's folder may put his own there."""
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "sys.stdin.readline()\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1]); s.listen(1); os.chmod(sys.argv[1], 0o666)\n"
        "print('there', flush=True)\n"
        "c, _ = s.accept()\n"
        "print(c.recv(100), flush=True)\n"
    )
    with (
        tempfile.TemporaryDirectory() as shared,
        subprocess.Popen(
            [sys.executable, "-I", "-c", code, f"{shared}/s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            Path(shared).chmod(0o777)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "there\n"
            with pytest.raises(BackendError, match=words):
                ExternalSession(f"{shared}/s", user, 2.0, 1 << 20)
            assert process.stdout.readline() == "b''\n"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"socket": "npu.sock"}, "expected an absolute path"),
        ({"socket": "/" + "a" * 107}, "at most 107 bytes"),
        ({"socket": "/a\0b"}, "without NUL"),
        ({"socket": "/s", "user": "nobody-of-that-name"}, "no user 'nobody-of-that-name' here"),
    ],
)
def test_a_place_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ExternalBackend(**settings).check("pipelines.p.backend", "thing")
    ExternalBackend(socket="/" + "a" * 106).check("pipelines.p.backend", "thing")
