"""Rules of real cores that show over time: restarts of the core, failed deployments, verdicts on configuration."""

import time
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import NAME, OTHER, Connect, outcome, starts
from localdev.core import DeploymentError, LocalCore
from support import eventually


class TestFailedDeployments:
    """FAILED_NO_STATE_CHANGE, FAILED_ROLLBACK_NOT_REQUESTED, FAILED_ROLLBACK_COMPLETE."""

    @pytest.mark.parametrize("case", ["version", "folder", "recipe", "configuration"])
    def test_nothing_changes_if_it_fails_before(
        self, core: LocalCore, packages: Any, connect_to: Connect, case: str, tmp_path: Path
    ) -> None:
        packages.add(NAME)
        packages.deploy(core, NAME)
        pid = core.pid(NAME)
        bad = tmp_path / "bad"
        bad.mkdir()
        (bad / "x.yaml").write_text("RecipeFormatVersion: '2020-01-25'\n")
        requests: dict[str, dict[str, Any]] = {
            "version": {"merge": {NAME: "9.9.9"}},
            "folder": {"recipe_dirs": [tmp_path / "nowhere"]},
            "recipe": {"recipe_dirs": [bad]},
            "configuration": {"update_config": {"test.Absent": {"MERGE": {}}}},
        }
        with pytest.raises(DeploymentError):
            core.deploy(**requests[case])
        status = outcome(core, connect_to(core))
        assert status.deployment_status_details.detailed_deployment_status == "FAILED_NO_STATE_CHANGE"
        assert status.deployment_status_details.deployment_error_stack[0] == "DEPLOYMENT_FAILURE"
        assert core.pid(NAME) == pid

    @pytest.mark.parametrize("rollback", [True, False])
    def test_a_failing_version_goes_back_where_that_is_asked_for(
        self, core: LocalCore, packages: Any, connect_to: Connect, rollback: bool
    ) -> None:
        packages.add(NAME, config={"n": 1})
        packages.deploy(core, NAME)
        packages.add(NAME, {"install": "exit 1"}, version="1.1.0", config={"m": 1})
        change = {NAME: {"MERGE": {"n": 2}}}
        with pytest.raises(DeploymentError, match="is BROKEN"):
            packages.deploy(core, NAME, version="1.1.0", update_config=change, rollback=rollback)
        detailed = outcome(core, connect_to(core)).deployment_status_details.detailed_deployment_status
        expected = "FAILED_ROLLBACK_COMPLETE" if rollback else "FAILED_ROLLBACK_NOT_REQUESTED"
        assert detailed == expected
        assert core.state(NAME) == ("RUNNING" if rollback else "BROKEN")
        assert core.configuration(NAME) == ({"n": 1} if rollback else {"n": 2.0, "m": 1})

    def test_exit_78_fails_the_deployment_that_looks_again(self, tmp_path: Path, packages: Any) -> None:
        """A device looks again after a second; Nucleus Lite does not, and says SUCCEEDED."""
        packages.add(NAME, {"run": "sleep 0.1; exit 78"})
        with (
            LocalCore(tmp_path / "java", settle_seconds=5) as core,
            pytest.raises(DeploymentError, match=r"BROKEN[\s\S]*exitCode=78"),
        ):
            packages.deploy(core, NAME)
        with LocalCore(tmp_path / "lite", profile="lite", settle_seconds=5) as core:
            packages.deploy(core, NAME)

    def test_a_broken_component_is_tried_again_by_a_change_of_its_configuration_alone(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add(NAME, {"run": "exit 1"})
        packages.add(OTHER)
        packages.deploy(core, NAME)
        core.wait_state(NAME, "BROKEN")
        before = starts(core)
        packages.deploy(core, OTHER)
        packages.deploy(core, NAME)
        assert (core.state(NAME), starts(core)) == ("BROKEN", before)
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 1}}})
        assert starts(core) > before

    def test_lite_tries_it_again_with_any_deployment(
        self, lite: LocalCore, packages: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("localdev.core.lifecycle.LITE_RESTART_SECONDS", 0.01)
        packages.add(NAME, {"run": "exit 1"})
        packages.add(OTHER)
        packages.deploy(lite, NAME)
        lite.wait_state(NAME, "BROKEN")
        before = starts(lite)
        packages.deploy(lite, OTHER)
        assert starts(lite) > before

    def test_lite_counts_restarts_by_hand(self, lite: LocalCore, packages: Any) -> None:
        packages.add(NAME)
        packages.deploy(lite, NAME)
        for _ in range(2):
            lite.restart_component(NAME)
        with pytest.raises(TimeoutError, match="is BROKEN"):
            lite.restart_component(NAME, timeout=0.5)
        assert "systemd's limit" in lite.log(NAME)


class TestVerdicts:
    """SubscribeToValidateConfigurationUpdates."""

    def judge(self, client: Any, verdict: str) -> list[Any]:
        seen = []

        def answer(event: Any) -> None:
            proposed = event.validate_configuration_update_event
            seen.append(proposed.configuration)
            report = model.ConfigurationValidityReport(
                status=verdict, deployment_id=proposed.deployment_id, message="no"
            )
            if verdict != "silence":
                client.send_configuration_validity_report_async(configuration_validity_report=report)

        client.subscribe_to_validate_configuration_updates(on_stream_event=answer)
        return seen

    @pytest.fixture
    def impatient(self, tmp_path: Path, packages: Any) -> Any:
        packages.add(NAME, config={"n": 1})
        packages.add(OTHER, config={"n": 1})
        with LocalCore(tmp_path / "core", validation_seconds=0.3) as core:
            packages.deploy(core, NAME, OTHER)
            yield core

    @pytest.mark.parametrize(
        ("verdict", "error"),
        [
            ("REJECTED", "Components reported that their to-be-deployed configuration is invalid { name = "),
            ("silence", "Error while waiting for validation report for one or more components:null"),
        ],
    )
    def test_rejection_and_silence_change_nothing(
        self, impatient: LocalCore, connect_to: Connect, verdict: str, error: str
    ) -> None:
        client = connect_to(impatient, NAME)
        seen = self.judge(client, verdict)
        with pytest.raises(DeploymentError) as failed:
            impatient.deploy(update_config={NAME: {"MERGE": {"n": 2}}})
        assert error in str(failed.value)
        assert seen == [{"n": 2.0}]
        assert isinstance(seen[0]["n"], float)
        assert impatient.configuration(NAME) == {"n": 1}
        details = outcome(impatient, connect_to(impatient)).deployment_status_details
        assert details.detailed_deployment_status == "FAILED_NO_STATE_CHANGE"
        assert details.deployment_error_stack[-1] == "COMPONENT_CONFIGURATION_NOT_VALID"

    def test_one_that_asks_beside_one_that_does_not_fails_every_change_of_both(
        self, impatient: LocalCore, connect_to: Connect
    ) -> None:
        """A fault upstream, seen on a real nucleus: it waits for the report of the one that never asked."""
        self.judge(connect_to(impatient, NAME), "ACCEPTED")
        change = {"MERGE": {"n": 2}}
        impatient.deploy(update_config={NAME: change})
        impatient.deploy(update_config={OTHER: change})
        with pytest.raises(DeploymentError, match="Error while waiting"):
            impatient.deploy(update_config={NAME: {"MERGE": {"n": 3}}, OTHER: {"MERGE": {"n": 3}}})


def test_null_over_an_object_is_warned_of(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, config={"pipelines": {"faces": {"n": 1}}, "leaf": 1})
    packages.deploy(core, NAME)
    packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"leaf": None}}})
    assert "null-over-object" not in core.log("greengrass")
    packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"pipelines": {"faces": None}}}})
    assert core.configuration(NAME)["pipelines"] == {"faces": None}
    assert "in place of the object /pipelines/faces" in core.log("greengrass")


