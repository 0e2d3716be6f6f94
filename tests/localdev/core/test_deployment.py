"""Deployments: versions, configuration, variables, artifacts, removal, and the services of built-in components."""

import queue
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import NAME, Connect, printed
from localdev.core import CoreError, DeploymentError, LocalCore


class TestConfiguration:
    def test_defaults_then_merge_then_a_new_version(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME, config={"kept": 1, "deep": {"a": 1, "b": [1, 2]}})
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"deep": {"b": [3]}, "own": None}}})
        assert core.configuration(NAME) == {"kept": 1, "deep": {"a": 1, "b": [3]}, "own": None}
        packages.add(NAME, version="1.1.0", config={"kept": 2, "deep": {"a": 2, "c": 2}, "new": 2})
        packages.deploy(core, NAME, version="1.1.0", update_config={NAME: {"RESET": ["/deep/a"]}})
        expected = {"kept": 1, "deep": {"a": 2, "b": [3], "c": 2}, "own": None, "new": 2}
        assert core.configuration(NAME) == expected

    def test_a_change_of_configuration_restarts_only_who_uses_it_in_a_script(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add("test.A", config={"n": 1})
        packages.add("test.B", {"run": "echo {configuration:/n}; exec sleep 60"}, config={"n": 1})
        packages.deploy(core, "test.A", "test.B")
        before = (core.pid("test.A"), core.pid("test.B"))
        change = {"MERGE": {"n": 2}}
        packages.deploy(core, "test.A", update_config={"test.A": change, "test.B": change})
        assert core.pid("test.A") == before[0]
        assert core.pid("test.B") != before[1]
        printed(core, "2", "test.B")

    def test_a_running_component_hears_of_the_change(self, core: LocalCore, packages: Any, connect_to: Connect) -> None:
        packages.add(NAME, config={"n": 1, "m": 1})
        packages.deploy(core, NAME)
        events: queue.Queue[Any] = queue.Queue()
        connect_to(core, "test.Watcher").subscribe_to_configuration_update(
            component_name=NAME, key_path=[], on_stream_event=events.put
        )
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 2}}})
        assert events.get(timeout=5).configuration_update_event.key_path == ["n"]

    def test_policies_follow_the_configuration(self, core: LocalCore, packages: Any, connect_to: Connect) -> None:
        policy = {"aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["a"]}}}
        packages.add(NAME, config={"accessControl": policy})
        packages.deploy(core, NAME)
        message = model.PublishMessage(binary_message=model.BinaryMessage(message=b""))
        client = connect_to(core, NAME)
        client.publish_to_topic(topic="a", publish_message=message)
        with pytest.raises(model.UnauthorizedError):
            client.publish_to_topic(topic="b", publish_message=message)
        policy["aws.greengrass.ipc.pubsub"]["p"]["resources"] = ["b"]
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"accessControl": policy}}})
        client.publish_to_topic(topic="b", publish_message=message)

    def test_a_component_may_reject_its_new_configuration(
        self, core: LocalCore, packages: Any, connect_to: Connect
    ) -> None:
        packages.add(NAME, config={"n": 1})
        packages.deploy(core, NAME)
        client = connect_to(core, NAME)

        def judge(event: Any) -> None:
            proposed = event.validate_configuration_update_event
            status = "ACCEPTED" if proposed.configuration["n"] < 10 else "REJECTED"
            client.send_configuration_validity_report_async(
                configuration_validity_report=model.ConfigurationValidityReport(
                    status=status, deployment_id=proposed.deployment_id, message="n is too large"
                )
            )

        client.subscribe_to_validate_configuration_updates(on_stream_event=judge)
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 9}}})
        with pytest.raises(DeploymentError, match=r"\{ name = test\.Component, message = n is too large \}"):
            packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 10}}})
        assert core.configuration(NAME)["n"] == 9
        with pytest.raises(model.InvalidArgumentsError):
            client.send_configuration_validity_report(
                configuration_validity_report=model.ConfigurationValidityReport(status="ACCEPTED", deployment_id="x")
            )

    def test_configuration_of_a_component_that_is_not_deployed(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME)
        with pytest.raises(DeploymentError, match=r"test\.Absent"):
            packages.deploy(core, NAME, update_config={"test.Absent": {"MERGE": {}}})


