"""scripts/deploy rollback: to which deployment it goes back, and that devices are then as they were under it."""

import json
from typing import Any

import pytest

from deploy_support import DEVICES, Field

DEFAULTS = {"fps": 5, "camera": {"width": 640, "height": 480}}


def release(field: Field, version: str, defaults: dict[str, Any] = DEFAULTS, *arguments: str) -> str:
    """Builds and deploys edgeml.A; the deployment's id."""
    field.build("edgeml.A", version, ComponentConfiguration={"DefaultConfiguration": defaults})
    field.deploy("--yes", *arguments)
    return field.ids()[-1]


def configure(field: Field, **update: Any) -> str:
    field.deploy("--yes", "--config", field.config(A=update))
    return field.ids()[-1]


def test_rollback_brings_back_what_was_before(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    first = release(field, "1.0.0")
    release(field, "1.1.0")
    assert field.versions() == {"edgeml.A": "1.1.0"}
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.components() == {"edgeml.A": {"componentVersion": "1.0.0"}}
    assert f"going back to deployment {first}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "since", "resets"),
    [
        ({}, [{"fps": 500}], ["/fps"]),
        ({}, [{"camera": {"width": 1}}], ["/camera"]),
        ({"fps": 7}, [{"fps": 500}], []),
        ({"camera": {"height": 1}}, [{"camera": {"width": 1}}], ["/camera/width"]),
        ({"camera": {"height": 1}}, [{"camera": "none"}], ["/camera"]),
        ({"camera": "none"}, [{"camera": {"width": 1}}], ["/camera"]),
        ({}, [{"fps": 500}, {"new": {"a": {"b": 1}}}, {"fps": 600}], ["/fps", "/new"]),
        ({"fps": 7}, [{"reset": ["/fps"]}], ["/fps"]),
        ({"fps": 7, "camera": {"width": 2}}, [{"reset": [""]}, {"other": 1}], [""]),
        ({"merge": {"fps": 7}, "reset": ["/camera"]}, [{"camera": {"width": 1}}], ["/camera"]),
        ({"a/b": {"~": 1}}, [{"a/b": {"/": 1}}], ["/a~1b/~1"]),
    ],
)
def test_rollback_takes_back_configuration(
    field: Field, before: dict[str, Any], since: list[dict[str, Any]], resets: list[str]
) -> None:
    release(field, "1.0.0")
    good = configure(field, **before) if before else field.ids()[-1]
    was = field.configuration()
    for update in since:
        configure(field, **update)
        assert field.configuration() != was
    assert field.deploy("rollback", "--yes", "--to", good) == 0
    assert field.configuration() == was
    assert set(field.components()["edgeml.A"].get("configurationUpdate", {}).get("reset", [])) == set(resets)


def test_the_changes_show_what_is_reset(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    release(field, "1.0.0")
    configure(field, fps=7)
    configure(field, fps=500, camera={"width": 1})
    capsys.readouterr()
    assert field.deploy("rollback", "--dry-run") == 0
    output = capsys.readouterr().out
    assert "reset /camera" in output
    assert "/fps = 7 (was 500)" in output
    assert len(field.ids()) == 3


def test_configuration_that_a_deployment_did_not_repeat_comes_back_too(field: Field) -> None:
    """As others make deployments, who do not repeat what earlier ones merged: devices keep it."""
    release(field, "1.0.0")
    fps, width = ({"merge": json.dumps(m)} for m in ({"fps": 7}, {"camera": {"width": 1}}))
    field.create({"edgeml.A": {"componentVersion": "1.0.0", "configurationUpdate": fps}})
    good = field.create({"edgeml.A": {"componentVersion": "1.0.0", "configurationUpdate": width}})
    was = field.configuration()
    reset = {"reset": ["/fps"]}
    field.create({"edgeml.A": {"componentVersion": "1.0.0", "configurationUpdate": reset}})
    assert field.configuration() != was
    assert field.deploy("rollback", "--yes", "--to", good) == 0
    assert field.configuration() == was == {"fps": 7, "camera": {"width": 1, "height": 480}}


def test_each_deployment_since_is_taken_back(field: Field) -> None:
    """As others make them: the last one does not say what those before it merged."""
    release(field, "1.0.0")
    was = field.configuration()
    for merge in ({"fps": 500}, {"camera": {"width": 1}}):
        update = {"merge": json.dumps(merge)}
        field.create({"edgeml.A": {"componentVersion": "1.0.0", "configurationUpdate": update}})
    assert field.configuration() == {"fps": 500, "camera": {"width": 1, "height": 480}}
    assert field.deploy("rollback", "--yes", "--to", field.ids()[0]) == 0
    assert field.configuration() == was


def test_what_a_component_forgot_when_it_was_removed_does_not_come_back(field: Field) -> None:
    release(field, "1.0.0")
    configure(field, fps=7)
    field.create({"aws.greengrass.Cli": {"componentVersion": "2.0.0"}})
    good = release(field, "1.0.0")
    configure(field, camera={"width": 1})
    assert field.deploy("rollback", "--yes", "--to", good) == 0
    assert field.configuration() == DEFAULTS


def test_devices_that_missed_deployments_are_brought_back_as_well(field: Field) -> None:
    release(field, "1.0.0")
    was = field.configuration()
    configure(field, fps=500)
    field.offline = {DEVICES[0]}
    configure(field, camera={"width": 1})
    field.offline = set()
    assert field.deploy("rollback", "--yes", "--to", field.ids()[0]) == 0
    assert [field.configuration(device=device) for device in DEVICES] == [was, was]


def test_the_older_versions_defaults_come_back_where_they_had_been_reset(field: Field) -> None:
    release(field, "1.0.0", {"fps": 5})
    release(field, "2.0.0", {"fps": 50}, "--config", field.config(A={"reset": [""]}))
    assert field.configuration() == {"fps": 50}
    assert field.deploy("rollback", "--yes") == 0
    assert field.configuration() == {"fps": 5}


def test_components_that_came_or_went_since(field: Field) -> None:
    field.build("edgeml.B", "1.0.0")
    assert field.deploy("--yes", "--config", field.config(A={"fps": 1}, B={"b": 1})) == 0
    good, components = field.ids()[-1], field.components()
    assert field.deploy("--yes", "--remove", "edgeml.B") == 0
    field.build("edgeml.C", "1.0.0")
    assert field.deploy("--yes", "--config", field.config(A={"fps": 2}, C={"c": 1}, B={"z": 1})) == 0
    assert field.deploy("rollback", "--yes", "--to", good) == 0
    expected = json.loads(json.dumps(components))
    expected["edgeml.B"]["configurationUpdate"]["reset"] = ["/z"]
    assert field.components() == expected
    assert [field.configuration(name) for name in ("edgeml.A", "edgeml.B", "edgeml.C")] == [{"fps": 1}, {"b": 1}, {}]


def test_settings_come_back_too(field: Field) -> None:
    field.create({"aws.greengrass.Cli": {"componentVersion": "2.0.0"}}, deploymentName="one", tags={"a": "1"})
    field.create({"aws.greengrass.Cli": {"componentVersion": "2.1.0"}}, deploymentName="two")
    assert field.deploy("rollback", "--yes") == 0
    latest = field.greengrass.get_deployment(deploymentId=field.ids()[-1])
    assert (latest["deploymentName"], latest["tags"]) == ("one", {"a": "1"})


def test_rollback_passes_over_deployments_that_failed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    release(field, "1.0.0")
    field.devices_say("FAILED")
    release(field, "1.1.0")
    field.devices_say("SUCCEEDED")
    field.verdicts[DEVICES[1]] = "TIMED_OUT"
    release(field, "1.2.0")
    release(field, "1.3.0")
    field.devices_say("SUCCEEDED")
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert "(2 succeeded)" in capsys.readouterr().out


@pytest.mark.parametrize("superseded", ["INACTIVE", "CANCELED"])  # AWS documents the one, its guide says the other
def test_rollback_goes_by_the_devices_not_by_the_status(field: Field, superseded: str) -> None:
    release(field, "1.0.0")
    release(field, "1.1.0")
    field.cloud.greengrass.deployments[0].status = superseded
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}


