"""scripts/core as a user runs it: a core in one process, greengrass-cli's words in others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localdev.cloud.broker import Broker
from localdev.core.cli import main
from support import eventually

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
COMMAND = [sys.executable, "-m", "localdev.core"]
NAME = "test.Component"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Path]:
    """The folder of a core that runs in its own process."""
    folder = tmp_path_factory.mktemp("core")
    core = subprocess.Popen(
        [*COMMAND, "start", "--root", str(folder), "--mqtt", broker.url, "--thing-name", "cli"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert core.stdout
    assert "a stand-in for development, never for production" in core.stdout.readline()
    yield folder
    core.send_signal(signal.SIGINT)
    core.communicate(timeout=20)
    assert core.returncode == 0
    assert not (folder / "ipc.socket").exists()
    assert not list((folder / "cli_ipc_info").iterdir())


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process against the core in the other one; the answer is what it prints."""

    def call(*words: str, code: int = 0) -> str:
        assert main([*words, "--root", str(root)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return call


@pytest.fixture
def deployed(run: Run, packages: Any) -> None:
    packages.artifact(NAME, "main.sh", b"echo started; exec sleep 60")
    packages.add(NAME, {"run": "sh {artifacts:path}/main.sh"}, artifacts=[{"Uri": "s3://b/main.sh"}], config={"n": 1})
    merge = ["--recipeDir", str(packages.recipes), "--artifactDir", str(packages.artifacts), "--merge", f"{NAME}=1.0.0"]
    wait(run, run("deployment", "create", *merge), "SUCCEEDED")


def wait(run: Run, submitted: str, status: str) -> str:
    """Waits for a deployment; the answer is its status in words."""
    deployment = submitted.removeprefix("Local deployment submitted! Deployment Id: ").strip()
    return eventually(
        lambda: (
            text
            if (text := run("deployment", "status", "-i", deployment)).startswith(f"{deployment}: {status}")
            else ""
        ),
        what=status,
    )


def listening(words: list[str], root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [*COMMAND, *words, "--root", str(root)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "Subscribed" in process.stderr.readline()
    return process


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    return line


@pytest.mark.usefixtures("deployed")
def test_components(run: Run) -> None:
    assert f"Component Name: {NAME}\n    Version: 1.0.0\n    State: RUNNING\n" in run("component", "list")
    assert 'Configuration: {"n": 1}' in run("component", "details", "-n", NAME)
    assert run("component", "restart", "-n", NAME) == f"{NAME}: SUCCEEDED\n"
    eventually(lambda: "State: RUNNING" in run("component", "details", "-n", NAME), what="RUNNING")
    assert run("component", "stop", "-n", NAME) == f"{NAME}: SUCCEEDED\n"
    eventually(lambda: "State: FINISHED" in run("component", "details", "-n", NAME), what="FINISHED")
    assert "FAILED" in run("component", "stop", "-n", "aws.greengrass.Cli")
    assert "ComponentNotFoundError" in run("component", "restart", "-n", "test.Absent", code=1)
    assert "ResourceNotFoundError" in run("component", "details", "-n", "test.Absent", code=1)


@pytest.mark.usefixtures("deployed")
def test_configuration_and_removal(run: Run, tmp_path: Path) -> None:
    change = {NAME: {"MERGE": {"n": 2}, "RESET": []}}
    wait(run, run("deployment", "create", "--update-config", json.dumps(change)), "SUCCEEDED")
    assert 'Configuration: {"n": 2}' in run("component", "details", "-n", NAME)
    file = tmp_path / "change.json"
    file.write_text(json.dumps({NAME: {"RESET": ["/n"], "MERGE": {"m": 3}}}))
    wait(run, run("deployment", "create", "-c", str(file)), "SUCCEEDED")
    assert 'Configuration: {"n": 1, "m": 3}' in run("component", "details", "-n", NAME)
    assert "SUCCEEDED" in run("deployment", "list")
    wait(run, run("deployment", "create", "--remove", NAME), "SUCCEEDED")
    assert NAME not in run("component", "list")


def test_a_failed_deployment_says_why(run: Run) -> None:
    status = wait(run, run("deployment", "create", "-m", "test.Absent=1.0.0"), "FAILED")
    assert "Detailed Status: FAILED_ROLLBACK_NOT_REQUESTED" in status
    assert "Failure Cause: no version of test.Absent satisfies =1.0.0" in status


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["deployment", "create", "-m", "test.X"], "expected NAME=VERSION"),
        (["deployment", "create", "-c", "{bad"], "--update-config"),
        (["deployment", "create", "-c", "/no/such/file"], "--update-config"),
        (["deployment", "create", "-c", '{"a": {"merge": {}}}'], "only MERGE and RESET"),
        (["deployment", "create", "-r", "/no/such/folder"], "InvalidRecipeDirectoryPathError"),
        (["deployment", "create", "-a", "/no/such/folder"], "InvalidArtifactsDirectoryPathError"),
        (["deployment", "status", "-i", "no-such-id"], "Cannot find deployment"),
        (["logs", "get", "-lf", "/no/such/file"], "No such file"),
    ],
)
def test_commands_that_fail(run: Run, words: list[str], text: str) -> None:
    assert text in run(*words, code=1)


@pytest.mark.usefixtures("deployed")
def test_logs(run: Run, root: Path) -> None:
    log = root / "logs" / f"{NAME}.log"
    eventually(lambda: "stdout. started." in run("logs", "get", "-lf", str(log)), what="output")
    assert "service-set-state" in run("logs", "get")


def test_following_a_log_goes_on_after_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("first\n")
    follower = subprocess.Popen(
        [*COMMAND, "logs", "get", "-lf", str(log), "-fol"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert follower.stdout
        assert follower.stdout.readline() == "first\n"
        with log.open("a") as file:
            file.write("second\n")
        log.rename(tmp_path / "rotated.log")
        log.write_text("after rotation\n")
        assert follower.stdout.readline() == "second\n"
        assert follower.stdout.readline() == "after rotation\n"
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=10)


@pytest.mark.parametrize(("message", "shown"), [('{"a": 1}', '{"a": 1}'), ("plain", "plain"), ("5", "5")])
def test_local_messages(run: Run, root: Path, message: str, shown: str) -> None:
    subscriber = listening(["pubsub", "sub", "-t", "cli/x"], root)
    run("pubsub", "pub", "-t", "cli/x", "-m", message)
    assert first_line(subscriber) == f"cli/x {shown}"


def test_iot_core_messages(run: Run, root: Path) -> None:
    subscriber = listening(["iotcore", "sub", "-t", "cloud/+", "-q", "1"], root)
    run("iotcore", "pub", "-t", "cloud/x", "-m", "hello", "-q", "1")
    assert first_line(subscriber) == "cloud/x hello"


def test_the_token_is_for_the_cores_user_only(root: Path) -> None:
    (info,) = (root / "cli_ipc_info").iterdir()
    assert info.stat().st_mode & 0o777 == 0o600
    assert info.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["component", "list", "--root", str(tmp_path)]) == 1
    assert "no core runs in" in capsys.readouterr().err


def test_a_second_core_in_one_root(root: Path) -> None:
    started = time.monotonic()
    second = subprocess.run(
        [*COMMAND, "start", "--root", str(root)], env=ENVIRONMENT, capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1
    assert "a core already runs in" in second.stderr
    assert time.monotonic() - started < 10