class TestVersions:
    def test_the_highest_version_that_satisfies_everyone(self, core: LocalCore, packages: Any) -> None:
        for version in ("1.0.0", "1.1.0", "1.2.0", "2.0.0"):
            packages.add("test.Base", {"run": f"echo base {version}; exec sleep 60"}, version=version)
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "^1.0.0"}})
        packages.add("test.B", depends={"test.Base": {"VersionRequirement": "<1.2.0"}})
        packages.deploy(core, "test.A", "test.B")
        printed(core, "base 1.1.0", "test.Base")

    def test_a_running_version_that_still_fits_is_kept(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.A")
        before = core.pid("test.Base")
        packages.add("test.Base", version="1.1.0")
        packages.add("test.B", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.B")
        assert core.pid("test.Base") == before

    @pytest.mark.parametrize(
        ("requirement", "text"),
        [("^3.0.0", "no version of test.Base satisfies"), ("banana", "is no version range")],
    )
    def test_versions_that_cannot_be_had(self, core: LocalCore, packages: Any, requirement: str, text: str) -> None:
        packages.add("test.Base")
        packages.add(NAME, depends={"test.Base": {"VersionRequirement": requirement}})
        with pytest.raises(DeploymentError, match=text):
            packages.deploy(core, NAME)

    def test_a_circle_of_dependencies(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.A", depends={"test.B": {"VersionRequirement": "*"}})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*"}})
        with pytest.raises(DeploymentError, match="circle"):
            packages.deploy(core, "test.A")

    def test_an_unknown_component(self, core: LocalCore) -> None:
        with pytest.raises(DeploymentError, match=r"no version of test\.Absent satisfies =1\.0\.0"):
            core.deploy(merge={"test.Absent": "1.0.0"})

    def test_aws_components_are_provided(self, core: LocalCore, packages: Any) -> None:
        depends = {
            "aws.greengrass.Nucleus": {"VersionRequirement": ">=2.6.0 <3.0.0"},
            "aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0"},
        }
        packages.add(NAME, depends=depends)
        packages.deploy(core, NAME)
        assert core.state("aws.greengrass.TokenExchangeService") == "RUNNING"


class TestRemoval:
    def test_a_removed_component_is_stopped_and_forgotten_with_what_only_it_needed(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}}, config={"n": 1})
        packages.add("test.B")
        packages.deploy(core, "test.A", "test.B")
        core.deploy(remove=["test.A"])
        assert {"test.A", "test.Base"}.isdisjoint(core.names())
        assert core.state("test.B") == "RUNNING"
        assert core.configuration("test.A") == {}

    def test_what_another_component_needs_stays(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.A", "test.Base")
        before = core.pid("test.Base")
        core.deploy(remove=["test.Base"])
        assert core.pid("test.Base") == before


class TestVariables:
    def test_every_variable(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base", config={"port": 8883})
        script = "; ".join(
            f"echo '{name}='{variable}"
            for name, variable in {
                "artifacts": "{artifacts:path}",
                "unpacked": "{artifacts:decompressedPath}",
                "work": "{work:path}",
                "root": "{kernel:rootPath}",
                "thing": "{iot:thingName}",
                "scalar": "{configuration:/deep/true}",
                "object": "'{configuration:/deep}'",
                "other": "{test.Base:configuration:/port}",
                "kept": "'{configuration:/absent} ${HOME:+x} {\"a\":1} {unknown:x}'",
            }.items()
        )
        packages.add(
            NAME,
            {"run": f"{script}; exec sleep 60"},
            config={"deep": {"true": True, "a/b": "t"}},
            depends={"test.Base": {"VersionRequirement": "*"}},
        )
        packages.deploy(core, NAME)
        root = core.root
        for line in (
            f"artifacts={root}/packages/artifacts/{NAME}/1.0.0",
            f"unpacked={root}/packages/artifacts-unarchived/{NAME}/1.0.0",
            f"work={root}/work/{NAME}",
            f"root={root}",
            "thing=laptop",
            "scalar=true",
            'object={"a/b":"t","true":true}',
            "other=8883",
            'kept={configuration:/absent} ${HOME:+x} {"a":1} {unknown:x}',
        ):
            printed(core, line)
        assert "{configuration:/absent} stands for nothing" in core.log("greengrass")

    def test_lite_paths_end_in_a_slash_and_values_are_escaped(self, lite: LocalCore, packages: Any) -> None:
        run = {"Script": 'echo {work:path} "{configuration:/quoted}" "$SET"; exec sleep 60'}
        run["Setenv"] = {"SET": "{configuration:/quoted}"}  # type: ignore[assignment]
        packages.add(NAME, {"run": run}, config={"quoted": 'a "b" $HOME'})
        packages.deploy(lite, NAME)
        printed(lite, f'{lite.root}/work/{NAME}/ a "b" $HOME a "b" $HOME')

    def test_lite_refuses_a_value_that_is_not_there(self, lite: LocalCore, packages: Any) -> None:
        packages.add(NAME, {"run": "echo {configuration:/n}"}, config={"n": 1})
        packages.deploy(lite, NAME)
        packages.add(NAME, {"run": "echo {configuration:/m}"}, config={"n": 1})
        with pytest.raises(DeploymentError, match="not in DefaultConfiguration"):
            packages.deploy(lite, NAME)


def test_one_core_per_root(core: LocalCore) -> None:
    with pytest.raises(CoreError, match="already runs"), LocalCore(core.root):
        pass


def test_a_root_too_deep_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 30)
    root.mkdir()
    with LocalCore(root) as core:
        assert len(str(core.socket)) < 108
        folder = core.socket.parent
        assert core.add_principal("x", {})
    assert not folder.exists()
