"""Components through real sudo, as another user; and what holds where that is not possible."""

import contextlib
import grp
import io
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core_support import NAME
from localdev.core import DeploymentError, LocalCore
from localdev.core.profiles import Profile
from localdev.core.users import REMOVED, Users, find_user, is_removed
from support import eventually

ROOT = os.geteuid() == 0
sudo_only = pytest.mark.skipif(not (ROOT and shutil.which("sudo")), reason="needs root and sudo")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="edgeml-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def core(open_folder: Path) -> Iterator[LocalCore]:
    with LocalCore(open_folder / "core") as running:
        yield running


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def owner(path: Path) -> str:
    return pwd.getpwuid(path.lstat().st_uid).pw_name


def written(core: LocalCore, file: str) -> str:
    path = core.root / "work" / NAME / file
    return eventually(lambda: path.read_text() if path.exists() else "", what=file)


@sudo_only
class TestSudo:
    """A core of root, in a root that its user can enter."""

    @pytest.fixture
    def user(self, core: LocalCore) -> str:
        assert "through sudo" in core.note
        return core.note.split()[3].partition(":")[0]

    def test_who_runs_and_who_owns_what(self, core: LocalCore, packages: Any, user: str) -> None:
        packages.artifact(NAME, "code.zip", _archive("echo $(id -un) > who; exec sleep 60"))
        artifacts = [{"Uri": "s3://b/code.zip", "Unarchive": "ZIP"}]
        packages.add(NAME, {"run": "sh {artifacts:decompressedPath}/code/main.sh"}, artifacts=artifacts)
        packages.deploy(core, NAME)
        assert written(core, "who").strip() == user
        assert (core.root / "logs").stat().st_mode & 0o777 == 0o700
        work = core.root / "work" / NAME
        assert (owner(work), work.stat().st_mode & 0o777) == (user, 0o700)
        unpacked = core.root / "packages" / "artifacts-unarchived" / NAME / "1.0.0"
        archive = core.root / "packages" / "artifacts" / NAME / "1.0.0" / "code.zip"
        modes = {
            path: (owner(path), path.stat().st_mode & 0o777)
            for path in (archive, unpacked, unpacked / "code", unpacked / "code" / "main.sh")
        }
        assert list(modes.values()) == [(user, 0o440), (user, 0o755), (user, 0o755), (user, 0o440)]

    def test_the_environment_is_what_sudo_leaves(self, core: LocalCore, packages: Any) -> None:
        setenv = {name.replace("*", "X"): "x" for name in REMOVED} | {"KEPT": "a b"}
        packages.add(NAME, {"Setenv": setenv, "run": "env > env; exec sleep 60"})
        packages.deploy(core, NAME)
        found = dict(line.split("=", 1) for line in written(core, "env").splitlines() if "=" in line)
        assert found["KEPT"] == "a b"
        assert found["SVCUID"] == core.token(NAME)
        assert "SUDO_USER" in found
        assert not [name for name in found if is_removed(name) and found[name] == "x"]

    def test_privileged_steps_and_posix_user_root_run_as_root_with_all_variables(
        self, core: LocalCore, packages: Any, user: str
    ) -> None:
        script = 'rm -f who; echo "$(id -un) $PYTHONPATH" > who; exec sleep 60'
        run = {"Script": script, "RequiresPrivilege": True, "Setenv": {"PYTHONPATH": "/p"}}
        packages.add(NAME, {"run": run})
        packages.deploy(core, NAME)
        assert written(core, "who") == "root /p\n"
        packages.add(NAME, {"run": {**run, "RequiresPrivilege": False}})
        packages.deploy(core, NAME)
        eventually(lambda: written(core, "who") == f"{user} \n", what="the component's own user")
        packages.deploy(core, NAME, run_with={NAME: "root"})
        eventually(lambda: written(core, "who") == "root /p\n", what="posixUser root")
        assert owner(core.root / "work" / NAME) == "root"

    def test_a_posix_user_of_its_own(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME, {"run": "echo $(id -un):$(id -gn) > who; exec sleep 60"})
        packages.deploy(core, NAME, run_with={NAME: "daemon:bin"})
        assert written(core, "who") == "daemon:bin\n"
        with pytest.raises(DeploymentError, match="does not exist"):
            packages.deploy(core, NAME, run_with={NAME: "no-such-user"})

    @pytest.mark.parametrize("how", ["child", "session", "double"])
    def test_stopping_leaves_nothing(self, core: LocalCore, packages: Any, how: str) -> None:
        leave = {
            "child": "sleep 61 & echo $! > child",
            "session": "setsid sleep 61 & echo $! > child",
            "double": "(setsid sh -c 'echo $$ > child; exec sleep 61' &)",
        }[how]
        packages.add(NAME, {"run": f"{leave}; trap 'echo bye > bye; exit 0' TERM; while :; do sleep 0.05; done"})
        packages.deploy(core, NAME)
        child = int(written(core, "child"))
        pid = core.pid(NAME)
        assert pid is not None
        assert Path(f"/proc/{pid}/comm").read_text() != "sudo\n"
        core.stop_component(NAME)
        assert written(core, "bye") == "bye\n"
        assert not alive(pid)
        assert not alive(child)

    def test_who_ignores_sigterm_is_killed(
        self, core: LocalCore, packages: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("localdev.core.process.TERMINATE_SECONDS", 0.3)
        packages.add(NAME, {"run": "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"})
        packages.deploy(core, NAME)
        pid = int(written(core, "pid"))
        core.stop_component(NAME)
        assert not alive(pid)

    def test_a_killed_process_is_restarted_and_a_killed_sudo_leaves_nothing(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add(NAME, {"run": "exec sleep 60"})
        packages.deploy(core, NAME)
        first = core.pid(NAME)
        assert first is not None
        os.kill(first, signal.SIGKILL)

        def started_again() -> int | None:
            """Its process, once it is no longer the shell that becomes it."""
            pid = core.pid(NAME)
            if pid in (None, first) or core.state(NAME) != "RUNNING":
                return None
            with contextlib.suppress(OSError):  # gone meanwhile
                return pid if Path(f"/proc/{pid}/comm").read_text() == "sleep\n" else None
            return None

        second = eventually(started_again, what="restart")
        assert second is not None
        parent = int(Path(f"/proc/{second}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: not alive(second) and core.state(NAME) == "RUNNING", what="restart after sudo's end")

    def test_the_nucleus_own_is_closed_to_components(self, core: LocalCore, packages: Any) -> None:
        look = "; ".join(f"cat {{kernel:rootPath}}/{path} >&2 && echo {path}" for path in ("logs/greengrass.log",))
        packages.add(NAME, {"run": f"({look}; ls {{kernel:rootPath}}/config && echo config) > seen; echo end > end"})
        packages.deploy(core, NAME)
        written(core, "end")
        assert (core.root / "work" / NAME / "seen").read_text() == ""

    def test_the_list_of_removed_variables_is_sudos(self) -> None:
        told = subprocess.run(["sudo", "-V"], check=True, capture_output=True, text=True, timeout=10).stdout
        told = told.partition("Environment variables to remove:")[2].partition("Environment variables to preserve")[0]
        assert {line.strip() for line in told.splitlines() if line.strip()} <= {*REMOVED, "*=()*"}


class TestFallback:
    """Where it is not possible it is said in one line, and variables are lost all the same."""

    def test_a_root_that_the_user_cannot_enter(self, tmp_path: Path, packages: Any) -> None:
        setenv = {"PYTHONPATH": "/p", "LD_X": "x", "KEPT": "kept"}
        script = 'echo "$PYTHONPATH|$LD_X|$KEPT" > env; exec sleep 60'
        packages.add(NAME, {"Setenv": setenv, "run": script})
        tmp_path.chmod(0o700)
        with LocalCore(tmp_path / "core") as core:
            packages.deploy(core, NAME)
            assert written(core, "env") == "||kept\n"
            assert "components run as the core's own user" in core.note
            assert "\n" not in core.note
            assert core.note in core.log("greengrass")
            if ROOT and shutil.which("sudo"):
                assert "cannot enter /" in core.note

    @pytest.mark.skipif(not ROOT, reason="needs root")
    @pytest.mark.parametrize(
        ("wanted", "reason"), [("no-such-user", "no user no-such-user"), ("nobody:no-such-group", "no user nobody:no")]
    )
    def test_no_such_user(self, open_folder: Path, wanted: str, reason: str) -> None:
        users = Users(Profile.JAVA, open_folder, wanted)
        assert users.default is None
        assert reason in users.note

    @pytest.mark.skipif(not ROOT, reason="needs root")
    def test_no_sudo(self, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert Users(Profile.JAVA, open_folder, None).note.endswith("there is no sudo here")

    @sudo_only
    def test_a_lent_environment_of_another_interpreter(self, open_folder: Path) -> None:
        work = open_folder / "work" / NAME
        work.mkdir(parents=True)
        lent = open_folder.parent / f"{open_folder.name}-lent"
        (lent / "bin").mkdir(parents=True)
        try:
            (lent / "bin" / "python").symlink_to("/no/such/python")
            (work / "venv").symlink_to(lent)
            assert "need /no/such/python" in Users(Profile.JAVA, open_folder, None).note
        finally:
            shutil.rmtree(lent)

    @pytest.mark.skipif(not ROOT, reason="needs root")
    def test_root_by_choice(self, open_folder: Path, packages: Any) -> None:
        packages.add(NAME, {"run": {"Script": "echo $PYTHONPATH > env; exec sleep 60", "Setenv": {"PYTHONPATH": "/p"}}})
        with LocalCore(open_folder / "core", user="root") as core:
            packages.deploy(core, NAME)
            assert core.note == "components run as root"
            assert written(core, "env") == "/p\n"

    def test_lite_keeps_every_variable(self, tmp_path: Path, packages: Any) -> None:
        packages.add(NAME, {"run": {"Script": "echo $PYTHONPATH > env; exec sleep 60", "Setenv": {"PYTHONPATH": "/p"}}})
        with LocalCore(tmp_path / "core", profile="lite") as core:
            packages.deploy(core, NAME)
            assert written(core, "env") == "/p\n"


def test_users_by_name_and_number() -> None:
    def root(text: str) -> tuple[int, int]:
        return (find_user(text).uid, find_user(text).gid)

    other = grp.getgrnam("daemon").gr_gid
    assert root("root") == root("0") == root("0:0") == (0, 0)
    assert root("root:daemon") == root(f"0:{other}") == (0, other)
    for wrong in ("no-such-user", "root:no-such-group", "4294967294:0", ":"):
        with pytest.raises(KeyError):
            find_user(wrong)


def _archive(script: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as content:
        content.writestr("main.sh", script)
    return data.getvalue()
