import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_impulse_runner.eim import Eim
from edge_impulse_runner.errors import EimGone, EimRefused
from edge_impulse_runner.process import sweep
from edgeml.edge_impulse.results import Box, Result, TrackedBox
from support import eventually

Opened = Callable[..., Eim]

BOXES = [
    Box(label="face", value=0.91, x=1, y=2, width=3, height=4),
    Box(label="face", value=0.61, x=5, y=6, width=7, height=8),
]
CELL = Box(label="anomaly", value=5.5, x=0, y=0, width=8, height=8)
SCORES = {"face": 0.9, "background": 0.1}


def zeros(model: Eim) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.zeros(model.hello.model_parameters.input_features_count, dtype=np.float32)


@pytest.mark.parametrize("shm", ["offered", "failed"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("classification", Result(classification=SCORES)),
        ("motion", Result(classification=SCORES)),
        ("regression", Result(classification={"value": 12.5}, is_regression=True)),
        ("kmeans", Result(classification=SCORES, anomaly=-0.25)),
        ("gmm", Result(classification=SCORES, anomaly=-0.25)),
        ("box", Result(bounding_boxes=BOXES)),
        ("fomo", Result(bounding_boxes=BOXES)),
        (
            "tracking",
            Result(
                bounding_boxes=BOXES,
                object_tracking=[TrackedBox(object_id=4, label="face", value=0.91, x=1, y=2, width=3, height=4)],
            ),
        ),
        ("grid", Result(visual_anomaly_grid=[CELL], visual_anomaly_max=5.5, visual_anomaly_mean=2.25)),
        ("freeform", Result(freeform=[[1.0, 2.0, 3.0], [0.5]])),
    ],
)
def test_every_kind_of_result_with_and_without_shared_memory(
    opened: Opened, kind: str, expected: Result, shm: str
) -> None:
    model = opened(kind=kind, shm=shm)
    assert model.uses_shared_memory == (shm == "offered")
    answer = model.classify(zeros(model))
    assert answer.result == expected
    assert (answer.timing.dsp, answer.timing.classification, answer.timing.total_ms) == (2, 14, 16)


@pytest.mark.parametrize("shm", ["offered", "failed", "missing", "old"])
def test_features_arrive_exactly(opened: Opened, tmp_path: Path, shm: str) -> None:
    record = tmp_path / "record"
    model = opened(shm=shm, record=str(record))
    features = np.random.default_rng(1).integers(0, 1 << 24, 96 * 96).astype(np.float32)
    model.classify(features)
    line = json.loads(record.read_text())
    assert line["shm"] == (shm == "offered")
    assert line["crc"] == zlib.crc32(features.tobytes())


def test_a_model_from_before_shared_memory(opened: Opened) -> None:
    model = opened(shm="old")
    parameters = model.hello.model_parameters
    assert (parameters.model_type, parameters.image_resize_mode) == ("classification", "squash")
    assert model.classify(zeros(model)).result == Result(classification=SCORES)


def test_continuous_slices_fill_a_window(opened: Opened) -> None:
    model = opened(kind="audio", labels=["noise", "yes"])
    window = np.zeros(4000, dtype=np.float32)
    answers = [model.classify_continuous(window).result.classification for _ in range(4)]
    assert answers == [{"noise": 0.0, "yes": 0.0}] * 3 + [{"noise": 0.9, "yes": 0.1}]


def test_set_threshold_reaches_the_model(opened: Opened) -> None:
    model = opened(kind="box")
    model.set_threshold(3, {"min_score": 0.7})
    assert model.classify(zeros(model)).result == Result(bounding_boxes=BOXES[:1])


def test_a_refusal_is_told_and_the_model_goes_on(opened: Opened) -> None:
    model = opened(kind="box")
    with pytest.raises(EimRefused, match="cannot find learn block with id 99"):
        model.set_threshold(99, {"min_score": 0.7})
    with pytest.raises(EimRefused, match="expected 9216, but got 5"):
        model.classify(np.zeros(5, dtype=np.float32))
    assert model.classify(zeros(model)).result.bounding_boxes == BOXES


def test_labels_may_hold_braces_and_replies_may_come_in_pieces(opened: Opened) -> None:
    labels = ["}", "{ä", '"\\']
    model = opened(labels=labels, misbehaves="splits")
    assert model.hello.model_parameters.labels == labels
    assert list(model.classify(zeros(model)).result.classification or {}) == sorted(labels)


def test_a_reply_as_large_as_the_model_may_send(opened: Opened) -> None:
    boxes = [{"label": "x" * 100, "value": 0.9, "x": i, "y": 0, "width": 1, "height": 1} for i in range(20_000)]
    model = opened(kind="box", results=[{"bounding_boxes": boxes}])
    assert len(model.classify(zeros(model)).result.bounding_boxes or []) == 20_000


