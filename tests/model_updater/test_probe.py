"""The process that tries a model, whatever the model makes it do."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model_updater import probe
from model_updater.errors import Stopped, UpdateError
from ota_support import bundle_files
from support import eventually, runs


def bundle(folder: Path) -> Path:
    for name, content in bundle_files("1.0.0").items():
        (folder / name).write_bytes(content)
    return folder


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the process do something else."""
    monkeypatch.setattr(probe, "CODE", code)


def tried(folder: Path, timeout_s: float = 30, stopping: threading.Event | None = None) -> None:
    probe.probe(folder, timeout_s, 4 << 30, stopping or threading.Event())


def test_nothing_of_environment_or_folder_changes_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('of the folder')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "onnxruntime.py"))
    monkeypatch.chdir(tmp_path)
    tried(bundle(tmp_path))


def test_what_it_says_is_kept_at_its_end_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ERRORS", 100)
    instead(monkeypatch, "import sys\nfor _ in range(40): sys.stderr.write('x' * 65536)\nsys.exit('the reason')")
    with pytest.raises(UpdateError, match=r"^x{89}the reason$"):
        tried(tmp_path)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "import os, time; os.close(2); time.sleep(60)"])
def test_its_time_and_a_stop_end_it_whatever_it_does_with_its_pipe(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, code)
    began = time.monotonic()
    with pytest.raises(UpdateError, match="in the time allowed"):
        tried(tmp_path, 0.3)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        tried(tmp_path, 50, stopping)
    assert time.monotonic() - began < 30


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"""
import os, threading, time
from pathlib import Path
from model_updater import probe
probe.CODE = probe.CODE.replace("raise", '''
import edgeml.models, os, time
def load(folder):
    os.mkdir({str(started)!r} + f"-{{os.getpid()}}")
    time.sleep(60)
edgeml.models.load = load
raise''')
threading.Thread(target=probe.probe, args=(Path("/"), 50, 4 << 30, threading.Event()), daemon=True).start()
while not list(Path({str(tmp_path)!r}).glob("started-*")):
    time.sleep(0.01)
os._exit(0)
"""
    subprocess.run([sys.executable, "-I", "-c", code], timeout=60, check=True)
    ((_, _, child),) = (path.name.partition("-") for path in tmp_path.iterdir())
    eventually(lambda: not runs(int(child)), what="the child has ended")
