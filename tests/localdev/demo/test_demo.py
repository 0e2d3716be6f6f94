"""The demo as a person runs it: what it shows and writes, and that Ctrl-C leaves nothing of it."""

import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from localdev.demo.__main__ import main
from support import ROOT, eventually

SHM = Path("/dev/shm")
PR_SET_CHILD_SUBREAPER = 36
START_TIMEOUT_S = 600  # the first run installs the components' packages
pytestmark = pytest.mark.timeout(START_TIMEOUT_S)
END_TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def orphans_are_ours() -> Iterator[None]:
    """A process that its parent leaves behind becomes a child of this one, where it is seen."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs scripts/demo in a process group of its own; when the block ends it has ended and left nothing."""
    (folder / "tmp").mkdir()
    command = [str(ROOT / "scripts" / "demo"), "--headless", "--home", str(folder / "home"), *words]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            start_new_session=True,
        )
        try:
            yield process
            process.wait(START_TIMEOUT_S)
        finally:
            children = psutil.Process().children(recursive=True)
            left = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
            for child in left:
                child.kill()
            psutil.wait_procs(children, 5)
    assert not left, f"processes are left: {left}"
    shared = [*SHM.glob(f"edgeml-demo-{process.pid}-*"), *SHM.glob(f"shm-demo{process.pid:x}*")]
    assert not shared, f"shared memory is left: {shared}"
    assert "left in" not in (folder / "output").read_text()
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert not sockets, f"sockets are left: {sockets}"
    temporary = {path.name for path in (folder / "tmp").iterdir()} - {".ses"}  # which ONNX Runtime makes
    assert not temporary, f"temporary files are left: {temporary}"


def test_stages_show_their_figures_and_everything_ends(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    wanted = ("dashboards", "serial_scraper", "sample_collection", "iot_core", "monitor")
    needed = {"emotions", "edge_logs", "live_inference", "anomaly", "s3_crops", "inferencer", "camera_capture"}
    words = [word for name in wanted for word in ("--stage", name)]
    with demo(tmp_path, "--seconds", "9", "--watch", "--json", str(figures), *words) as process:
        output = tmp_path / "output"
        staying = "everything goes on until Ctrl-C"
        eventually(lambda: staying in output.read_text() or process.poll() is not None, START_TIMEOUT_S, "the end")
        address = re.findall(r"look around: (http://\S+/)", output.read_text())[-1]
        assert httpx.get(f"{address}sign-in", trust_env=False, timeout=10).status_code == 200
        os.killpg(process.pid, signal.SIGINT)
        process.wait(END_TIMEOUT_S)
    printed = output.read_text()
    assert process.returncode == 0, printed
    stages = json.loads(figures.read_text())["stages"]
    assert set(stages) == {*wanted, *needed}
    assert all(stage["ok"] for stage in stages.values())
    assert stages["serial_scraper"]["labels"] == ["cup", "face"]
    assert stages["camera_capture"]["frames"] > 0
    assert stages["inferencer"]["detections"] > 0
    assert stages["sample_collection"]["sent"] == stages["sample_collection"]["found"] > 0
    assert stages["monitor"]["boxes"] > 0
    assert stages["monitor"]["boxes_unlike"] == 0
    assert stages["emotions"]["items"] > 0
    assert set(stages["emotions"]["strongest"]) <= set(stages["emotions"]["metrics"])
    assert min(stages["edge_logs"]["lines"].values()) > 0
    assert stages["live_inference"]["endpoint_invocations"] >= stages["live_inference"]["answers"] > 0
    pictures = [Path(each) for each in stages["dashboards"]["pictures"]]
    assert [picture.stem for picture in pictures] == list(stages["dashboards"]["points"])
    assert min(stages["dashboards"]["points"].values()) > 0
    summary = printed[printed.index("What the demo saw") :]
    assert [line for line in summary.splitlines() if len(line) > 80 and " " in line.strip()] == []
    unwrapped = "".join(summary.split())
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.name in unwrapped


def test_a_second_demo_in_the_same_home_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with (tmp_path / ".home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [str(ROOT / "scripts" / "demo"), "--home", str(home), "--headless", "--seconds", "1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        f"another demo is running in {home}: wait for it, or choose another --home",
    )
    assert not home.exists()


def deploys(folder: Path, pid: int) -> bool:
    return "deployment create" in (folder / "output").read_text()


def runs(folder: Path, pid: int) -> bool:
    """Whether there are frame rings, who reads them, and a model's process with its memory."""
    log = folder / "home" / "gg" / "logs" / "edgeml.Inferencer.log"
    begun = log.exists() and "started component=" in log.read_text()
    return begun and all(any(SHM.glob(each)) for each in (f"edgeml-demo-{pid}-*/*", f"shm-demo{pid:x}*"))


@pytest.mark.parametrize("moment", [deploys, runs])
def test_ctrl_c_leaves_nothing(moment: Callable[[Path, int], bool], tmp_path: Path) -> None:
    """While components are being deployed, and while all kinds of processes run."""
    words = ["--stage", "inferencer", "--stage", "edge_impulse_runner"]
    with demo(tmp_path, "--seconds", "60", *words) as process:
        output, what = tmp_path / "output", moment.__name__
        eventually(lambda: moment(tmp_path, process.pid) or process.poll() is not None, START_TIMEOUT_S, what)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
        os.kill(process.pid, signal.SIGINT)  # and once more, impatiently
        process.wait(END_TIMEOUT_S)
    printed = output.read_text()
    assert process.returncode == 130, printed
    assert "everything is stopped" in printed
    assert "Traceback" not in printed, printed


@pytest.fixture
def signals() -> Iterator[None]:
    """The demo takes them for itself, for as long as its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_stage_without_evidence_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No time for what the stage has to show."""
    words = ["--headless", "--home", str(tmp_path / "home"), "--seconds", "0", "--stage", "sample_collection"]
    monkeypatch.setattr(sys, "argv", ["scripts/demo", *words])
    assert main() == 1
    assert "no evidence: sample_collection" in capsys.readouterr().out


def test_a_folder_with_other_things_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").touch()
    with demo(tmp_path) as process:
        process.wait(START_TIMEOUT_S)
    assert process.returncode == 2
    assert (tmp_path / "home" / "precious").exists()