@pytest.mark.parametrize("given", [{"deep": None}, {"deep": 5}, {"leaf": {"x": 1}}])
def test_lite_fails_a_deployment_that_makes_a_value_of_an_object_or_the_other_way_round(
    lite: LocalCore, packages: Any, given: dict[str, Any]
) -> None:
    packages.add(NAME, config={"deep": {"x": "1"}, "leaf": "1"})
    packages.deploy(lite, NAME)
    with pytest.raises(DeploymentError, match="Lite cannot make"):
        packages.deploy(lite, NAME, update_config={NAME: {"MERGE": given}})
    assert lite.configuration(NAME) == {"deep": {"x": "1"}, "leaf": "1"}


def test_pause_and_resume(core: LocalCore, packages: Any, connect_to: Connect) -> None:
    packages.add(NAME, {"run": "while :; do sleep 0.02; echo x >> beats; done"})
    packages.deploy(core, NAME)
    policy = {"aws.greengrass.ipc.lifecycle": {"p": {"operations": ["*"], "resources": ["*"]}}}
    client = connect_to(core, "test.Pauser", policy)
    beats = core.root / "work" / NAME / "beats"
    with pytest.raises(model.InvalidArgumentsError):
        client.resume_component(component_name=NAME)
    for wrong, error in (
        ("test.Absent", model.ResourceNotFoundError),
        ("aws.greengrass.Cli", model.InvalidArgumentsError),
    ):
        with pytest.raises(error):
            client.pause_component(component_name=wrong)
    with pytest.raises(model.UnauthorizedError):
        connect_to(core, "test.Nobody", {}).pause_component(component_name=NAME)
    client.pause_component(component_name=NAME)
    pid = core.pid(NAME)
    # "D": the shell waits within vfork for a child that was stopped before it was another program.
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TD", what="stopped")
    size = beats.stat().st_size if beats.exists() else 0
    client.resume_component(component_name=NAME)
    eventually(lambda: beats.exists() and beats.stat().st_size > size, what="beats")
    client.pause_component(component_name=NAME)
    core.stop_component(NAME)
    assert core.state(NAME) == "FINISHED"


def test_a_deployment_waits_for_the_next_poll(tmp_path: Path, packages: Any) -> None:
    packages.add(NAME)
    with LocalCore(tmp_path / "core", poll_seconds=0.5) as core:
        begun = time.monotonic()
        packages.deploy(core, NAME)
        packages.deploy(core, NAME)
        assert time.monotonic() - begun >= 0.5


def test_a_daemon_and_a_second_session_end_with_their_component(core: LocalCore, packages: Any) -> None:
    script = "(setsid sh -c 'echo $$ > daemon; exec sleep 61' &) ; exec sleep 60"
    packages.add(NAME, {"run": script})
    packages.deploy(core, NAME)
    file = core.root / "work" / NAME / "daemon"
    daemon = int(eventually(lambda: file.read_text() if file.exists() else "", what="a daemon"))
    core.stop_component(NAME)
    assert _gone(daemon)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
