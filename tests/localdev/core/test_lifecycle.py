"""Components as real processes: states, restarts, retries, stop, dependencies."""

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import NAME, Connect, alive, states
from localdev.core import DeploymentError, LocalCore
from support import eventually


def test_install_and_run(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"install": "echo installing > installed", "run": "echo out; echo err >&2; exec sleep 60"})
    packages.deploy(core, NAME)
    assert states(core) == ["INSTALLED", "STARTING", "RUNNING"]
    assert (core.root / "work" / NAME / "installed").read_text() == "installing\n"
    assert (core.root / "work" / NAME).stat().st_mode & 0o777 == 0o700
    eventually(lambda: "stderr. err." in core.log(NAME), what="output in the log")
    pid = core.pid(NAME)
    assert pid is not None
    assert alive(pid)
    core.stop_component(NAME)
    assert (core.state(NAME), core.pid(NAME), alive(pid)) == ("FINISHED", None, False)


def test_a_run_that_exits_0_is_finished_after_its_shutdown(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"Run": "exit 0", "Shutdown": "echo closing time"})
    packages.deploy(core, NAME)
    core.wait_state(NAME, "FINISHED")
    assert states(core)[-2:] == ["STOPPING", "FINISHED"]
    assert "stdout. closing time. {scriptName=services.test.Component.lifecycle.Shutdown" in core.log(NAME)
    assert "Run script exited. {exitCode=0" in core.log(NAME)


def test_nothing_to_do_is_finished(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"install": "true"})
    packages.deploy(core, NAME)
    assert core.state(NAME) == "FINISHED"


def test_an_install_that_fails_three_times_is_broken(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"install": "echo try >> tries; echo no disk >&2; exit 3", "run": "exec sleep 60"})
    with pytest.raises(DeploymentError) as failed:
        packages.deploy(core, NAME)
    assert "test.Component is BROKEN" in str(failed.value)
    assert "stderr. no disk" in str(failed.value)
    assert (core.root / "work" / NAME / "tries").read_text() == "try\n" * 3
    assert states(core) == ["ERRORED", "NEW", "ERRORED", "NEW", "BROKEN"]


def test_a_run_that_fails_three_times_is_broken_and_recovers_in_between(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"run": "echo run >> steps; sleep 0.2; exit 1", "recover": "echo recover >> steps"})
    packages.deploy(core, NAME)
    core.wait_state(NAME, "BROKEN")
    assert (core.root / "work" / NAME / "steps").read_text().split() == ["run", "recover", "run", "recover", "run"]
    one_round = ["STARTING", "RUNNING", "ERRORED", "STOPPING", "INSTALLED"]
    assert states(core) == ["INSTALLED", *one_round, *one_round, "STARTING", "RUNNING", "BROKEN"]


def test_a_broken_component_runs_again_after_a_deployment_that_changes_it(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"install": "exit 1"})
    with pytest.raises(DeploymentError):
        packages.deploy(core, NAME)
    packages.add(NAME, {"install": "true", "run": "exec sleep 60"})
    packages.deploy(core, NAME)
    assert core.state(NAME) == "RUNNING"


def test_errors_long_apart_are_not_in_a_row(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"errorResetTime": 0, "run": 'echo x >> n; [ "$(wc -l < n)" -ge 6 ] && exec sleep 60; exit 1'})
    packages.deploy(core, NAME)
    runs = core.root / "work" / NAME / "n"
    eventually(lambda: runs.exists() and runs.read_text().count("x") == 6, what="sixth run")
    core.wait_state(NAME, "RUNNING")


def test_a_killed_process_is_restarted(core: LocalCore, packages: Any) -> None:
    packages.add(NAME)
    packages.deploy(core, NAME)
    pid = core.pid(NAME)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: core.pid(NAME) not in (None, pid) and core.state(NAME) == "RUNNING", what="a new process")


def test_restart_gives_a_new_process(core: LocalCore, packages: Any) -> None:
    packages.add(NAME)
    packages.deploy(core, NAME)
    before = core.pid(NAME)
    core.restart_component(NAME)
    assert core.pid(NAME) not in (None, before)
    core.stop_component(NAME)
    core.restart_component(NAME)
    assert core.state(NAME) == "RUNNING"


def test_sigterm_lets_a_component_finish_its_work(core: LocalCore, packages: Any) -> None:
    script = "trap 'echo flushed > flushed; exit 0' TERM; echo ready > ready; while :; do sleep 0.05; done"
    packages.add(NAME, {"run": script})
    packages.deploy(core, NAME)
    eventually((core.root / "work" / NAME / "ready").exists, what="trap set")
    core.stop_component(NAME)
    assert (core.root / "work" / NAME / "flushed").exists()


def test_who_ignores_sigterm_is_killed_with_all_children(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"run": "trap '' TERM; sleep 60 & echo $! > child; wait"})
    packages.deploy(core, NAME)
    child = core.root / "work" / NAME / "child"
    eventually(lambda: child.exists() and child.read_text().strip(), what="a child")
    started = time.monotonic()
    pid = core.pid(NAME)
    core.stop_component(NAME)
    assert 5.0 <= time.monotonic() - started < 8.0
    assert pid is not None
    assert not alive(pid)
    assert not alive(int(child.read_text()))


