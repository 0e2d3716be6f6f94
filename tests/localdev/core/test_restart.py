"""What a core that starts anew in its root finds there, and what it does with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import NAME, OTHER, Connect
from localdev.core import LocalCore
from parity_support import Probe, updated


class TestOverARestart:
    """What is deployed is there again."""

    @pytest.mark.parametrize("profile", ["java", "lite"])
    def test_components_configuration_and_policies(self, tmp_path: Path, packages: Any, profile: str) -> None:
        policy = {"aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["a"]}}}
        packages.add(NAME, config={"n": 1, "accessControl": policy}, depends={OTHER: {"VersionRequirement": "*"}})
        packages.add(OTHER, version="2.0.0")
        with LocalCore(tmp_path / "core", profile=profile) as core:
            packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"deep": {"x": 5, "none": None}}}})
            before = core.configuration(NAME)
        with LocalCore(tmp_path / "core", profile=profile) as core:
            core.wait_state(NAME, "RUNNING")
            core.wait_state(OTHER, "RUNNING")
            assert json.dumps(core.configuration(NAME)) == json.dumps(before)
            core.deploy(remove=[NAME])
            assert OTHER not in core.names()
        with LocalCore(tmp_path / "core", profile=profile) as core:
            assert {NAME, OTHER}.isdisjoint(core.names())

    def test_what_a_component_wrote_and_times_of_leaves(
        self, tmp_path: Path, packages: Any, connect_to: Connect
    ) -> None:
        packages.add(NAME)
        with LocalCore(tmp_path / "core") as core:
            packages.deploy(core, NAME)
            probe = Probe(str(core.socket), core.token(NAME), "")
            updated(probe, ["own"], {"written": 1})
            probe.close()
        with LocalCore(tmp_path / "core") as core:
            core.wait_state(NAME, "RUNNING")
            probe = Probe(str(core.socket), core.token(NAME), "")
            with pytest.raises(model.FailedUpdateConditionCheckError):
                updated(probe, ["own"], {"written": 2}, -3600)
            probe.close()
            assert core.configuration(NAME) == {"own": {"written": 1.0}}

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99, "profile": "java"}'])
    def test_a_state_that_cannot_be_read_starts_nothing_and_says_so(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "core" / "config").mkdir(parents=True)
        (tmp_path / "core" / "config" / "state.json").write_text(content)
        with LocalCore(tmp_path / "core") as core:
            assert "what was deployed before could not be started" in core.log("greengrass")

    def test_a_component_whose_recipe_is_gone_keeps_no_core_from_starting(self, tmp_path: Path, packages: Any) -> None:
        packages.add(NAME)
        with LocalCore(tmp_path / "core") as core:
            packages.deploy(core, NAME)
        next((tmp_path / "core" / "packages" / "recipes").iterdir()).unlink()
        with LocalCore(tmp_path / "core") as core:
            assert f"no version of {NAME}" in core.log("greengrass")

    @pytest.mark.parametrize(("timeout", "again"), [(60, 1), ("60", 0), (None, 0)], ids=["number", "text", "none"])
    def test_the_first_deployment_reinstalls_whose_install_timeout_is_a_number(
        self, tmp_path: Path, packages: Any, timeout: Any, again: int
    ) -> None:
        install = {"Script": "echo x >> installs"} | ({"Timeout": timeout} if timeout else {})
        packages.add(NAME, {"install": install, "run": "exec sleep 60"})
        packages.add(OTHER)
        with LocalCore(tmp_path / "core") as core:
            packages.deploy(core, NAME)
        with LocalCore(tmp_path / "core") as core:
            core.wait_state(NAME, "RUNNING")
            for _ in range(2):
                packages.deploy(core, OTHER)
            installs = (core.root / "work" / NAME / "installs").read_text().count("x")
            assert installs == 2 + again  # at each start of the core, and by the rule
            assert core.log("greengrass").count("lifecycle.install.Timeout") == again
