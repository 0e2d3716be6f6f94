"""Environments that are made of what .venv holds: as the install step makes them, or left to it."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from localdev import environments, workspace
from support import ROOT

LOCKS = sorted(ROOT.glob("components/*/requirements.lock"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked artifact of a component with few packages, some of them compiled."""
    folder = tmp_path_factory.mktemp("artifact")
    (build,) = workspace.Workspace().build(["serial_scraper"])
    (archive,) = build.glob("artifacts/*/*/*.zip")
    shutil.unpack_archive(archive, folder)
    return folder


def contents(work: Path) -> dict[str, str]:
    """Each file of the environment in use by its place, and its digest; without commands, which no component calls.

    A cached module holds the time of its source and a record the digests of commands, so of these the names count.
    """
    venv = (work / "venv").resolve()
    files = {path.relative_to(work): path for path in venv.rglob("*") if path.is_file() and path.parent.name != "bin"}
    return {
        str(place): ""
        if path.suffix == ".pyc" or path.name == "RECORD"
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for place, path in files.items()
        if path.name != "pyvenv.cfg"  # names the folder
    }


def test_links_make_what_the_install_step_makes(artifact: Path, tmp_path: Path) -> None:
    ours, steps = tmp_path / "ours", tmp_path / "steps"
    for folder in (ours, steps):
        folder.mkdir()
    assert environments.linked(artifact, ours, "python3")
    environments.installed(artifact, steps, "python3")
    assert contents(ours) == contents(steps)
    assert (ours / "venv").readlink() == (steps / "venv").readlink()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_the_environment_holds_what_every_lock_asks_for(lock: Path) -> None:
    """Else scripts/lock has not been run for both, and components are tested with other packages than they get."""
    assert environments.files_of(lock.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("msgspec==", "msgspec==0."),
        ("msgspec==", "no-such-package=="),
        ("--hash=sha256:", "--hash=sha256:0"),
        ("msgspec==", "six==0 \\\n    --hash=sha256:0\nmsgspec=="),
    ],
    ids=["version", "unknown", "hash", "one more"],
)
def test_what_the_environment_does_not_hold_is_left_to_the_install_step(
    old: str, new: str, artifact: Path, tmp_path: Path
) -> None:
    other, work = tmp_path / "artifact", tmp_path / "work"
    shutil.copytree(artifact, other)
    work.mkdir()
    lock = other / "requirements.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert not environments.linked(other, work, "python3")
    assert not [*work.iterdir()]


def test_another_python_is_left_to_the_install_step(artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho \"('cpython-399', '/usr')\"\n")
    other.chmod(0o755)
    assert not environments.linked(artifact, tmp_path, str(other))
    assert [*tmp_path.iterdir()] == [other]


def test_a_file_that_is_missing_is_left_to_the_install_step(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = (ROOT / "components" / "serial_scraper" / "requirements.lock").read_text(encoding="utf-8")
    assert environments.files_of(lock)
    is_file = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: not path.endswith("/_awscrt.abi3.so") and is_file(path))
    assert environments.files_of(lock) is None


def test_tests_and_services_that_no_component_calls_are_left_out(tmp_path: Path) -> None:
    """As the install step does: `trim` is the artifact's."""
    workspace.Workspace().lend_venvs(["log_shipper"], tmp_path)
    (site,) = tmp_path.glob("work/*/venv/lib/python*/site-packages")
    services = {path.name for path in (site / "botocore" / "data").iterdir() if path.is_dir()}
    assert "s3" in services and "ec2" not in services
