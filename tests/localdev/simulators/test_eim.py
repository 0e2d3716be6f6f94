"""The stand-in against what a real .eim, built from Edge Impulse's public sources, was seen to say."""

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localdev.simulators.eim import Kind, Options, write_launcher
from support import eventually

SHM = Path("/dev/shm")


class Client:
    """A bare client, so that nothing of ours can hide a mistake of the stand-in."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.address = folder / "s"
        self.process = subprocess.Popen(
            [write_launcher(folder / "m.eim", Options(**options)), self.address], stdout=subprocess.PIPE, text=True
        )
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        eventually(lambda: self.socket.connect_ex(str(self.address)) == 0, what="a listening model")

    def ask(self, message: dict[str, Any] | bytes) -> dict[str, Any]:
        reply = self.raw(message)
        assert reply.endswith(b"}\n\0")
        found: dict[str, Any] = json.loads(reply[:-1])
        assert list(found) == sorted(found)
        return found

    def raw(self, message: dict[str, Any] | bytes) -> bytes:
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode())
        reply = b""
        while not reply.endswith(b"\0"):
            chunk = self.socket.recv(1 << 20)
            assert chunk, "the model is gone"
            reply += chunk
        return reply

    def close(self) -> None:
        self.socket.close()
        try:
            self.process.wait(5)
        finally:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []
    tag = os.urandom(3).hex()
    with tempfile.TemporaryDirectory(prefix="eim-") as folder:

        def make(**options: Any) -> Client:
            made.append(Client(Path(folder), tag=tag, **options))
            return made[-1]

        yield make
        for one in made:
            one.close()
    assert list(SHM.glob(f"shm-{tag}*")) == []


HELLO = {"hello": 1, "id": 1}


def test_hello(client: Callable[..., Client]) -> None:
    reply = client(kind="audio", labels=["noise", "yes"]).ask(HELLO)
    assert set(reply) == {"features_shm", "id", "inferencing_engine", "model_parameters", "project", "success"}
    assert (reply["id"], reply["success"]) == (1, True)
    parameters = reply["model_parameters"]
    assert (parameters["sensor"], parameters["frequency"], parameters["use_continuous_mode"]) == (1, 16000.0, True)
    assert (parameters["input_features_count"], parameters["slice_size"]) == (16000, 4000)
    block = reply["features_shm"]
    assert (block["elements"], block["size_bytes"], block["type"]) == (16000, 64000, "float32")
    file = SHM / block["name"].lstrip("/")
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (64000, 0o600)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"hello": 1, "id": 2}, "Invalid message 'hello', already initialized"),
        ({"classify": "no", "id": 2}, "Failed to parse classify array, should contain all numbers"),
        ({"classify": [1, 2], "id": 2}, "Invalid number of features in 'classify', expected 4 but got 2"),
        ({"classify_shm": {}, "id": 2}, "Missing 'elements' in 'classify_data_shm'"),
        (
            {"classify_shm": {"elements": 5}, "id": 2},
            "Invalid value for 'classify_data_shm.elements', expected 4, but got 5",
        ),
        ({"set_threshold": {}, "id": 2}, "set_threshold should have a numeric field 'id'"),
        ({"set_threshold": {"id": 99}, "id": 2}, "set_threshold: cannot find learn block with id 99"),
        (
            {"set_threshold": {"id": 3, "min_score": "x"}, "id": 2},
            "set_threshold, value for 'min_score' should be numeric",
        ),
        ({"set_parameter": {}, "id": 2}, "Failed to handle message"),
    ],
)
def test_refusals(client: Callable[..., Client], message: dict[str, Any], error: str) -> None:
    model = client(kind="box", width=2, height=2)
    model.ask(HELLO)
    assert model.ask(message) == {"error": error, "id": 2, "success": False}
    assert model.ask({"classify": [1, 2, 3, 4], "id": 3})["success"]


def test_refusals_before_hello(client: Callable[..., Client]) -> None:
    model = client(shm="failed")
    assert model.ask({"classify": [1], "id": 2})["error"] == "Invalid message, should initialize first"
    assert model.ask({"hello": 1}) == {"error": "Missing 'id' field in message", "success": False}
    assert model.ask({"hello": 2, "id": 2})["error"] == "Invalid value for 'hello', only 1 supported"
    assert "features_shm_error" in model.ask(HELLO)


def test_messages_need_nothing_between_them_and_may_come_in_pieces(client: Callable[..., Client]) -> None:
    model = client()
    text = b' \n{"hello":1,"note":"}{","id":1}'
    for index in range(len(text) - 1):
        model.socket.sendall(text[index : index + 1])
    assert model.ask(text[-1:])["success"]
    two = model.raw(b'{"x":1,"id":2}{"x":1,"id":3}')
    while two.count(b"\0") < 2:
        two += model.socket.recv(1 << 20)
    assert [json.loads(part)["id"] for part in two.split(b"\0") if part] == [2, 3]


def test_it_ends_with_its_client_and_removes_its_memory(client: Callable[..., Client]) -> None:
    model = client()
    block = SHM / model.ask(HELLO)["features_shm"]["name"].lstrip("/")
    model.socket.close()
    output, _ = model.process.communicate(timeout=5)
    assert model.process.returncode == 0
    assert not block.exists()
    assert output.splitlines() == [
        f"Edge Impulse Linux impulse runner - listening for JSON messages on socket '{model.address}'",
        f"Waiting for connection on {model.address}...",
        "Connected",
    ]


def test_signals_remove_its_memory_but_a_kill_leaves_it(client: Callable[..., Client]) -> None:
    model = client()
    block = SHM / model.ask(HELLO)["features_shm"]["name"].lstrip("/")
    model.process.send_signal(signal.SIGTERM)
    assert model.process.wait(5) == 128 + signal.SIGTERM
    assert not block.exists()
    model.close()
    killed = client()
    block = SHM / killed.ask(HELLO)["features_shm"]["name"].lstrip("/")
    killed.process.kill()
    killed.process.wait(5)
    assert block.exists()
    block.unlink()


@pytest.mark.parametrize(
    ("kind", "model_type", "labels"),
    [
        ("classification", "classification", 2),
        ("regression", "classification", 1),
        ("box", "object_detection", 2),
        ("fomo", "constrained_object_detection", 2),
        ("freeform", "freeform", 2),
    ],
)
def test_print_info(tmp_path: Path, kind: Kind, model_type: str, labels: int) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options(kind=kind, tag="0ddba1"))
    output = subprocess.run([launcher, "--print-info"], capture_output=True, text=True, check=True, timeout=10).stdout
    banner, _, text = output.partition("\n")
    assert banner == "Edge Impulse Linux impulse runner - printing model metadata"
    parameters = json.loads(text)["model_parameters"]
    assert (parameters["model_type"], parameters["label_count"]) == (model_type, labels)
    assert list(SHM.glob("shm-0ddba1*")) == []


def test_stdin_mode_ends_replies_with_a_line(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options())
    found = subprocess.run([launcher, "stdin"], input=json.dumps(HELLO).encode(), capture_output=True, timeout=10)
    assert found.returncode == 0
    assert found.stdout.endswith(b"}\n")
    assert json.loads(found.stdout)["success"]


def test_no_argument(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options())
    found = subprocess.run([launcher], capture_output=True, text=True, timeout=10)
    assert found.returncode == 1
    assert "Requires one parameter (either: '--print-info', 'stdin' or the name of a socket)" in found.stdout


def test_a_second_client_is_never_served(client: Callable[..., Client]) -> None:
    model = client()
    model.ask(HELLO)
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(0.1)
        second.connect(str(model.address))
        second.sendall(json.dumps(HELLO).encode())
        with pytest.raises(TimeoutError):
            second.recv(1)


def test_the_launcher_is_one_file_that_may_be_copied(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options(labels=["it's", 'a "label"', "ü"]))
    moved = tmp_path / "a folder" / "copy.eim"
    moved.parent.mkdir()
    launcher.rename(moved)
    output = subprocess.run(
        [moved, "--print-info"], capture_output=True, text=True, check=True, timeout=10, env=os.environ
    )
    assert json.loads(output.stdout.partition("\n")[2])["model_parameters"]["labels"] == ["it's", 'a "label"', "ü"]