def test_a_deployment_that_hardly_any_device_took_is_not_gone_back_to(field: Field) -> None:
    release(field, "1.0.0")
    field.verdicts = dict.fromkeys(DEVICES, "QUEUED")
    release(field, "1.1.0")
    field.devices_say("SUCCEEDED")
    release(field, "1.2.0")
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}


def test_a_second_rollback_goes_on_and_not_back_to_the_bad_one(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        release(field, version)
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.1.0"}
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.deploy("rollback", "--yes") == 1
    assert "those in between were gone back from" in capsys.readouterr().err
    assert field.versions() == {"edgeml.A": "1.0.0"}


def test_what_was_given_up_stays_so_when_more_is_deployed(field: Field) -> None:
    release(field, "1.0.0")
    release(field, "1.1.0")
    configure(field, fps=500)
    field.verdicts[DEVICES[0]] = "FAILED"
    assert field.deploy("rollback", "--yes") == 1  # from fps = 500 to what 1.1.0 had, where one device fails
    field.devices_say("SUCCEEDED")
    release(field, "1.2.0")
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.configuration() == DEFAULTS


def test_a_deployment_can_be_named_even_one_that_failed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    release(field, "1.0.0")
    field.devices_say("FAILED")
    failed = release(field, "1.1.0")
    field.devices_say("SUCCEEDED")
    release(field, "1.2.0")
    assert field.deploy("rollback", "--yes", "--to", failed) == 0
    captured = capsys.readouterr()
    assert field.versions() == {"edgeml.A": "1.1.0"}
    assert f"{failed} of 20" in captured.out
    assert "(2 failed)" in captured.out
    assert "did not succeed on its devices" in captured.err


@pytest.mark.parametrize("deployments", [0, 1])
def test_where_there_is_nothing_to_go_back_to_it_says_so(
    field: Field, capsys: pytest.CaptureFixture[str], deployments: int
) -> None:
    for version in range(deployments):
        release(field, f"1.{version}.0")
    assert field.deploy("rollback", "--yes") == 1
    error = capsys.readouterr().err
    assert "presses has nothing to go back to" in error
    assert ("is its first deployment" if deployments else "nothing has been deployed") in error


def test_where_no_deployment_succeeded_they_are_listed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.devices_say("FAILED")
    failed = [release(field, version) for version in ("1.0.0", "1.1.0", "1.2.0")]
    assert field.deploy("rollback", "--yes") == 1
    error = capsys.readouterr().err
    assert "none of these succeeded on its devices" in error
    assert [failed[0] in error, failed[1] in error, failed[2] in error] == [True, True, False]
    assert "2 failed" in error
    assert "--to ID" in error
    assert field.versions() == {"edgeml.A": "1.2.0"}


def test_an_id_that_is_no_deployment_of_the_group_is_refused(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    release(field, "1.0.0")
    release(field, "1.1.0")
    assert field.deploy("rollback", "--yes", "--to", "nonsense") == 2
    assert "--to nonsense is none of the last 2 deployments of presses" in capsys.readouterr().err


def test_going_back_to_where_one_is_changes_nothing(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    first = release(field, "1.0.0")
    configure(field, fps=500)
    assert field.deploy("rollback", "--yes", "--to", first) == 0
    assert field.deploy("rollback", "--yes", "--to", first) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert len(field.ids()) == 3
