"""Components that need each other: who starts, waits, restarts and stops for whom."""

from pathlib import Path
from typing import Any

import pytest

from localdev.core import DeploymentError, LocalCore
from support import eventually


class TestDependencies:
    """B depends on A."""

    @pytest.fixture
    def pair(self, packages: Any) -> Any:
        packages.add("test.A", {"startup": "sleep 0.2; echo A up >> ../order", "shutdown": "echo A down >> ../order"})
        packages.add(
            "test.B",
            {"run": "echo B up >> ../order; exec sleep 60", "shutdown": "sleep 0.3; echo B down >> ../order"},
            depends={"test.A": {"VersionRequirement": "^1.0.0", "DependencyType": "HARD"}},
        )
        return packages

    def test_start_in_order_and_stop_in_reverse(self, pair: Any, tmp_path: Path) -> None:
        with LocalCore(tmp_path / "core") as core:
            pair.deploy(core, "test.B")
            order = core.root / "work" / "order"
            eventually(lambda: order.exists() and order.read_text().count("up") == 2, what="both up")
        assert order.read_text().splitlines() == ["A up", "B up", "B down", "A down"]

    def test_a_depender_restarts_with_its_dependency(self, pair: Any, core: LocalCore) -> None:
        pair.deploy(core, "test.B")
        before = core.pid("test.B")
        core.restart_component("test.A")
        eventually(lambda: core.pid("test.B") not in (None, before), what="B restarted")

    def test_a_soft_dependency_holds_nothing_up(self, packages: Any, core: LocalCore) -> None:
        packages.add("test.A", {"startup": "exec sleep 60"})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*", "DependencyType": "SOFT"}})
        with pytest.raises(DeploymentError, match=r"'test.A': 'STARTING', 'test.B': 'RUNNING'"):
            packages.deploy(core, "test.B", timeout=0.5)

    def test_a_deployment_that_takes_too_long_does_not_hold_up_the_next(self, packages: Any, core: LocalCore) -> None:
        packages.add("test.A", {"startup": "exec sleep 60"})
        packages.add("test.B")
        with pytest.raises(DeploymentError, match=r"has not finished in 0\.1 s"):
            packages.deploy(core, "test.A", timeout=0.1)
        core.deploy(merge={"test.B": "1.0.0"}, remove=["test.A"], timeout=5)
        assert core.state("test.B") == "RUNNING"

    def test_what_needs_a_broken_component_names_it_until_a_deployment_changes_it(
        self, packages: Any, core: LocalCore
    ) -> None:
        packages.add("test.A", {"install": "[ -e ../../fixed ]", "run": "exec sleep 60"})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*"}})
        for _ in range(2):
            with pytest.raises(DeploymentError, match=r"test\.A is BROKEN"):
                packages.deploy(core, "test.B")
        (core.root / "fixed").touch()
        packages.deploy(core, "test.B", update_config={"test.A": {"MERGE": {"try": "again"}}})
        assert (core.state("test.A"), core.state("test.B")) == ("RUNNING", "RUNNING")

    def test_a_finished_dependency_is_ready(self, packages: Any, core: LocalCore) -> None:
        packages.add("test.A", {"run": "exit 0"})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.B")
        core.wait_state("test.A", "FINISHED")
        assert core.state("test.B") == "RUNNING"

    def test_lite_stops_what_depends_on_a_component_that_has_exited(self, packages: Any, lite: LocalCore) -> None:
        packages.add("test.A", {"run": "sleep 0.3"})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*", "DependencyType": "HARD"}})
        packages.deploy(lite, "test.B")
        lite.wait_state("test.A", "FINISHED")
        lite.wait_state("test.B", "FINISHED")
