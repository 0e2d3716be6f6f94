"""The frame in which a model is swapped for its new version, beside frames of a quiet time, in one run.

A 720p frame every 40 ms goes through a pipeline of the inferencer to its result (image classifier, some 10 ms on one
thread), while new versions of the model are activated as edgeml.ModelUpdater does it. Measured is the time from the
frame being announced to its result. The new version is loaded and tried on another thread: what that takes from the
frames meanwhile is shown as well.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, percentile
from benchmarks.inferencer_overhead import Clock
from edgeml import messages, models
from edgeml.frames import FrameWriter
from edgeml.messages import ModelActivate
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly, Running
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.camera import CameraSource
from inferencer_support import deliver, make_context, no_uploads, pipeline
from model_updater.store import Store, entry_name
from support import eventually

MODEL = "ImageClassifier"
SWITCHES, QUIET, WARM_UP = 15, 20, 10
INTERVAL_S = 0.04
LONGEST = 250  # frames until a switch must have happened
FRAME = np.random.default_rng(3).integers(0, 256, (720, 1280, 3), np.uint8)


def run() -> list[Row]:
    quiet: list[float] = []
    loading: list[float] = []
    swapped: list[float] = []
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as rings:
        clock = Clock()
        cv2.setNumThreads(1)  # as the component does
        context = make_context(root, clock)
        relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        settings = pipeline(OnnxBackend(model=MODEL), CameraSource(camera="c"))
        with FrameWriter("c", width=1280, height=720, directory=Path(rings)) as writer:
            running = Assembly(context, Path(rings), relay, no_uploads).start("p", settings)
            try:
                eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 20, "the model")
                for _ in range(WARM_UP):
                    answered(writer, clock)
                for number in range(SWITCHES):
                    quiet += [answered(writer, clock)[0] for _ in range(QUIET)]
                    version = f"2.0.{number}"
                    activate(root, version, running)
                    for _ in range(LONGEST):
                        took, answering = answered(writer, clock)
                        if answering == version:
                            swapped.append(took)
                            break
                        loading.append(took)
            finally:
                running.worker.stop()
                relay.close()
    if len(swapped) != SWITCHES:
        raise RuntimeError(f"{SWITCHES - len(swapped)} versions were never used")
    return _rows(quiet, loading, swapped)


def answered(writer: FrameWriter, clock: Clock) -> tuple[float, str]:
    """Milliseconds from the next frame to its result, and the version of the model that gave it."""
    time.sleep(max(0.0, clock.at + INTERVAL_S - time.perf_counter()))
    clock.published.clear()
    with writer.slot() as slot:
        slot.image[:] = FRAME
        began = time.perf_counter()
    if not clock.published.wait(5):
        raise RuntimeError("no result within 5 s")
    return (clock.at - began) * 1e3, clock.result["model"]["version"]


def activate(root: Path, version: str, running: Running) -> None:
    """Install the classifier once more under another version, turn the link, and tell the pipeline."""
    folder = models.updater_folder(root, MODEL).parent
    folder.mkdir(parents=True, exist_ok=True)
    fresh, store = folder / "unpacked", Store(folder)
    shutil.copytree(models.component_folder(root, MODEL), fresh)
    manifest = json.loads((fresh / "model.json").read_text())
    (fresh / "model.json").write_text(json.dumps(manifest | {"version": version}))
    entry = entry_name(version, manifest["sha256"])
    store.place(fresh, entry)
    store.activate(entry)
    told = ModelActivate(model=MODEL, version=version, path=str(store.path(entry)), request_id=version)
    deliver(running, messages.model_activate(MODEL), messages.encode(told))


def _rows(quiet: list[float], loading: list[float], swapped: list[float]) -> list[Row]:
    normal = percentile(quiet, 50)
    worst = percentile(quiet, 99)
    return [
        Row(
            bench="ota_switch",
            metric="frame of the swap p50",
            unit="ms",
            value=percentile(swapped, 50),
            limit=normal,
            ratio=percentile(swapped, 50) / normal,
            bar="<= 1.5 x a normal frame",
            ok=percentile(swapped, 50) <= 1.5 * normal,
        ),
        Row(
            bench="ota_switch",
            metric="frames while the new version loads p50",
            unit="ms",
            value=percentile(loading, 50) if loading else normal,
            limit=normal,
            ratio=(percentile(loading, 50) if loading else normal) / normal,
            bar="<= 2 x a normal frame",
            ok=not loading or percentile(loading, 50) <= 2 * normal,
        ),
        Row(
            bench="ota_switch",
            metric="worst frame of a switch",
            unit="ms",
            value=max(loading + swapped),
            limit=worst,
            ratio=max(loading + swapped) / worst,
            bar="below 100 ms: no frame of 10/s is late",
            ok=max(loading + swapped) < 100,
        ),
    ]
