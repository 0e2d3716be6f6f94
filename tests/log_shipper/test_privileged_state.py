"""What root keeps and may do: records, locks and sockets that another user could have made, and rights given up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeml.config import load
from log_shipper import privileges
from log_shipper.config import Config
from privileged_support import NOBODY, Device

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be attacked by another user")


def test_state_of_version_1_0_is_taken_over_once(device: Device) -> None:
    for name in ("checkpoint.db", "checkpoint.db-wal", "iot_core.db"):
        (device.work / name).write_text(name)
    assert device.run()["files"] == ["checkpoint.db", "checkpoint.db-wal", "iot_core.db"]
    state = device.private / "state"
    (state / "checkpoint.db").write_text("newer")
    device.run()
    assert (state / "checkpoint.db").read_text() == "newer"
    assert (state / "iot_core.db").read_text() == "iot_core.db"


def test_state_that_another_user_may_have_made_is_not_taken_over(device: Device) -> None:
    secret = device.root / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    work = str(device.work)
    device.attack(
        f"os.symlink({str(secret)!r}, {work!r} + '/checkpoint.db')",
        f"os.mkfifo({work!r} + '/checkpoint.db-wal')",
        f"open({work!r} + '/iot_core.db', 'w').write('of nobody')",
    )
    os.link(secret, device.work / "iot_core.db-wal")  # as where the kernel does not protect hard links
    assert device.run()["files"] == []
    assert secret.read_text() == "of root"
    secret.unlink()


def test_root_takes_its_state_back_before_it_uses_it_and_only_plain_files(device: Device) -> None:
    device.run()
    state, secret = device.private / "state", device.root / "secret"
    secret.write_text("of root")
    (state / "health").mkdir()
    (state / "health" / "health.log").write_text("kept")
    (state / "last-good-1.0.0.json").write_text("kept, too")
    (state / "last-good-1.0.0.json").chmod(0o600)
    os.link(secret, state / "checkpoint.db")  # as where the kernel does not protect hard links
    (state / "iot_core.db").symlink_to(secret)
    (state / "health" / "there").symlink_to(device.root)
    os.mkfifo(state / "pipe")
    for path in (state, *state.rglob("*")):
        if path.name != "checkpoint.db":
            os.chown(path, privileges.UID, privileges.UID, follow_symlinks=False)
    assert device.run()["files"] == ["health", "last-good-1.0.0.json"]
    assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {0}
    kept = state / "last-good-1.0.0.json"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("kept, too", 0o600)
    assert [path.read_text() for path in (state / "health").iterdir()] == ["kept"]
    secret.unlink()


def test_nobody_else_can_hold_a_lock_that_root_waits_for(device: Device) -> None:
    (device.private / "lock").touch()
    (device.private / "lock").chmod(0o644)
    device.run()
    assert (device.private / "lock").stat().st_mode & 0o777 == 0o600


def test_a_socket_that_the_core_names_relative_to_the_work_folder_is_found_and_is_the_cores(device: Device) -> None:
    device.attack(f"os.symlink('/etc', {str(device.work)!r} + '/core')")
    done = device.step("run", AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT="../../ipc.socket")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["socket"] == os.path.realpath(device.root / "ipc.socket")


def test_what_another_user_left_in_roots_work_folder_is_refused(device: Device) -> None:
    device.deploy(owner=0)
    (device.work / "venv").symlink_to((device.private / "venv").resolve())
    (device.work / "checkpoint.db").write_text("")
    os.chown(device.work / "checkpoint.db", NOBODY, NOBODY)
    done = device.step("run")
    assert done.returncode != 0
    assert "checkpoint.db is not root's alone" in done.stderr


REDUCED = """
import os, subprocess, sys
from pathlib import Path
from log_shipper import privileges
secret, state = Path(sys.argv[1]), Path(sys.argv[2])
os.environ[privileges.MARK] = str(state)
assert privileges.reduce(may_delete=True)
assert os.geteuid() == 0
assert privileges.reduce(may_delete=False)
assert os.getresuid() == os.getresgid() == (privileges.UID,) * 3 and os.getgroups() == []
assert secret.read_text() == "of root"
assert subprocess.run(["cat", secret], capture_output=True, check=True).stdout == b"of root"  # as journalctl
(state / "before").write_text("x")
(state / "new").write_text("x")
def attempt(what):
    try:
        what()
    except OSError:
        return
    raise AssertionError(what)
attempt(lambda: secret.write_text("x"))
attempt(secret.unlink)
attempt(lambda: (secret.parent / "new").write_text("x"))
attempt(lambda: os.setuid(0))
attempt(lambda: os.kill(os.getppid(), 0))
assert os.stat("/proc/self/status").st_uid == 0  # not dumpable: nobody may look into it or trace it
assert privileges.reduce(may_delete=False)
assert not privileges.reduce(may_delete=True)
print("done")
"""


def test_what_reads_and_sends_may_read_everything_and_write_nothing_but_its_records(device: Device) -> None:
    if not int(Path("/proc/self/status").read_text().split("CapPrm:")[1].split()[0], 16) & 4:
        pytest.skip("root has no capability DAC_READ_SEARCH here")
    state, secret = device.root / "reduced", device.root / "secret"
    state.mkdir(mode=0o700)
    (state / "before").write_text("")
    secret.write_text("of root")
    secret.chmod(0o600)
    command = [sys.executable, "-P", "-c", REDUCED, str(secret), str(state)]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=state, env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout == "done\n", done.stderr
    assert (state / "before").stat().st_uid == privileges.UID
    shutil.rmtree(state)
    secret.unlink()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, False),
        ({"healthMetrics": {"enabled": True}}, False),
        ({"files": {"a": {"path": "/a/*"}}}, False),
        ({"files": {"a": {"path": "/a/*", "deleteLogFileAfterCloudUpload": True}}}, True),
        ({"logsUploaderConfiguration": {"systemLogsConfiguration": {"diskSpaceLimit": 1}}}, True),
        ({"logsUploaderConfiguration": {"componentLogsConfigurationMap": {"a": {"diskSpaceLimit": 1}}}}, True),
        (
            {
                "logsUploaderConfiguration": {
                    "componentLogsConfiguration": [{"componentName": "a", "deleteLogFileAfterCloudUpload": True}]
                }
            },
            True,
        ),
    ],
)
def test_rights_to_delete_are_kept_only_where_files_are_to_be_deleted(config: dict[str, Any], expected: bool) -> None:
    assert privileges.deletes(load(Config, config)) is expected