def test_a_child_left_by_a_dead_shell_is_stopped_too(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"run": "sleep 60 & echo $! > child; exit 0"})
    packages.deploy(core, NAME)
    core.wait_state(NAME, "FINISHED")
    assert not alive(int((core.root / "work" / NAME / "child").read_text()))


def test_startup_runs_when_it_exits_0_and_stays_running(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"startup": "sleep 60 & echo up", "run": "echo never", "shutdown": "echo down"})
    packages.deploy(core, NAME)
    assert states(core) == ["INSTALLED", "STARTING", "RUNNING"]
    core.stop_component(NAME)
    assert core.state(NAME) == "FINISHED"
    assert "never" not in core.log(NAME)
    assert "stdout. down." in core.log(NAME)


def test_a_step_that_takes_too_long_is_an_error(core: LocalCore, packages: Any) -> None:
    packages.add(NAME, {"startup": {"Script": "sleep 60", "Timeout": 0.1}})
    with pytest.raises(DeploymentError) as failed:
        packages.deploy(core, NAME)
    assert "the step has timed out. {timeoutSeconds=0.1" in str(failed.value)


def test_a_component_reports_its_own_state(core: LocalCore, packages: Any, connect_to: Connect) -> None:
    packages.add(NAME, {"startup": "exec sleep 60"})
    deploying = threading.Thread(target=lambda: packages.deploy(core, NAME))
    deploying.start()
    eventually(lambda: NAME in core.names() and core.state(NAME) == "STARTING", what="STARTING")
    client = connect_to(core, NAME)
    client.update_state(state="RUNNING")
    deploying.join(10)
    assert core.state(NAME) == "RUNNING"
    before = core.pid(NAME)
    client.update_state(state="ERRORED")
    eventually(lambda: core.pid(NAME) not in (None, before), what="restart after its own error report")
    with pytest.raises(model.ResourceNotFoundError):
        connect_to(core, "test.Stranger").update_state(state="RUNNING")


@pytest.mark.parametrize(
    ("condition", "runs"),
    [("onpath sh", False), ("onpath no-such-program", True), ("exists /tmp", False), ("!exists /tmp", True)],
)
def test_skipif(core: LocalCore, packages: Any, condition: str, runs: bool) -> None:
    packages.add(NAME, {"install": {"Script": "echo ran > ran", "Skipif": condition}, "run": "exec sleep 60"})
    packages.deploy(core, NAME)
    assert (core.root / "work" / NAME / "ran").exists() is runs


def test_environment(tmp_path: Path, packages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PYTHONPATH", "/not/for/components")
    lifecycle = {
        "Setenv": {"SHARED": "{work:path}", "STEP": "shared", "NUMBER": 5},
        "run": {"Script": "env > env; exec sleep 60", "Setenv": {"STEP": "its own"}},
    }
    packages.add(NAME, lifecycle)
    with LocalCore(tmp_path / "core", thing_name="thing", region="eu-west-1", env={"EXTRA": "1"}) as core:
        packages.deploy(core, NAME)
        file = core.root / "work" / NAME / "env"
        eventually(lambda: file.exists() and "EXTRA" in file.read_text(), what="the environment")
        found = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
        expected = {
            "SVCUID": core.token(NAME),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": core.token(NAME),
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(core.socket),
            "AWS_IOT_THING_NAME": "thing",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "GGC_VERSION": "2.18.0",
            "GG_ROOT_CA_PATH": "",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "EXTRA": "1",
            "SHARED": str(core.root / "work" / NAME),
            "STEP": "its own",
            "NUMBER": "5",
            "PWD": str(core.root / "work" / NAME),
        }
        assert {key: found.get(key) for key in expected} == expected
        assert "PYTHONPATH" not in found
        assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in found


def test_lite_waits_a_second_before_a_restart(packages: Any, lite: LocalCore) -> None:
    packages.add(NAME, {"run": "date +%s%N >> times; exit 1"})
    packages.deploy(lite, NAME)
    lite.wait_state(NAME, "BROKEN")
    times = [int(line) / 1e9 for line in (lite.root / "work" / NAME / "times").read_text().split()]
    assert len(times) == 3
    assert all(1.0 <= later - earlier < 2.0 for earlier, later in itertools.pairwise(times))


def test_leaving_the_core_leaves_no_process(tmp_path: Path, packages: Any) -> None:
    packages.add("test.A", {"run": "sleep 60 & sleep 60"})
    packages.add("test.B", {"run": "exec sleep 60"})
    with LocalCore(tmp_path / "core") as core:
        packages.deploy(core, "test.A", "test.B")
        groups = [core.pid("test.A"), core.pid("test.B")]
        socket = core.socket
    assert not socket.exists()
    for group in groups:
        assert group is not None
        members = [entry for entry in Path("/proc").glob("[0-9]*") if _group(entry) == group]
        assert not [entry for entry in members if alive(int(entry.name))]


def _group(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[2])
    except (FileNotFoundError, ProcessLookupError):
        return 0
