"""scripts/deploy beside others: who deploys at the same time, and deployments that somebody canceled."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from deploy_support import TARGET, Field
from localdev.cloud.greengrass import Deployment

CLI = {"aws.greengrass.Cli": {"componentVersion": "2.0.0"}}


def test_somebody_elses_deployment_while_one_is_asked_is_not_overwritten(field: Field) -> None:
    command = field.command()
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as asked:
        assert asked.stdout is not None and asked.stderr is not None
        while "└" not in (line := asked.stdout.readline()):  # the end of the table; the question has no end of line
            assert line, asked.stderr.read()
        field.create(CLI)
        _, errors = asked.communicate("y\n", timeout=60)
    assert asked.returncode == 1
    assert "someone else has deployed to this group meanwhile" in errors
    assert field.components() == CLI


def interfering(field: Field, *theirs: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Right after each of our next deployments someone else makes one, with `theirs` of what ours replaced."""
    left, before = list(theirs), [field.components() if field.ids() else {}]

    def made(_: Deployment) -> None:
        if left:
            components = left.pop(0)(before[-1])
            field.cloud.greengrass.on_deployment.remove(made)
            field.cloud.greengrass.create_deployment({"targetArn": TARGET, "components": components})
            field.cloud.greengrass.on_deployment.append(made)
            before.append(components)

    field.cloud.greengrass.on_deployment.append(made)


def test_somebody_elses_deployment_right_after_ours_is_merged(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--yes", "--component", "edgeml.A") == 0
    field.build("edgeml.A", "1.1.0")
    interfering(field, lambda before: before | CLI)
    assert field.deploy("--yes", "--config", field.config(A={"fps": 5})) == 0
    update = {"merge": '{"fps": 5}'}
    assert field.components() == CLI | {"edgeml.A": {"componentVersion": "1.1.0", "configurationUpdate": update}}
    error = capsys.readouterr().err
    assert f"someone else made deployment {field.ids()[-2]}" in error
    assert "merging into that" in error
    assert len(field.ids()) == 4


def test_what_somebody_else_deployed_with_all_of_ours_is_left_as_it_is(field: Field) -> None:
    assert field.deploy("--yes") == 0
    ours = {"edgeml.A": {"componentVersion": "1.1.0"}}
    field.build("edgeml.A", "1.1.0")
    interfering(field, lambda _: CLI | ours)
    assert field.deploy("--yes") == 0
    assert field.components() == CLI | ours
    assert len(field.ids()) == 3


def test_what_somebody_else_removed_as_well_is_no_error(field: Field) -> None:
    field.create(CLI | {"edgeml.A": {"componentVersion": "1.0.0"}, "edgeml.B": {"componentVersion": "1.0.0"}})
    interfering(field, lambda _: {"edgeml.B": {"componentVersion": "1.0.0"}})
    assert field.deploy("--yes", "--remove", "edgeml.A", "--remove", "aws.greengrass.Cli") == 0
    assert field.versions() == {"edgeml.B": "1.0.0"}


def test_what_cannot_be_merged_is_said(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.create(CLI | {"edgeml.B": {"componentVersion": "1.0.0"}})
    interfering(field, lambda _: CLI)
    assert field.deploy("--yes", "--component", "edgeml.A", "--config", field.config(B={"b": 1})) == 1
    error = capsys.readouterr().err
    assert f"{field.ids()[1]} cannot be merged into it: --config: edgeml.B is not in the deployment" in error
    assert "./scripts/deploy status" in error


def test_it_gives_up_when_others_keep_deploying(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.create(CLI)
    interfering(field, *[lambda _, n=n: {"aws.greengrass.Cli": {"componentVersion": f"2.{n}.0"}} for n in range(9)])
    assert field.deploy("--yes") == 1
    assert "others made deployments each of 3 times" in capsys.readouterr().err
    assert len(field.ids()) == 1 + 2 * 3


def test_a_rollback_beside_somebody_elses_deployment_is_said(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("2.0.0", "2.1.0"):
        field.create({"aws.greengrass.Cli": {"componentVersion": version}})
    interfering(field, lambda before: before | {"aws.greengrass.Nucleus": {"componentVersion": "2.12.0"}})
    assert field.deploy("rollback", "--yes") == 1
    error = capsys.readouterr().err
    assert f"someone else made deployment {field.ids()[-1]}" in error
    assert f"devices follow the newer of the two, {field.ids()[-1]}" in error


def canceled(field: Field) -> str:
    """edgeml.A 1.0.0 is deployed everywhere, then 1.1.0 with fps 500 is canceled before a device gets it."""
    assert field.deploy("--yes") == 0
    field.build("edgeml.A", "1.1.0")
    field.devices_say("QUEUED")
    field.deploy("--yes", "--config", field.config(A={"fps": 500}))
    field.devices_say("SUCCEEDED")
    field.greengrass.cancel_deployment(deploymentId=field.ids()[-1])
    return field.ids()[-1]


def test_what_a_canceled_deployment_would_bring_back_is_shown(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    bad = canceled(field)
    field.build("edgeml.B", "1.0.0")
    capsys.readouterr()
    assert field.deploy("--dry-run", "--component", "edgeml.B") == 0
    captured = capsys.readouterr()
    assert f"deployment {bad} of 20" in captured.err
    assert "was canceled" in captured.err
    assert "./scripts/deploy rollback" in captured.err
    assert "/fps = 500" in captured.out
    rows = [line.split() for line in captured.out.splitlines() if "edgeml." in line]
    assert ["│", "edgeml.A", "│", "1.0.0", "│", "1.1.0"] in [row[:6] for row in rows]


def test_a_canceled_deployment_can_be_made_again(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    canceled(field)
    capsys.readouterr()
    assert field.deploy("--yes") == 0
    assert "nothing to change" not in capsys.readouterr().out
    assert field.configuration() == {"fps": 500}
    assert len(field.ids()) == 3


def test_rollback_of_a_canceled_deployment(field: Field) -> None:
    canceled(field)
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.configuration() == {}
