"""An install that is killed anywhere: what ran still runs, and the next one finishes."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from install_support import command, install, names, old, runs, venv_of
from support import eventually


@pytest.mark.parametrize("change", ["zipfile.ZipFile.extractall=after", "trim=before"])
def test_killed_while_it_makes_one_it_leaves_what_ran(change: str, work: Path, artifacts: tuple[Path, Path]) -> None:
    assert install(artifacts[1], work, change).returncode == -signal.SIGKILL
    assert runs(work) == "1"
    assert install(artifacts[0], work).returncode == 0  # a rollback
    assert names(work) == {"checkpoint", "venv", venv_of(artifacts[0])}
    assert runs(work) == "1"


def test_killed_it_is_done_again(work: Path, artifacts: tuple[Path, Path]) -> None:
    assert install(artifacts[1], work, "subprocess.Popen=before").returncode == -signal.SIGKILL
    assert install(artifacts[1], work).returncode == 0
    assert (runs(work), names(work)) == ("2", {"checkpoint", "venv", venv_of(artifacts[0]), venv_of(artifacts[1])})


SWITCH = {
    False: ["Path.symlink_to=before", "Path.symlink_to=after", "Path.replace=after", "os.fsync=after"],
    True: ["Path.symlink_to=before", "Path.symlink_to=after", "shutil.rmtree=before", "Path.rename=before",
           "Path.rename=after", "os.fsync=after"],
}  # fmt: skip


@pytest.mark.parametrize(("of_1_0", "change"), [(old, change) for old, changes in SWITCH.items() for change in changes])
def test_killed_while_it_switches_one_of_both_runs(
    of_1_0: bool, change: str, both: Path, artifacts: tuple[Path, Path]
) -> None:
    if of_1_0:
        old(both)
    assert install(artifacts[1], both, change).returncode == -signal.SIGKILL
    assert runs(both) in ("1", "2")
    done = install(artifacts[1], both)
    assert (done.returncode, done.stdout, runs(both)) == (0, "", "2")
    before = "venv-1.0" if of_1_0 else venv_of(artifacts[0])
    assert names(both) == {"venv", before, venv_of(artifacts[1])}


def test_pip_ends_with_the_install_that_started_it(
    work: Path, artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, pip: str
) -> None:
    """Left alive it would write into the environment that the next install makes."""
    shutil.rmtree(artifacts[1] / "wheels")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with subprocess.Popen(command(artifacts[1], pip), cwd=work, stdout=subprocess.DEVNULL) as running:
            connection, _ = silent.accept()
            running.kill()
        with connection:
            connection.settimeout(10)
            eventually(lambda: connection.recv(1000) == b"", what="end of pip")
    assert runs(work) == "1"
