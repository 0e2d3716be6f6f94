"""A model in another process: the reference helper, and helpers that die, hang, lie, or are somebody else's."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import decoder_cases as cases
from edgeml.component import Context
from edgeml.errors import BackendError, BundleError, ConfigError
from fitting_support import exported, opened
from inferencer.backends.external import ExternalBackend, ExternalModel
from inferencer.backends.external_session import ExternalSession
from inferencer.sources.camera import CameraSource
from inferencer_support import make_context, picture, pipeline, sample
from support import ROOT, eventually

HELPER = ROOT / "scripts" / "external_helper.py"
PICTURE = picture(blue=9, size=(cases.SIZE[1], cases.SIZE[0]))


def bundle(folder: Path) -> Path:
    return exported(
        folder / "bundle",
        cases.yolo_v8().outputs,
        task="detection",
        labels=list(cases.LABELS),
        input={"name": "input", "size": list(cases.SIZE)},
        output={"decoder": "yolo"},
    )


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("x")  # a socket's path is short


@contextmanager
def helper(folder: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
    """The reference helper on a socket."""
    command = [sys.executable, str(HELPER), str(folder), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening")
            yield process
        finally:
            process.kill()


@pytest.fixture
def context(folder: Path) -> Iterator[Context]:
    yield make_context(folder)


def made(context: Context, path: Path, **settings: Any) -> ExternalModel:
    backend = ExternalBackend(socket=str(path), **settings)
    return ExternalModel(backend, pipeline(backend, CameraSource(camera="c")), context, "pipelines.p")


def test_a_helper_answers_what_the_bundle_itself_answers(folder: Path, context: Context) -> None:
    path = bundle(folder)
    own = opened(path).infer(sample(PICTURE))
    assert own is not None
    with helper(path, folder / "s"):
        model = made(context, folder / "s")
        try:
            eventually(model.poll, 20, "the helper")
            for _ in range(3):
                outcome = model.infer(sample(PICTURE))
                assert outcome is not None
                assert outcome.results == own.results
                assert (outcome.backend, outcome.model.name) == ("external", "Tiny")
        finally:
            model.close()


def test_a_helper_may_die_and_come_back(folder: Path, context: Context) -> None:
    path = bundle(folder)
    with helper(path, folder / "s"):
        model = made(context, folder / "s")
        try:
            eventually(model.poll, 20, "the helper")
        except BaseException:
            model.close()
            raise
    try:
        with pytest.raises(BackendError, match=r"gone|there|pipe"):
            model.infer(sample(PICTURE))
        assert not model.poll()
        eventually(lambda: problem(context) == "unreachable", 20, "the problem")
        with helper(path, folder / "s"):
            eventually(model.poll, 40, "the helper again")
            assert model.infer(sample(PICTURE)) is not None
            assert problem(context) == ""
    finally:
        model.close()


def test_a_helper_that_hangs_costs_one_time_out(folder: Path, context: Context) -> None:
    path = bundle(folder)
    with helper(path, folder / "s") as process:
        model = made(context, folder / "s", timeout_s=0.3)
        try:
            eventually(model.poll, 20, "the helper")
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(BackendError, match=r"no answer of the helper within 0.3 s"):
                model.infer(sample(PICTURE))
            assert time.monotonic() - began < 5
            process.send_signal(signal.SIGCONT)
            eventually(model.poll, 40, "the helper again")
        finally:
            process.send_signal(signal.SIGCONT)
            model.close()


def problem(context: Context) -> str:
    return "".join(found.code for found in context.health.problems.current())


# --- helpers that are none ---

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
    from inferencer.tasks import runner_of

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
        ({"socket": "/s", "user": "nobody-of-that-name"}, "no user 'nobody-of-that-name' here"),
    ],
)
def test_a_place_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ExternalBackend(**settings).check("pipelines.p.backend", "thing")
    ExternalBackend(socket="/" + "a" * 106).check("pipelines.p.backend", "thing")


def test_nobody_there_is_a_problem_and_closing_is_quick(folder: Path, context: Context) -> None:
    model = made(context, folder / "absent")
    eventually(lambda: problem(context) == "unreachable", 20, "the problem")
    with pytest.raises(BackendError, match="the helper is not there"):
        model.infer(sample(PICTURE))
    began = time.monotonic()
    model.close()
    assert time.monotonic() - began < 2
