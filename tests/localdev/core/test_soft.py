"""SOFT dependencies, which ours all are: credentials come, and nothing that happens to what is depended on matters."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localdev.core import DeploymentError, LocalCore, Profile
from support import eventually

TES = "aws.greengrass.TokenExchangeService"


@pytest.fixture(params=list(Profile))
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core", profile=request.param) as running:
        yield running


def soft(name: str) -> dict[str, Any]:
    return {name: {"VersionRequirement": "*", "DependencyType": "SOFT"}}


def test_credentials_come_to_who_depends_softly(either: LocalCore, packages: Any) -> None:
    packages.add("test.B", {"run": "echo uri=$AWS_CONTAINER_CREDENTIALS_FULL_URI; exec sleep 60"}, depends=soft(TES))
    packages.deploy(either, "test.B")
    eventually(lambda: "uri=http://localhost" in either.log("test.B"), what="address")


def test_the_end_of_the_dependency_ends_nothing(either: LocalCore, packages: Any) -> None:
    """The component that depends HARD shows that the core has noticed."""
    packages.add("test.A", {"run": "while [ ! -e ../../end ]; do sleep 0.05; done"})
    packages.add("test.Soft", depends=soft("test.A"))
    packages.add("test.Hard", depends={"test.A": {"VersionRequirement": "*", "DependencyType": "HARD"}})
    packages.deploy(either, "test.Soft", "test.Hard")
    before = either.pid("test.Soft"), either.pid("test.Hard")
    either.restart_component("test.A")
    eventually(lambda: either.pid("test.Hard") not in (None, before[1]), what="restart of the hard one")
    (either.root / "end").touch()
    either.wait_state("test.A", "FINISHED")
    assert either.state("test.Soft") == "RUNNING"
    assert either.pid("test.Soft") == before[0]


def test_a_dependency_that_is_broken_holds_nothing_up(either: LocalCore, packages: Any) -> None:
    packages.add("test.A", {"run": "exit 1"})
    packages.add("test.B", depends=soft("test.A"))
    with contextlib.suppress(DeploymentError):  # the deployment fails if it sees A broken in time
        packages.deploy(either, "test.B")
    either.wait_state("test.A", "BROKEN")
    assert either.state("test.B") == "RUNNING"
