"""The checks of a device as they are put together: what is asked of the core and of the resolver, and what hangs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.errors import IpcError, NotFoundError, RefusedError
from edgeml.health import Health
from edgeml.place import Place
from ipc_support import FakeIpc
from monitor.vitals import device, network
from monitor.vitals.limits import Limits
from monitor.vitals.watch import Watch
from support import eventually

ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 010200C0 0003 0 0 0 00000000\n"
OTHERS = Limits(skip=("clock", "disk", "memory", "temperature", "voltage", "wear"))


class Core(FakeIpc):
    """Knows the configurations `known`; for a name that is not among them it raises `error`, or waits for `release`."""

    def __init__(self, known: dict[str, dict[str, Any]], error: Exception | None = None) -> None:
        super().__init__()
        self.known, self.error = known, error
        self.asked: list[str] = []
        self.release = threading.Event()

    def configuration(self, component: str = "") -> dict[str, Any]:
        self.asked.append(component)
        if component in self.known:
            return self.known[component]
        if self.error is not None:
            raise self.error
        self.release.wait(30)
        return {}


class Device:
    """A device with a default route and `core`."""

    def __init__(self, root: Path, core: Core) -> None:
        (root / "proc" / "net").mkdir(parents=True)
        (root / "proc" / "net" / "route").write_text(ROUTES)
        self.health = Health("edgeml.Monitor", "1")
        self.context = Context(ipc=core, health=self.health, work=root / "work", root=root, thing_name="thing")
        self._watch = Watch(device.checks(self.context, Place(root)), self.health.problems)

    def looked(self) -> tuple[set[str], set[str]]:
        """The vitals that are known after one more look, and the codes of the problems."""
        self._watch.round(OTHERS)
        return set(self._watch.vitals()), {problem.code for problem in self.health.problems.current()}

    def comes_to(self, vitals: set[str], *codes: str) -> None:
        eventually(lambda: self.looked() == (vitals, set(codes)), what=f"{vitals} {codes}")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "LOOKUP_EVERY_S", 0.0)
    monkeypatch.setattr(device, "PACKAGES_FIRST_S", 0.0)


@pytest.fixture
def hung() -> Iterator[Core]:
    core = Core({})
    yield core
    core.release.set()


ENDPOINTS: dict[str, tuple[str, ...]] = {"localhost": (), "no-such-host.invalid": ("no_names",)}
NO_ENDPOINTS: list[object] = ["", "no name", "localhost\n", 5, None, ["localhost"]]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("nucleus", device.NUCLEI)
def test_the_name_that_the_core_uses_is_looked_up(tmp_path: Path, nucleus: str, endpoint: str) -> None:
    core = Core({nucleus: {"iotDataEndpoint": endpoint}}, NotFoundError("there is no such component"))
    vitals, codes = {"network_up", "core_answer", "name_lookup"}, ENDPOINTS[endpoint]
    found = Device(tmp_path, core)
    found.comes_to(vitals, *codes)
    before = len(core.asked)
    found.comes_to(vitals, *codes)
    assert set(core.asked[before:]) <= {nucleus}, "only the one that there is"


@pytest.mark.parametrize("endpoint", NO_ENDPOINTS, ids=range(len(NO_ENDPOINTS)))
def test_what_is_no_name_is_not_looked_up(tmp_path: Path, endpoint: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    monkeypatch.setattr(network, "resolve", asked.append)
    found = Device(tmp_path, Core({device.NUCLEI[0]: {"iotDataEndpoint": endpoint}}))
    found.comes_to({"network_up", "core_answer"})
    assert [found.looked() for _ in range(3)] == [({"network_up", "core_answer"}, set())] * 3
    assert not asked


def test_without_a_core_nothing_is_said_of_it(tmp_path: Path) -> None:
    core = Core({}, NotFoundError("there is none"))
    found = Device(tmp_path, core)
    found.comes_to({"network_up"})
    eventually(lambda: found.looked() == ({"network_up"}, set()) and len(core.asked) >= 4, what="more questions")


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    Device(tmp_path, Core({}, RefusedError("no"))).comes_to({"network_up", "core_answer"})


def test_a_core_that_fails_is_told_until_it_answers(tmp_path: Path) -> None:
    core = Core({}, IpcError("no answer in 10 s"))
    found = Device(tmp_path, core)
    found.comes_to({"network_up", "core_answer"}, "core_silent")
    core.known = {"aws.greengrass.Nucleus": {}}
    found.comes_to({"network_up", "core_answer"})


def test_a_core_that_hangs_is_asked_once_and_holds_up_nothing(
    tmp_path: Path, hung: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CORE_S", 0.0)
    found = Device(tmp_path, hung)
    for _ in range(20):
        found.looked()
    assert len(hung.asked) == 1
    assert [thread.name for thread in threading.enumerate()].count("vitals.core") == 1
    found.comes_to({"network_up", "core_answer"}, "core_silent")


def test_packages_are_looked_through(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "edgeml.A" / "venv-1"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(b"x" * 10_000)
    found = Device(tmp_path, Core({}, RefusedError("no")))
    found.comes_to({"network_up", "core_answer", "packages", "packages:edgeml.A"})
