"""An install that fails says why, and leaves what ran."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from install_support import INJECTED, install, lock, make_artifact, names, runs, venv_of


@pytest.mark.parametrize(
    ("break_it", "changes", "reason"),
    [
        (lambda artifact: shutil.rmtree(artifact / "wheels"), ("pip",), "the package index cannot be reached"),
        (lambda artifact: lock(artifact, "9", "0" * 64), ("pip",), "tiny==9"),
        (lambda artifact: lock(artifact, "2", "0" * 64), ("pip",), "DO NOT MATCH"),
        (lambda artifact: (artifact / "requirements.lock").unlink(), (), "requirements.lock"),
        (None, ("importlib.util.find_spec=2",), "No such file"),
        (None, ("zipfile.ZipFile.extractall=28",), "the disk is full"),
        (None, ("zipfile.ZipFile.extractall=122",), "the disk is full"),
        (None, ("subprocess.Popen=5",), "Input/output error"),
    ],
    ids=["no network", "no such version", "wrong hash", "no lock", "broken python", "full", "quota", "disk error"],
)  # fmt: skip
def test_a_failed_install_says_why_and_leaves_what_ran(
    break_it: object, changes: tuple[str, ...], reason: str, work: Path, artifacts: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch, pip: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    if callable(break_it):
        break_it(artifacts[1])
    before = names(work)
    done = install(artifacts[1], work, *(pip if change == "pip" else change for change in changes), real=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("ERROR install of ")
    assert reason in done.stderr
    assert runs(work) == "1"
    assert names(work) - before <= {venv_of(artifacts[1])} if (artifacts[1] / "requirements.lock").exists() else True
    assert install(artifacts[0], work).returncode == 0


def test_packages_that_pip_put_elsewhere_are_missed(
    work: Path, artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pip: str
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    done = install(artifacts[1], work, pip, real=True)
    assert (done.returncode, runs(work)) == (1, "1")
    assert "is PIP_TARGET or another option of it set?" in done.stderr


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_what_to_install(missing: str, work: Path, artifacts: tuple[Path, Path]) -> None:
    code = INJECTED.replace(
        "install.main()",
        f"""
find, variable = importlib.util.find_spec, install.sysconfig.get_config_var
importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)
install.sysconfig.get_config_var = lambda name: None if name == "WHEEL_PKG_DIR" else variable(name)
install.main()""",
    )
    command = [sys.executable, "-I", "-c", code, str(artifacts[1] / "edgeml" / "install.py")]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert runs(work) == "1"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


@pytest.mark.parametrize(("size", "unpacked"), [("4m", False), ("24m", True)], ids=["at once", "in pip"])
def test_a_full_disk_is_said_as_such(size: str, unpacked: bool, both: Path, pip: str, tmp_path: Path) -> None:
    big = make_artifact(tmp_path / "3", "3", size=30_000_000)
    with small_disk(tmp_path / "disk", size):
        work = Path(shutil.copytree(both, tmp_path / "disk" / "work", symlinks=True))
        before = names(work)
        done = install(big, work, *([pip] if unpacked else []), real=True)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "the disk is full" in last
        assert str(work) in last
        assert (names(work), runs(work)) == (before, "1")


def test_a_disk_that_cannot_be_written_is_enough_for_what_is_installed(
    both: Path, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "10m"):
        work = Path(shutil.copytree(both, tmp_path / "disk" / "work", symlinks=True))
        (work / "venv-00000000000000ff").mkdir()  # of a killed install
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True, timeout=10)
        assert install(artifacts[0], work).returncode == 0
        refused = install(artifacts[1], work)
        assert (refused.returncode, runs(work)) == (1, "1")
        assert "Read-only file system" in refused.stderr.strip().splitlines()[-1]


def test_a_switch_that_fails_leaves_what_ran(both: Path, artifacts: tuple[Path, Path]) -> None:
    done = install(artifacts[1], both, "Path.symlink_to=28")
    assert (done.returncode, runs(both)) == (1, "1")
    assert "the disk is full" in done.stderr
    assert install(artifacts[1], both).returncode == 0
    assert runs(both) == "2"
