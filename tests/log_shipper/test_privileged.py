"""What runs as root, attacked by the user who owns all that a deployment brings: the recipe's own scripts, as they are.

The artifact is a small one, with the real module in it; what it runs tells who and where it is.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeml._last_good import LastGood
from edgeml.config import load
from localdev.core import Profile, check_recipe
from log_shipper import privileges
from log_shipper.config import Config
from support import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be attacked by another user")

NAME = "edgeml.LogShipper"
NOBODY = 65534
SHIPPER = ROOT / "components" / "log_shipper"
PROBE = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps(dict(uid=os.getuid(), cwd=os.getcwd(), file=os.path.realpath(__file__), argv=sys.argv[1:],
    python=sys.prefix, path=sys.path, no_new_privs=status["NoNewPrivs"].strip(), token=os.environ.get("SVCUID"),
    socket=os.path.realpath(os.environ.get("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "")),
    files=sorted(os.listdir("."))), default=str))
"""
EVIL = "import os, sys\nopen(%r, 'a').write('%%d %%s\\n' %% (os.geteuid(), sys.argv))\n"


class Device:
    """A core's folders, as the Java nucleus leaves them after a deployment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        self.artifacts = root / "packages" / "artifacts" / NAME / "1.0.0"
        self.unpacked = root / "packages" / "artifacts-unarchived" / NAME / "1.0.0" / "log_shipper"
        self.work = root / "work" / NAME
        self.private = root / "private"
        self.loot = root / "loot"
        self.archive = self.artifacts / "log_shipper.zip"
        self.owner = NOBODY

    def deploy(self, note: str = "", *, owner: int = NOBODY) -> None:
        """Bring the artifact anew; all that other tests did to it is gone."""
        self.owner = owner
        for folder in (self.root / "packages", self.root / "work"):
            shutil.rmtree(folder, ignore_errors=True)
        self.loot.unlink(missing_ok=True)
        for folder in (self.artifacts, self.unpacked, self.work):
            folder.mkdir(parents=True)
        with zipfile.ZipFile(self.archive, "w") as archive:
            archive.writestr("__main__.py", f"{PROBE}\n# {note}")
            archive.writestr("requirements.lock", "# nothing\n")
            archive.writestr("wheels/none.txt", "")
            archive.writestr("log_shipper/__init__.py", "")
            archive.writestr("edgeml/__init__.py", "")
            archive.write(SHIPPER / "privileged.py", "log_shipper/privileged.py")
            archive.write(ROOT / "components" / "edgeml" / "install.py", "edgeml/install.py")
        with zipfile.ZipFile(self.archive) as archive:
            archive.extractall(self.unpacked)
        self.digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        for folder in (self.root / "packages", self.work):
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, owner, owner)
        self.work.chmod(0o700)

    def step(
        self, step: str, recipe: dict[str, Any] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        lifecycle = (recipe or yaml.safe_load((ROOT / "recipes" / f"{NAME}.yaml").read_text()))["Manifests"][0]
        script = lifecycle["Lifecycle"][step]["Script"]
        for variable, value in (
            ("{artifacts:path}", self.artifacts),
            ("{artifacts:decompressedPath}", self.unpacked.parent),
            ("{kernel:rootPath}", self.root),
            ("{work:path}", self.work),
            ("SHA256_OF_ZIP", self.digest),
        ):
            script = script.replace(variable, str(value))
        return subprocess.run(
            ["sh", "-c", script],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "SVCUID": "token",
                "EDGEML_PRIVATE": str(self.private),
                "PYTHONPATH": str(self.work),
                "PIP_CONFIG_FILE": str(self.work / "pip.conf"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run(self) -> dict[str, Any]:
        done = self.step("run")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def forget(self) -> None:
        """Remove root's copies, but for the environment, which takes seconds to make."""
        for path in self.private.iterdir():
            if path.name.startswith("code-") or path.name.endswith(".zip") or path.name == "state":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def attack(self, *lines: str) -> None:
        """Python of the components' user; what it cannot do it leaves."""
        code = f"import os, shutil\nos.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        code += "".join(f"try:\n    {line}\nexcept OSError: pass\n" for line in lines)
        subprocess.run([sys.executable, "-I", "-c", code], cwd="/", check=True, timeout=30)

    def evil(self) -> str:
        return EVIL % str(self.loot)