def test_large_inputs_go_as_json_within_the_timeout(opened: Opened) -> None:
    model = opened(width=320, height=320, shm="failed", classify_timeout_s=3.0)  # 102,400 numbers
    assert model.classify(zeros(model)).result.classification == SCORES


def test_a_hung_model_is_noticed_and_killed(opened: Opened) -> None:
    model = opened(misbehaves="hangs", classify_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(EimGone, match=r"hangs: no reply in 0\.2 s"):
        model.classify(zeros(model))
    assert time.monotonic() - began < 20  # by itself it never ends
    pid = model.pid
    model.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_slow_model_is_given_its_time(opened: Opened) -> None:
    model = opened(misbehaves="slow", delay_s=0.3, classify_timeout_s=2.0)
    assert model.classify(zeros(model)).result.classification == SCORES


@pytest.mark.parametrize(
    ("misbehaves", "words"),
    [
        ("dies", r"killed by SIGABRT.*std::bad_alloc"),
        ("garbage", "not understood"),
        ("wrong_id", "answered message 999999 instead of 2"),
    ],
)
def test_a_dead_or_raving_model_is_gone(opened: Opened, misbehaves: str, words: str) -> None:
    model = opened(misbehaves=misbehaves)
    with pytest.raises(EimGone, match=words):
        model.classify(zeros(model))


def test_a_killed_models_shared_memory_is_removed(opened: Opened) -> None:
    model = opened()
    assert model.hello.features_shm is not None
    block = Path("/dev/shm") / model.hello.features_shm.name.lstrip("/")
    os.kill(model.pid, 9)
    with pytest.raises(EimGone, match="SIGKILL"):
        model.classify(zeros(model))
    assert block.exists()
    model.close()
    assert not block.exists()


@pytest.mark.parametrize(
    ("misbehaves", "words"),
    [
        ("exits_at_start", r"ended at start: exit code 127: error while loading shared libraries"),
        ("never_listens", "does not listen"),
        ("silent_hello", "hangs: no reply"),
    ],
)
def test_a_model_that_does_not_start_is_told_in_time(opened: Opened, misbehaves: str, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(EimGone, match=words):
        opened(misbehaves=misbehaves, start_timeout_s=0.6)
    assert time.monotonic() - began < 8.0  # of the 10 that it may have otherwise


def test_a_file_that_cannot_be_run(no_leaks: None, tmp_path: Path) -> None:
    with pytest.raises(EimGone, match=r"cannot run .*: No such file"):
        Eim(tmp_path / "absent.eim").open()
    text = tmp_path / "text.eim"
    text.write_text("no program")
    with pytest.raises(EimGone, match="Permission denied"):
        Eim(text).open()


def test_close_wakes_whoever_waits_for_the_model(opened: Opened) -> None:
    model = opened(misbehaves="slow", delay_s=60.0, classify_timeout_s=60.0)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            model.classify(zeros(model))
        except EimGone as error:
            caught.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    time.sleep(0.1)  # until it waits; were it later, classify would fail at once, which the assertion allows
    model.close()
    asker.join(timeout=5)
    assert len(caught) == 1
    model.close()


def test_attaching_leaves_the_model_to_its_owner(launcher: Callable[..., Path], tmp_path: Path) -> None:
    address = tmp_path / "s"
    process = subprocess.Popen([launcher(), address], stdout=subprocess.DEVNULL)
    try:
        eventually(address.exists, what="socket")
        with Eim(address) as model:
            assert model.pid == 0
            assert model.classify(zeros(model)).result.classification == SCORES
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()


def test_attaching_to_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    address = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address))
        with pytest.raises(EimGone, match="does not listen"):
            Eim(address, start_timeout_s=0.1).open()


def test_warm_up_for_engines_that_compile_at_first_use(opened: Opened) -> None:
    model = opened(gpu=True, misbehaves="slow", delay_s=0.3, classify_timeout_s=0.1)
    assert model.hello.needs_warm_up
    model.warm_up(timeout_s=5.0)


KILLED = """
import sys, os, signal
from pathlib import Path
from edge_impulse_runner.eim import Eim
model = Eim(Path(sys.argv[1]), folder=Path(sys.argv[2])).open()
print(model.pid, model.hello.features_shm.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_runner_leaves_is_swept_up_by_the_next(launcher: Callable[..., Path], no_leaks: None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-c", KILLED, str(launcher(outlives_client=True)), name]
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={}, timeout=20)
        pid, block = found.stdout.split()
        os.kill(int(pid), 0)
        assert len(list(folder.glob("eim-*/s"))) == 1
        sweep(folder)
        eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid), what="the model's end")
        assert list(folder.iterdir()) == []
        assert not (Path("/dev/shm") / block.lstrip("/")).exists()


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_sweeping_ends_no_stranger(tmp_path: Path) -> None:
    left = tmp_path / "eim-12345678"
    left.mkdir()
    (left / "process").write_text(f"{os.getpid()} 1")  # our id, started at another time
    (left / "shm").write_text("../../etc/passwd")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
