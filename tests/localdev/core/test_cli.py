"""scripts/core as a user runs it: a core in one process, greengrass-cli's words in others."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from core_support import COMMAND, NAME, Run
from forked import popen
from localdev.cloud.broker import Broker
from localdev.core.cli import main
from localdev.core.client import connect
from support import eventually


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
    process = popen(
        [*COMMAND, *words, "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "Subscribed" in process.stderr.readline()
    return process


def first_line(process: "subprocess.Popen[str]", topic: str) -> str:
    assert process.stdout
    assert process.stdout.readline() == f"Successfully subscribed to topic: {topic}\n"
    line = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    return line


@pytest.mark.usefixtures("deployed")
def test_components(run: Run) -> None:
    assert f"Component Name: {NAME}\n    Version: 1.0.0\n    State: RUNNING\n" in run("component", "list")
    listed = run("component", "list")
    assert listed.startswith("Components currently running in Greengrass:\n")
    assert "Component Name: aws.greengrass.Nucleus\n    Version: 2.18.0\n    State: FINISHED\n" in listed
    assert 'Configuration: {"n":1.0}' in run("component", "details", "-n", NAME)
    assert run("component", "restart", "-n", NAME) == ""
    eventually(lambda: "State: RUNNING" in run("component", "details", "-n", NAME), what="RUNNING")
    assert run("component", "stop", "-n", NAME) == ""
    eventually(lambda: "State: FINISHED" in run("component", "details", "-n", NAME), what="FINISHED")
    assert "FAILED" in run("component", "stop", "-n", "aws.greengrass.Cli", code=1)
    assert "ResourceNotFoundError" in run("component", "restart", "-n", "test.Absent", code=1)
    assert "ResourceNotFoundError" in run("component", "details", "-n", "test.Absent", code=1)


@pytest.mark.usefixtures("deployed")
def test_configuration_and_removal(run: Run, tmp_path: Path) -> None:
    change = {NAME: {"MERGE": {"n": 2}, "RESET": []}}
    wait(run, run("deployment", "create", "--update-config", json.dumps(change)), "SUCCEEDED")
    assert 'Configuration: {"n":2.0}' in run("component", "details", "-n", NAME)
    file = tmp_path / "change.json"
    file.write_text(json.dumps({NAME: {"RESET": ["/n"], "MERGE": {"m": 3}}}))
    wait(run, run("deployment", "create", "-c", str(file)), "SUCCEEDED")
    assert 'Configuration: {"n":1.0,"m":3.0}' in run("component", "details", "-n", NAME)
    entry = r"Deployment ID: [-0-9a-f]{36}\nCreated on: \d\d-\d\d-\d{4} \d\d:\d\d:\d\d UTC\nStatus: [A-Z]+\n"
    assert re.fullmatch(f"(?:{entry}\n?)+", run("deployment", "list"))
    wait(run, run("deployment", "create", "--remove", NAME), "SUCCEEDED")
    assert NAME not in run("component", "list")


def test_a_failed_deployment_says_why(run: Run) -> None:
    status = wait(run, run("deployment", "create", "-m", "test.Absent=1.0.0"), "FAILED")
    assert "\nDetailed Status: FAILED_NO_STATE_CHANGE\nDeployment Error Stack: DEPLOYMENT_FAILURE" in status
    assert "\nDeployment Failure Cause: no version of test.Absent satisfies =1.0.0" in status


def test_waiting_for_a_deployment_gives_its_outcome(run: Run, packages: Any) -> None:
    folders = ["--recipeDir", str(packages.recipes)]
    assert "nowhere is no folder" in run_failing(run, "deployment", "create", "-r", "/nowhere", "--wait")
    packages.add("test.Failing", {"run": "exit 78"})
    broken = run_failing(run, "deployment", "create", *folders, "-m", "test.Failing=1.0.0", "--wait")
    assert "Detailed Status: FAILED_ROLLBACK_NOT_REQUESTED" in broken
    assert "test.Failing is BROKEN" in broken
    assert "Error Stack: DEPLOYMENT_FAILURE, COMPONENT_UPDATE_ERROR, COMPONENT_BROKEN" in broken
    run("deployment", "create", "--remove", "test.Failing", "--wait")


def test_a_component_that_waits_says_for_what_and_its_deployment_can_be_canceled(run: Run, packages: Any) -> None:
    packages.add("test.A", {"startup": "exec sleep 60"})
    packages.add("test.B", depends={"test.A": {"VersionRequirement": "*"}})
    packages.add("test.C", {"install": "exec sleep 60"})
    words = ["-r", str(packages.recipes), "-m", "test.B=1.0.0,test.C=1.0.0"]
    deployment = run("deployment", "create", *words).split()[-1]
    eventually(lambda: "Waits for: test.A (STARTING)" in run("component", "list"), what="the reason")
    eventually(lambda: "State: NEW\n    Waits for: its install step" in run("component", "list"), what="install")
    assert "test.B waits for test.A (STARTING)" in run("status")
    assert run("deployment", "cancel", "-i", deployment) == f"Cancel request submitted. Deployment ID: {deployment}\n"
    eventually(lambda: f"{deployment}: CANCELED" in run("deployment", "status", "-i", deployment), what="CANCELED")
    assert "already finished" in run("deployment", "cancel", "-i", deployment)
    run("deployment", "create", "--remove", "test.B,test.C", "--wait")


def run_failing(run: Run, *words: str) -> str:
    return run(*words, code=1, stream="out")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["deployment", "create", "-m", "test.X"], "expected NAME=VERSION"),
        (["deployment", "create", "-c", "{bad"], "--update-config"),
        (["deployment", "create", "-c", "/no/such/file"], "--update-config"),
        (["deployment", "create", "-c", '{"a": {"merge": {}}}'], "only MERGE and RESET"),
        (["deployment", "create", "--runWith", "a:windowsUser=x"], "expected NAME:posixUser"),
        (["deployment", "create", "-g", "a:b"], "cannot contain colon"),
        (["deployment", "status", "-i", "no-such-id"], "DeploymentId is a UUID"),
        (["deployment", "cancel", "-i", "no-such-id"], "DeploymentId is a UUID"),
        (["deployment", "status", "-i", "00000000-0000-0000-0000-000000000000"], "Cannot find deployment"),
        (["logs", "get", "-lf", "/no/such/file"], "No such file"),
    ],
)
def test_commands_that_fail(run: Run, words: list[str], text: str) -> None:
    assert text in run(*words, code=1)


@pytest.mark.parametrize(("message", "shown"), [('{"a": 1}', '{"a":1.0}'), ("plain", "plain"), ("5", "5")])
def test_local_messages(run: Run, root: Path, message: str, shown: str) -> None:
    subscriber = listening(["pubsub", "sub", "-t", "cli/x"], root)
    run("pubsub", "pub", "-t", "cli/x", "-m", message)
    assert first_line(subscriber, "cli/x") == shown


def test_iot_core_messages(run: Run, root: Path) -> None:
    subscriber = listening(["iotcore", "sub", "-t", "cloud/+", "-q", "1"], root)
    run("iotcore", "pub", "-t", "cloud/x", "-m", "hello", "-q", "1")
    assert first_line(subscriber, "cloud/+") == "hello"


def test_the_token_is_for_the_cores_user_only(root: Path) -> None:
    (info,) = (root / "cli_ipc_info").iterdir()
    assert info.stat().st_mode & 0o777 == 0o600
    assert info.parent.stat().st_mode & 0o777 == 0o700


def test_status(run: Run, root: Path, broker: Broker) -> None:
    status = run("status")
    assert f"(java profile) runs in {root}" in status
    assert f"IoT Core  {broker.url} (connected)" in status
    assert "components run as" in status


def test_who_stops_reading_sees_no_traceback(run: Run, root: Path) -> None:
    """As `... | head -1`, for a word that prints once and for one that goes on."""
    for words in (["component", "list"], ["pubsub", "sub", "-t", "pipe/closed"]):
        process = subprocess.Popen(
            [*COMMAND, *words, "--root", str(root)],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()

        def gone(process: "subprocess.Popen[str]" = process) -> bool:
            run("pubsub", "pub", "-t", "pipe/closed", "-m", "x")
            return process.poll() is not None

        eventually(gone, what="its end")
        errors = process.stderr.read()
        process.stderr.close()
        assert "Traceback" not in errors
        assert "Exception" not in errors


def test_the_whole_life_of_a_core_of_its_own_broker(
    tmp_path: Path, packages: Any, request: pytest.FixtureRequest
) -> None:
    """`iotcore sub` needs no broker of somebody else; what is deployed is there again after a restart."""
    root = tmp_path / "core"
    packages.add(NAME, config={"n": 1})

    def end(process: "subprocess.Popen[str]") -> None:
        process.terminate()
        process.communicate(timeout=20)

    def begin() -> "subprocess.Popen[str]":
        process = popen([*COMMAND, "start", "--root", str(root)], stdout=subprocess.PIPE, text=True)
        request.addfinalizer(lambda: end(process))
        assert process.stdout
        assert "java profile" in process.stdout.readline()
        return process

    core = begin()
    create = ["deployment", "create", "-r", str(packages.recipes), "-m", f"{NAME}=1.0.0", "--root", str(root)]
    assert main([*create, "-c", json.dumps({NAME: {"MERGE": {"n": 2}}}), "--wait"]) == 0
    subscriber = listening(["iotcore", "sub", "-t", "own/#"], root)
    assert main(["iotcore", "pub", "-t", "own/x", "-m", "hello", "-q", "1", "--root", str(root)]) == 0
    assert first_line(subscriber, "own/#") == "hello"
    (left,) = psutil.Process(core.pid).children()
    core.kill()
    core.wait(timeout=10)
    core = begin()
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
    assert main([*create, "--wait"]) == 0
    with connect(root) as client:
        details = client.get_component_details(component_name=NAME).component_details
    assert (details.state, details.configuration) == ("RUNNING", {"n": 2.0})
    assert main(["stop", "--root", str(root)]) == 0
    assert core.wait(timeout=10) == 0
    assert main(["stop", "--root", str(root)]) == 1


def test_without_a_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["component", "list", "--root", str(tmp_path)]) == 1
    assert "no core runs in" in capsys.readouterr().err


def test_a_second_core_in_one_root(root: Path) -> None:
    second = subprocess.run([*COMMAND, "start", "--root", str(root)], capture_output=True, text=True, timeout=20)
    assert second.returncode == 1
    assert "a core already runs in" in second.stderr


def test_the_password_that_a_component_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["password", "edgeml.Page", "--root", str(tmp_path)]
    assert main(words) == 1
    assert "edgeml.Page/password: No such file" in capsys.readouterr().err
    folder = tmp_path / "work" / "edgeml.Page"
    folder.mkdir(parents=True)
    (tmp_path / "other").write_text("not for them\n")
    (folder / "password").symlink_to(tmp_path / "other")
    assert main(words) == 1
    (folder / "password").unlink()
    (folder / "password").write_text("of the page\n")
    assert main(words) == 0
    assert capsys.readouterr().out == "of the page\n"