@pytest.fixture(scope="module")
def folders() -> Iterator[Device]:
    with tempfile.TemporaryDirectory(prefix="edgeml-root-") as folder:
        made = Device(Path(folder))
        made.deploy("first")
        poisoned = (
            f"open({str(made.work / 'pip.conf')!r}, 'w').write('[global]\\nlog = {made.loot}\\nindex-url = http://[::1]:9\\n')",
            *(f"open({str(made.work / name)!r}, 'w').write({made.evil()!r})" for name in ("pip.py", "ensurepip.py")),
        )
        made.attack(*poisoned)
        done = made.step("install", HOME=str(made.work), TMPDIR=str(made.work), PIP_LOG=str(made.loot))
        assert done.returncode == 0, done.stderr
        assert not made.loot.exists()
        yield made


@pytest.fixture
def device(folders: Device, request: pytest.FixtureRequest) -> Device:
    folders.forget()
    folders.deploy(request.node.name)
    return folders


def untouched(device: Device) -> None:
    assert not device.loot.exists(), device.loot.read_text()


def test_root_runs_its_own_copy_from_its_own_folder(device: Device) -> None:
    assert device.step("install").returncode == 0
    seen = device.run()
    assert seen["uid"] == 0
    assert seen["cwd"] == str(device.private / "state")
    assert seen["file"].startswith(f"{device.private}/code-{device.digest}")
    assert seen["python"].startswith(str(device.private))
    assert (seen["argv"], seen["token"], seen["no_new_privs"]) == (["--root", str(device.root)], "token", "1")
    assert not [path for path in seen["path"] if path.startswith((str(device.work), str(device.unpacked)))]
    for folder, closed in ((device.private / "state", 0o077), (device.private / f"code-{device.digest}", 0o022)):
        assert (folder.stat().st_uid, folder.stat().st_mode & closed) == (0, 0)


ARCHIVES: dict[str, Callable[[Device], str]] = {
    "other bytes": lambda d: f"open({str(d.archive)!r}, 'ab').write(b'x')",
    "another archive": lambda d: f"shutil.copy('/bin/true', {str(d.archive)!r})",
    "a link": lambda d: f"os.symlink('/etc/shadow', {str(d.archive)!r})",
    "a pipe that nobody writes": lambda d: f"os.mkfifo({str(d.archive)!r})",
    "a folder": lambda d: f"os.mkdir({str(d.archive)!r})",
    "nothing": lambda d: "pass",
    "more than any disk holds": lambda d: f"os.truncate(os.open({str(d.archive)!r}, os.O_CREAT | os.O_RDWR), 1 << 42)",
    "a linked folder": lambda d: (
        f"os.rename({str(d.artifacts)!r}, {str(d.artifacts)!r} + '.old') or os.symlink('/etc', {str(d.artifacts)!r})"
    ),
}


@pytest.mark.parametrize("step", ["install", "run"])
@pytest.mark.parametrize("attack", ARCHIVES)
def test_an_archive_that_is_not_what_was_built_is_refused(device: Device, attack: str, step: str) -> None:
    removal = "" if attack in ("other bytes", "a linked folder") else f"os.unlink({str(device.archive)!r})"
    device.attack(removal or "pass", ARCHIVES[attack](device))
    done = device.step(step)
    assert done.returncode != 0
    assert str(device.archive) in done.stderr
    assert not list(device.private.glob("*.zip*")) + list(device.private.glob("code-*"))
    untouched(device)


def overwritten(device: Device) -> list[str]:
    """Everything that the components' user can write, by something that tells who ran it."""
    evil = device.evil()
    lines = []
    for path in device.unpacked.rglob("*.py"):
        lines.append(f"os.chmod({str(path)!r}, 0o644) or open({str(path)!r}, 'w').write({evil!r})")
    names = ("sitecustomize", "usercustomize", "os", "hashlib", "zipfile", "log_shipper", "edgeml", "ctypes", "fcntl")
    for folder in (device.work, device.artifacts, device.unpacked, device.work / "state"):
        lines.append(f"os.makedirs({str(folder)!r}, exist_ok=True)")
        lines += [f"open({str(folder / name)!r} + '.py', 'w').write({evil!r})" for name in names]
    binary = str(device.work / "venv" / "bin")
    lines.append(f"os.makedirs({binary!r}, exist_ok=True)")
    shell = f"#!/bin/sh\nid >> {device.loot}\n"
    lines += [
        f"open({binary!r} + '/python', 'w').write({shell!r})",
        f"os.chmod({binary!r} + '/python', 0o755)",
        f"open({str(device.work / 'pip.conf')!r}, 'w').write('[global]\\nno-such-option = 1\\nlog = {device.loot}\\n')",
        f"os.unlink({str(device.archive)!r})",
        f"os.symlink('/etc/shadow', {str(device.archive)!r})",
    ]
    # The private folder, should anything of it be within reach.
    lines += [f"open({str(device.private)!r} + {name!r}, 'w')" for name in ("/x", "/venv/x", "/state/x")]
    lines.append(f"os.rename({str(device.private)!r}, {str(device.private)!r} + '.old')")
    return lines


