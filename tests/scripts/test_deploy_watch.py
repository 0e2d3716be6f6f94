"""scripts/deploy watches a deployment arrive, and status shows it."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from deploy_support import DEVICES, GROUP, Field
from localdev.cloud.aws import Request, Response
from support import eventually


@pytest.mark.parametrize(("verdict", "text"), [("FAILED", "FAILED"), ("QUEUED", "the deployment goes on")])
def test_devices_that_fail_or_are_offline_are_named(
    field: Field, capsys: pytest.CaptureFixture[str], verdict: str, text: str
) -> None:
    field.devices_say(verdict)
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert "0 of 2 devices succeeded" in output
    assert "press-1" in output
    assert text in output
    assert ("--core-device-thing-name press-1" in output) is (verdict == "FAILED")
    assert field.deploy("status") == 1


@pytest.fixture
def executions(field: Field) -> Iterator[list[dict[str, str] | None]]:
    """The next answers to how devices have the job: status by name, or None for a job that is not known yet."""
    answers: list[dict[str, str] | None] = []

    def shown(request: Request) -> Response | None:
        if request.service != "iot" or not re.fullmatch(r"/jobs/[^/]+/things", request.path) or not answers:
            return None
        things = answers.pop(0)
        if things is None:
            return Response(b"{}", 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
        arn = "arn:aws:iot:us-east-1:123456789012:thing/"
        summaries = [{"thingArn": arn + name, "jobExecutionSummary": {"status": s}} for name, s in things.items()]
        return Response(json.dumps({"executionSummaries": summaries}).encode())

    with field.answering(shown):
        yield answers


def test_devices_that_appear_late_are_waited_for(
    field: Field, executions: list[dict[str, str] | None], capsys: pytest.CaptureFixture[str]
) -> None:
    executions += [None, {}, {"press-1": "SUCCEEDED"}]
    field.devices_say("FAILED")
    assert field.deploy("--yes", "--timeout", "5") == 1
    assert executions == []
    assert "0 of 2 devices succeeded" in capsys.readouterr().out, "what the fourth look finds"


@pytest.mark.parametrize(("things", "count"), [(None, 0), ({}, 0), ({"press-1": "SUCCEEDED"}, 1)])
def test_devices_that_do_not_appear_are_no_success(
    field: Field,
    executions: list[dict[str, str] | None],
    capsys: pytest.CaptureFixture[str],
    things: dict[str, str] | None,
    count: int,
) -> None:
    executions += [things] * 100
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert f"{count} of 2 devices succeeded" in output
    assert "the deployment goes on" in output
    assert field.deploy("status") == 1


STEPS: list[dict[str, str] | None] = [
    {"press-1": "QUEUED", "press-2": "QUEUED"},
    {"press-1": "SUCCEEDED", "press-2": "IN_PROGRESS"},
    {"press-1": "SUCCEEDED", "press-2": "FAILED"},
]


def test_on_a_terminal_a_bar_shows_how_many_devices_are_done(
    field: Field, executions: list[dict[str, str] | None]
) -> None:
    executions += STEPS
    command = field.command("--yes", "--interval", "0.3", "--timeout", "5")
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(command, env=os.environ | {"TERM": "xterm"}, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while select.select([ours], [], [], 20)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
    os.close(ours)
    assert process.returncode == 1, "one failed"
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).split("\r")
    bars = [found.groups() for frame in frames if (found := re.match(r"(.+?) [━╸╺]+ (\d/\S+)", frame))]
    changes = [bar for index, bar in enumerate(bars) if index == 0 or bar != bars[index - 1]]
    assert changes == [
        ("devices", "0/2"),
        ("2 queued", "0/2"),
        ("1 in_progress, 1 succeeded", "1/2"),
        ("1 failed, 1 succeeded", "2/2"),
    ]


def test_without_a_terminal_each_change_is_a_line(
    field: Field, executions: list[dict[str, str] | None], capsys: pytest.CaptureFixture[str]
) -> None:
    executions += [STEPS[0], *STEPS]
    assert field.deploy("--yes", "--timeout", "5") == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "devices done" in line]
    assert lines == [
        "0 of 2 devices done: 2 queued",
        "1 of 2 devices done: 1 in_progress, 1 succeeded",
        "2 of 2 devices done: 1 failed, 1 succeeded",
    ]


def test_ctrl_c_leaves_the_deployment_alone_and_says_how_to_look_again(field: Field) -> None:
    field.devices_say("IN_PROGRESS")
    command = field.command("--yes", "--timeout", "60")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            while "devices done" not in (line := process.stdout.readline()):
                assert line, process.stderr.read()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    (deployment,) = field.cloud.greengrass.deployments
    assert process.returncode == 130
    assert f"deployment {deployment.id} goes on. Look again: ./scripts/deploy status --thing-group presses" in errors
    assert "Traceback" not in errors
    assert (deployment.status, set(deployment.executions.values())) == ("ACTIVE", {"IN_PROGRESS"})


def test_ctrl_c_before_the_deployment_makes_none(field: Field) -> None:
    command = field.command()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        assert asked.stdout is not None
        os.set_blocking(asked.stdout.fileno(), False)
        seen = b""

        def prompted() -> bool:
            nonlocal seen
            seen += asked.stdout.read() or b""  # type: ignore[union-attr]
            return b"Deploy?" in seen

        eventually(prompted, 20)
        asked.send_signal(signal.SIGINT)
        _, errors = asked.communicate(timeout=20)
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == 130
    assert b"stopped; to see what is deployed: ./scripts/deploy status --thing-group presses" in errors
    assert field.ids() == []


def test_when_aws_is_gone_while_waiting_the_deployment_is_named(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(request: Request) -> Response | None:
        looking = request.service == "iot" and re.fullmatch(r"/jobs/[^/]+/things", request.path)
        return Response(b"{}", 403, {"x-amzn-ErrorType": "AccessDeniedException"}) if looking else None

    with field.answering(gone):
        assert field.deploy("--yes") == 1
    error = capsys.readouterr().err
    assert "may not do ListJobExecutionsForJob" in error
    assert f"Deployment {field.ids()[0]} goes on. Look again: ./scripts/deploy status" in error


def test_status_shows_components_devices_and_earlier_deployments(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    assert field.deploy("status") == 0
    assert "nothing has been deployed to presses" in capsys.readouterr().out
    field.devices_say("FAILED")
    field.deploy("--yes")
    field.devices_say("SUCCEEDED")
    field.build("edgeml.A", "1.1.0")
    field.deploy("--yes")
    capsys.readouterr()
    assert field.deploy("status") == 0
    output = capsys.readouterr().out
    assert f"deployment {field.ids()[1]}" in output
    assert "ACTIVE" in output
    assert re.search(r"edgeml.A +│ 1\.1\.0", output)
    assert re.search(rf"{field.ids()[0]} │ 20..-..-.. ..:.. │ 2 failed", output)
    assert "2 of 2 devices succeeded" in output


def test_status_of_a_canceled_deployment_does_not_say_that_it_goes_on(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    field.devices_say("QUEUED")
    field.deploy("--yes")
    field.greengrass.cancel_deployment(deploymentId=field.ids()[0])
    capsys.readouterr()
    assert field.deploy("status") == 1
    output = capsys.readouterr().out
    assert "was canceled: devices that do not have it do not get it" in output
    assert "goes on" not in output


@pytest.fixture
def fleet(field: Field) -> Iterator[list[str]]:
    """120 devices, more than fit into a page of any list; things come in pages of 50, as from AWS and not from moto."""
    names = [f"press-{number}" for number in range(1, 121)]
    iot = field.cloud.aws.client("iot")
    for name in names[len(DEVICES) :]:
        iot.create_thing(thingName=name)
        iot.add_thing_to_thing_group(thingGroupName=GROUP, thingName=name)

    def pages(request: Request) -> Response | None:
        if request.service != "iot" or not re.fullmatch(r"/thing-groups/[^/]+/things", request.path):
            return None
        start = int(request.query.get("nextToken", 0))
        more = {"nextToken": str(start + 50)} if start + 50 < len(names) else {}
        return Response(json.dumps({"things": names[start : start + 50], **more}).encode())

    with field.answering(pages):
        yield names


def test_all_pages_of_devices_count(field: Field, fleet: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    field.verdicts = {fleet[-1]: "FAILED"}
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert "119 of 120 devices succeeded" in output
    assert re.search(rf"{fleet[-1]} │ FAILED", output)


def test_devices_on_later_pages_that_have_not_got_it_are_missed(
    field: Field, fleet: list[str], executions: list[dict[str, str] | None], capsys: pytest.CaptureFixture[str]
) -> None:
    executions += [dict.fromkeys(fleet[:50], "SUCCEEDED")] * 100
    assert field.deploy("--yes") == 1
    assert "50 of 120 devices succeeded" in capsys.readouterr().out


def test_all_pages_of_deployments_are_read(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.deploy("--yes")
    first = field.ids()[0]
    field.devices_say("FAILED")
    for patch in range(60):
        field.create({"aws.greengrass.Cli": {"componentVersion": f"2.0.{patch}"}})
    field.devices_say("SUCCEEDED")
    start = time.monotonic()
    assert field.deploy("rollback", "--yes") == 0
    assert time.monotonic() - start < 10
    assert f"going back to deployment {first}" in capsys.readouterr().out
    assert field.versions() == {"edgeml.A": "1.0.0"}
