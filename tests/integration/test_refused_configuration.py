"""A configuration that is refused: while running, at the next restart, and at the first start of a version."""

import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeml import messages
from forked import popen
from localdev.core import LocalCore
from support import eventually

NAME = "edgeml.Picky"
ACCESS = {
    "aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["*"]}},
}
COMPONENT = """
    import sys
    import msgspec
    from edgeml.component import Component, run
    from edgeml.errors import ConfigError

    class Config(msgspec.Struct):
        number: int = 1
        word: str = "fine"
        parts: dict[str, int] = {}

    class Picky(Component[Config]):
        name, version = "edgeml.Picky", sys.argv.pop()

        def start(self, config):
            self.reconfigure(config)

        def reconfigure(self, config):
            if config.word == "refused at start":
                raise ConfigError("word", "expected another one")
            print("runs on", config.number, *config.parts, flush=True)

        def stop(self):
            pass

    raise SystemExit(run(Picky, Config))
"""


class Device:
    """A core on which the component is started by hand, as often and in whichever version a test likes."""

    def __init__(self, core: LocalCore, work: Path) -> None:
        self.core, self.work, self._token = core, work, core.add_principal(NAME, ACCESS)
        self.reports: list[messages.HealthReport] = []
        core.subscribe("edgeml/health/Picky", self._heard)
        (work / "picky.py").write_text(textwrap.dedent(COMPONENT))

    def configure(self, **values: Any) -> None:
        """As a deployment that the core takes for SUCCEEDED."""
        self.core.configure(NAME, values)

    def problems(self) -> list[tuple[str, str]]:
        return [(problem.code, problem.text) for problem in self.reports[-1].problems]

    def _heard(self, topic: str, payload: bytes) -> None:
        self.reports.append(messages.decode(payload, messages.HealthReport))

    @contextmanager
    def running(self, version: str = "1.0.0", *, code: int = 0) -> Iterator[Path]:
        """The path of the process' log; it is stopped at the end, unless it is to end by itself."""
        log = self.work / "log"
        environment = {
            **os.environ,
            "SVCUID": self._token,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.core.socket),
        }
        with log.open("w") as output:
            command = [sys.executable, "-P", "picky.py", version]
            process = popen(command, cwd=self.work, env=environment, stdout=output, stderr=output)
        try:
            yield log
            if code == 0:
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == code, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    work = tmp_path / "work"
    work.mkdir()
    with LocalCore(tmp_path / "gg") as core:
        yield Device(core, work)


def says(log: Path, text: str) -> None:
    eventually(lambda: text in log.read_text(), 20, text)


@pytest.mark.parametrize("bad", [{"number": "many"}, {"word": "refused at start"}], ids=["typed", "judged"])
def test_a_refused_change_outlives_a_restart_and_a_good_one_ends_the_problem(
    device: Device, bad: dict[str, Any]
) -> None:
    device.configure(number=7.0)
    with device.running() as log:
        says(log, "runs on 7")
        says(log, "started component")
        device.configure(**bad)
        says(log, "going on with the last good configuration")
    assert [code for code, _ in device.problems()] == ["configuration_refused"]
    assert next(iter(bad)) in device.problems()[0][1]
    with device.running() as log:  # the power was off
        says(log, "runs on 7")
        says(log, "started component")
        assert "expected" in log.read_text()
        device.configure(number=8, word="fine")
        says(log, "runs on 8")
        says(log, "problem is over code=configuration_refused")
        device.configure(number=9.5)
        says(log, "going on with the last good configuration")
    with device.running() as log:  # the change that was taken live is the last good one
        says(log, "runs on 8")
        says(log, "started component")
        device.configure(number=8)
        says(log, "problem is over")
    assert device.problems() == []


def test_the_first_start_of_a_version_with_a_refused_configuration_ends_with_78(device: Device) -> None:
    device.configure(number="many")
    with device.running(code=78) as log:
        pass
    assert "number" in log.read_text()
    device.configure(number=1)
    with device.running() as log:
        says(log, "started component")
    device.configure(number="many")
    with device.running("2.0.0", code=78):
        pass
    with device.running("1.0.0") as log:  # as after the core's rollback, should the configuration stay
        says(log, "runs on 1")
        says(log, "started component")


def test_a_null_entry_is_gone_live_and_after_a_restart(device: Device) -> None:
    device.configure(parts={"a": 1, "b": 2.0})
    with device.running() as log:
        says(log, "runs on 1 a b")
        says(log, "started component")
        device.configure(parts={"a": None})
        says(log, "runs on 1 b\n")
    with device.running() as log:
        says(log, "runs on 1 b\n")
        says(log, "started component")