def test_what_is_rewritten_between_installation_and_start_never_runs(device: Device) -> None:
    assert device.step("install").returncode == 0
    device.attack(*overwritten(device))
    seen = device.run()
    assert seen["file"].startswith(f"{device.private}/code-{device.digest}")
    assert device.step("install").returncode == 0  # as at each start of the nucleus
    assert device.run()["python"] == seen["python"]
    untouched(device)


def test_what_is_rewritten_before_the_installation_never_runs(device: Device) -> None:
    good = device.archive.read_bytes()
    device.attack(*overwritten(device))
    assert "log_shipper.zip" in device.step("install").stderr
    device.archive.unlink()
    device.archive.write_bytes(good)
    assert device.step("install").returncode == 0
    assert device.run()["uid"] == 0
    untouched(device)


def test_an_archive_that_is_exchanged_all_the_time_runs_only_as_it_was_built(device: Device) -> None:
    stopping = threading.Event()
    good = device.archive.read_bytes()
    bad = device.artifacts / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        for name in ("__main__.py", "log_shipper/__init__.py", "log_shipper/privileged.py", "edgeml/install.py"):
            archive.writestr(name, device.evil())

    def exchange() -> None:
        turn = 0
        while not stopping.is_set():
            turn += 1
            fresh = device.artifacts / "fresh"
            with contextlib.suppress(OSError):
                fresh.unlink()
            if turn % 3 == 0:
                fresh.symlink_to(bad)
            else:
                fresh.write_bytes(good if turn % 3 == 1 else bad.read_bytes())
            fresh.rename(device.archive)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    try:
        for _ in range(6):
            done = device.step("run")
            assert done.returncode == 0 or str(device.archive) in done.stderr
            for path in device.private.glob("*.zip*"):
                path.unlink()
            for path in device.private.glob("code-*"):
                shutil.rmtree(path)
    finally:
        stopping.set()
        attacker.join()
    untouched(device)


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
    LastGood(state, "1.0.0").keep({"region": "kept"})
    os.link(secret, state / "checkpoint.db")  # as where the kernel does not protect hard links
    (state / "iot_core.db").symlink_to(secret)
    (state / "health" / "there").symlink_to(device.root)
    os.mkfifo(state / "pipe")
    for path in (state, *state.rglob("*")):
        if path.name != "checkpoint.db":
            os.chown(path, privileges.UID, privileges.UID, follow_symlinks=False)
    assert device.run()["files"] == ["health", "last-good-1.0.0.json"]
    assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {0}
    assert LastGood(state, "1.0.0").load() == {"region": "kept"}
    assert [path.read_text() for path in (state / "health").iterdir()] == ["kept"]
    secret.unlink()


def test_nobody_else_can_hold_a_lock_that_root_waits_for(device: Device) -> None:
    (device.private / "lock").chmod(0o644)
    device.run()
    assert [(device.private / name).stat().st_mode & 0o777 for name in ("lock", ".venv.lock")] == [0o600] * 2


def test_a_socket_that_the_core_names_relative_to_the_work_folder_is_found_and_is_the_cores(device: Device) -> None:
    device.attack(f"os.symlink('/etc', {str(device.work)!r} + '/core')")
    done = device.step("run", AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT="../../ipc.socket")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["socket"] == os.path.realpath(device.root / "ipc.socket")


def test_the_user_of_its_own_is_none_that_systemd_gives_to_services() -> None:
    assert privileges.UID not in range(61_184, 65_520)
    assert privileges.UID < 65_534


@pytest.mark.parametrize("kind", ["of another user", "writable by all", "in another user's folder", "a link there"])
def test_a_folder_that_is_not_roots_alone_is_refused(device: Device, kind: str) -> None:
    above = device.root / "above"
    above.mkdir()
    private = above / "private"
    if kind == "a link there":
        private.symlink_to(device.work)
    else:
        private.mkdir()
    if kind == "of another user":
        os.chown(private, NOBODY, NOBODY)
    elif kind == "writable by all":
        private.chmod(0o1777)
    elif kind == "in another user's folder":
        os.chown(above, NOBODY, NOBODY)
    try:
        done = device.step("run", EDGEML_PRIVATE=str(private))
        assert done.returncode != 0
        assert "not for root alone to write" in done.stderr
    finally:
        shutil.rmtree(above)


