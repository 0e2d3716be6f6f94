"""A core, clients of it, and small components to deploy."""

import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core_support import COMMAND, NAME, Packages, Run
from forked import popen
from localdev.cloud.broker import Broker
from localdev.core import LocalCore
from localdev.core.cli import main

EVERYTHING = {
    "aws.greengrass.ipc.pubsub": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.ipc.mqttproxy": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.SecretManager": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.Cli": {"all": {"operations": ["*"], "resources": ["*"]}},
}


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core") as running:
        yield running


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core", profile="lite") as running:
        yield running


@pytest.fixture
def connect_to() -> Iterator[Callable[..., Any]]:
    """Makes real IPC clients: `connect_to(core, component name, access control)`, by default with every right.

    A deployed component's client has the rights of its recipe. Their handlers run on the network thread, in order.
    """
    from awsiot import greengrasscoreipc
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

    clients = []

    def make(core: LocalCore, name: str = "test.Client", access_control: dict[str, Any] | None = None) -> Any:
        if name in core.names():
            token = core.token(name)
        else:
            token = core.add_principal(name, EVERYTHING if access_control is None else access_control)
        ipc = greengrasscoreipc.connect(ipc_socket=str(core.socket), authtoken=token, timeout=5.0)
        clients.append(GreengrassCoreIPCClientV2(client=ipc, executor=None))
        return clients[-1]

    yield make
    for client in clients:
        client.close().exception(5.0)


@pytest.fixture
def connect(core: LocalCore, connect_to: Callable[..., Any]) -> Callable[..., Any]:
    """`connect_to` for the fixture core."""
    return functools.partial(connect_to, core)


@pytest.fixture
def connect_lite(lite: LocalCore, connect_to: Callable[..., Any]) -> Callable[..., Any]:
    """`connect_to` for the fixture core of the lite profile."""
    return functools.partial(connect_to, lite)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Path]:
    """The folder of a core that runs in its own process."""
    folder = tmp_path_factory.mktemp("core")
    core = popen(
        [*COMMAND, "start", "--root", str(folder), "--mqtt", broker.url, "--thing-name", "cli"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert core.stdout
    try:
        assert "a stand-in for development, never for production" in core.stdout.readline()
        lines = "".join(core.stdout.readline() for _ in range(6))
        assert "components run as" in lines
        assert f"`scripts/core stop --root {folder}` stops it" in lines  # nobody's Ctrl-C reaches it here
        yield folder
        assert main(["stop", "--root", str(folder)]) == 0
        core.communicate(timeout=20)  # undisturbed: a signal now may find its handler gone
    finally:
        if core.poll() is None:
            core.terminate()
            core.communicate(timeout=20)
    assert core.returncode == 0
    assert not (folder / "ipc.socket").exists()
    assert not list((folder / "cli_ipc_info").iterdir())


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process against the core in the other one; the answer is what it prints."""

    def call(*words: str, code: int = 0, stream: str = "") -> str:
        assert main([*words, "--root", str(root)]) == code
        captured = capsys.readouterr()
        return captured.err if code and stream != "out" else captured.out

    return call


@pytest.fixture
def deployed(run: Run, packages: Any) -> None:
    packages.artifact(NAME, "main.sh", b"echo started; exec sleep 60")
    packages.add(NAME, {"run": "sh {artifacts:path}/main.sh"}, artifacts=[{"Uri": "s3://b/main.sh"}], config={"n": 1})
    merge = ["--recipeDir", str(packages.recipes), "--artifactDir", str(packages.artifacts), "--merge", f"{NAME}=1.0.0"]
    assert f": SUCCEEDED\nCreated on: {time.strftime('%d-%m-%Y', time.gmtime())}" in run(
        "deployment", "create", *merge, "--wait", "30"
    )
