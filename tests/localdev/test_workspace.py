"""Builds for tests, the demo and benchmarks, of which several may run at a time."""

import fcntl
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import build as build_script
from localdev import workspace

MANY = """
import shutil, sys, zipfile
from pathlib import Path
from localdev import workspace
from localdev.workspace import Workspace
workspace.BUILDS = Path(sys.argv[1])
for _ in range(10):
    shutil.rmtree(workspace.BUILDS, ignore_errors=True)
    (build,) = Workspace().build(["serial_scraper"])
    (archive,) = build.glob("artifacts/*/*/*.zip")
    assert zipfile.ZipFile(archive).testzip() is None
    assert len(list(build.glob("recipes/*.yaml"))) == 1
print(build)
"""


def test_processes_that_build_the_same_component_at_once_each_have_it_whole_until_they_end(
    tmp_path: Path,
) -> None:
    commands = [[sys.executable, "-c", MANY, str(tmp_path / name)] for name in ("one", "other")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert not [folder for folder in outputs if Path(folder.strip()).exists()]


def test_a_component_is_built_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "serial_scraper"
    source = workspace.ROOT / "components" / "serial_scraper"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("greengrass-build"))
    monkeypatch.setattr(workspace, "BUILDS", tmp_path / "builds")
    monkeypatch.setattr("build.component_folders", lambda: {"serial_scraper": folder})

    def sources() -> list[str]:
        """What the archive of a new process' build holds of the component's own code, by name and size."""
        (build,) = workspace.Workspace().build(["serial_scraper"])
        with zipfile.ZipFile(next(build.glob("artifacts/*/*/*.zip"))) as archive:
            return [f"{each.filename} {each.CRC}" for each in archive.infolist() if "serial_scraper" in each.filename]

    first, made = sources(), (tmp_path / "builds" / "serial_scraper").stat().st_mtime_ns
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert (sources(), (tmp_path / "builds" / "serial_scraper").stat().st_mtime_ns) == (first, made)
    (folder / "more.py").write_text("")
    assert sources() == sorted([*first, "serial_scraper/more.py 0"])
    (folder / "more.py").write_text("#")
    changed = sources()
    assert (len(changed), "serial_scraper/more.py 0" in changed) == (len(first) + 1, False)
    (folder / "more.py").unlink()
    assert sources() == first
    shutil.rmtree(tmp_path / "builds" / "serial_scraper")
    assert sources() == first


def test_what_is_prepared_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = build_script.component_folders()
    monkeypatch.setattr(build_script, "component_folders", lambda: {"serial_scraper": folders["serial_scraper"]})
    monkeypatch.setattr(workspace, "BUILDS", tmp_path / "builds")
    workspace.prepare()
    made = (tmp_path / "builds" / "serial_scraper").stat().st_mtime_ns
    workspace.prepare()
    assert (tmp_path / "builds" / "serial_scraper").stat().st_mtime_ns == made
    monkeypatch.setattr(subprocess, "run", None)  # nothing is left to be installed
    workspace.Workspace().lend_venvs(["serial_scraper"], tmp_path / "gg")
    assert (tmp_path / "gg" / "work" / "edgeml.SerialScraper" / "venv").exists()


def test_a_lock_that_is_never_given_back_is_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "BUILD_LOCKS", tmp_path)
    monkeypatch.setattr(workspace, "BUILD_TIMEOUT_S", 0.1)
    with (tmp_path / "serial_scraper").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match=r"serial_scraper is held by another process for 0\.1 s"):
            workspace.Workspace().build(["serial_scraper"])
        assert workspace.Workspace().build(["sample_requester"]), "who needs another one does not wait"


def test_the_install_step_finds_a_lent_environment_done(tmp_path: Path) -> None:
    builds = workspace.Workspace()
    for _ in range(2):  # a root may be lent to again
        builds.lend_venvs(["serial_scraper"], tmp_path)
    (work,) = (tmp_path / "work").iterdir()
    assert {path.name for path in work.iterdir()} == {"venv"}
    (build,) = builds.build(["serial_scraper"])
    (archive,) = build.glob("artifacts/*/*/*.zip")
    shutil.unpack_archive(archive, tmp_path / "artifact")
    command = ["python3", "-I", str(tmp_path / "artifact" / "edgeml" / "install.py")]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in work.iterdir()} == {"venv"}


def test_lent_code_is_what_the_archive_holds_and_needs_no_compiling(tmp_path: Path) -> None:
    builds = workspace.Workspace()
    builds.lend_venvs(["serial_scraper"], tmp_path)
    (build,) = builds.build(["serial_scraper"])
    (archive,) = build.glob("artifacts/*/*/*.zip")
    packages, version = tmp_path / "packages", Path(*archive.parts[-3:-1])
    assert (packages / "artifacts" / version / archive.name).read_bytes() == archive.read_bytes()
    lent = packages / "artifacts-unarchived" / version / archive.stem
    with zipfile.ZipFile(archive) as zipped:
        content = {name: zipped.read(name) for name in zipped.namelist()}
    files = {path for path in lent.rglob("*") if path.is_file()}
    assert {str(path.relative_to(lent)): path.read_bytes() for path in files if path.suffix != ".pyc"} == content
    for source in lent.rglob("*.py"):
        compiled = Path(importlib.util.cache_from_source(source)).read_bytes()
        assert int.from_bytes(compiled[8:12], "little") == int(source.stat().st_mtime)


def test_a_bundle_is_built_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "BUNDLES", tmp_path / "bundles")
    folder = workspace.bundle("duration")
    assert {path.name for path in folder.iterdir()} >= {"model.json", "model.onnx"}
    made = folder.stat().st_mtime_ns
    monkeypatch.setattr(workspace, "BUILD_TIMEOUT_S", 0)  # no time for another one
    assert workspace.bundle("duration").stat().st_mtime_ns == made
    assert [path.name for path in folder.parent.iterdir()] == ["duration"]