def test_where_all_is_roots_nothing_is_copied(device: Device) -> None:
    device.deploy(owner=0)
    (device.work / "venv").symlink_to((device.private / "venv").resolve())
    seen = device.run()
    assert seen["cwd"] == str(device.work)
    assert seen["file"].startswith(str(device.unpacked))
    assert not list(device.private.glob("code-*"))
    os.chown(device.unpacked / "edgeml" / "install.py", NOBODY, NOBODY)  # one file is enough to be wary
    assert device.run()["cwd"] == str(device.private / "state")


def test_what_another_user_left_in_roots_work_folder_is_refused(device: Device) -> None:
    device.deploy(owner=0)
    (device.work / "venv").symlink_to((device.private / "venv").resolve())
    (device.work / "checkpoint.db").write_text("")
    os.chown(device.work / "checkpoint.db", NOBODY, NOBODY)
    done = device.step("run")
    assert done.returncode != 0
    assert "checkpoint.db is not root's alone" in done.stderr


def test_the_version_before_is_kept_and_older_ones_are_removed(device: Device) -> None:
    digests = []
    for number in range(4):
        device.deploy(f"version {number}")
        digests.append(device.digest)
        assert device.step("install").returncode == 0
    assert sorted(path.name for path in device.private.glob("code-*")) == sorted(f"code-{d}" for d in digests[2:])
    assert sorted(path.name for path in device.private.glob("*.zip*")) == sorted(f"{d}.zip" for d in digests[2:])


def built(*options: str) -> tuple[dict[str, Any], bytes, str]:
    """The recipe that a build makes, its bytes, and the digest of the archive beside it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("greengrass-build", "__pycache__")
        for part in ("components/log_shipper", "components/edgeml", "recipes", "gdk-config"):
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=ignored)
        (copy / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "build.py", copy / "scripts")
        command = ["python3", "../../scripts/build.py", *options]
        subprocess.run(command, cwd=copy / "components" / "log_shipper", check=True, timeout=60, capture_output=True)
        (archive,) = copy.glob("components/log_shipper/greengrass-build/artifacts/*/*/*.zip")
        (recipe,) = copy.glob("components/log_shipper/greengrass-build/recipes/*")
        raw = recipe.read_bytes()
        return yaml.safe_load(raw), raw, hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.parametrize("options", [(), ("--unprivileged",)], ids=["privileged", "unprivileged"])
def test_the_build_writes_the_digest_into_a_recipe_that_both_nuclei_take(options: tuple[str, ...]) -> None:
    recipe, raw, digest = built(*options)
    for profile in Profile:
        assert check_recipe(recipe, raw, profile) == []
    assert len(yaml.dump(recipe)) < 8000  # as GDK writes it again
    lifecycle = recipe["Manifests"][0]["Lifecycle"]
    assert b"SHA256_OF_ZIP" not in raw
    if options:
        assert "RequiresPrivilege" not in lifecycle["run"]
    else:
        assert lifecycle["install"]["Script"].replace("' install ", "' run ") == lifecycle["run"]["Script"]
        assert lifecycle["run"]["Script"].rstrip().endswith(digest)


@pytest.mark.parametrize("lite", [True, False])
def test_the_unprivileged_installation_lets_lite_read_the_journal_and_does_the_rest_as_the_user(
    device: Device, lite: bool
) -> None:
    if subprocess.run(["/usr/bin/python3", "-V"], user=NOBODY, capture_output=True, timeout=10).returncode:
        pytest.skip("another user has no python3 here")
    recipe, _, _ = built("--unprivileged")
    install = device.unpacked / "edgeml" / "install.py"
    install.chmod(0o644)
    install.write_text("import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())")
    socket = "/x/gg-ipc.socket" if lite else "/x/ipc.socket"
    units = device.root / "units"
    done = device.step(
        "install",
        recipe,
        AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT=socket,
        EDGEML_UNITS=str(units),
        PATH="/usr/bin:/bin",
    )
    ids = (NOBODY, NOBODY, NOBODY)
    assert done.stdout.strip() == f"{ids} {ids} [] {device.work}", done.stderr
    drop_in = units / f"ggl.{NAME}.service.d" / "journal.conf"
    assert drop_in.exists() is lite
    if lite:
        assert drop_in.read_text() == "[Service]\nSupplementaryGroups=systemd-journal\n"
        shutil.rmtree(units)


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
