"""The install step as the device runs it: a script in an unpacked artifact, an empty lock, no network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "edgeml").mkdir(parents=True)
    shutil.copy(ROOT / "components" / "edgeml" / "install.py", folder / "edgeml")
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "wheels").mkdir()
    return folder


def install(artifact: Path, work: Path) -> subprocess.CompletedProcess[str]:
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-I", str(artifact / "edgeml" / "install.py")]
    environment = {**os.environ, "PYTHONPATH": "/nonexistent"}
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=60)


def test_it_makes_an_environment_once_and_again_for_a_new_lock(artifact: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert install(artifact, work).returncode == 0
    python = work / "venv" / "bin" / "python"
    assert subprocess.run([str(python), "-c", "import pip"]).returncode == 0
    made = (work / "venv" / "installed").stat().st_mtime_ns
    again = install(artifact, work)
    assert (again.returncode, again.stdout) == (0, "")
    assert (work / "venv" / "installed").stat().st_mtime_ns == made
    (artifact / "requirements.lock").write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    refused = install(artifact, work)
    assert refused.returncode != 0
    assert "no-such-package" in refused.stderr
    assert not (work / "venv" / "installed").exists()  # so that the next start tries again
