"""A program that finds what is in pictures, by one of the ways there are, in a process that does nothing else.

    python contestant.py WAY JOB FOLDER THREADS FRAME.npy

FOLDER is that of a bundle. Prints what it found in the first picture, then a JSON object with its figures. What a
contestant does not need is not imported, for its memory counts, too.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WARM_UP, FRAMES = 5, 40
FACES = (640, 384)  # width and height that a 720p picture has for the detector of faces
SHORTER, SIDE = 256, 224  # of a picture for the classifier
LEAST = {"things": 0.01, "faces": 0.3}  # score
OVERLAP = 0.4

Answer = list[tuple[str, float, list[float]]]  # label, score, box


def main() -> None:
    way, job, folder, threads, picture = sys.argv[1:6]
    frame, told, sys.stdout = np.load(picture), sys.stdout, sys.stderr  # products talk
    cv2.setNumThreads(int(threads))
    look = {"ours": ours, "variant": ours, "ultralytics": product}.get(way, bare)(way, job, Path(folder), int(threads))
    print(json.dumps(look(frame)), file=told, flush=True)
    for _ in range(WARM_UP):
        look(frame)
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(FRAMES):
        look(frame)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    resident = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()[0]
    figures = {"fps": FRAMES / wall, "cpu_ms": cpu / FRAMES * 1e3, "rss_mb": int(resident) * 1024 / 1e6}
    print(json.dumps(figures), file=told)


def ours(way: str, job: str, folder: Path, threads: int) -> Callable[[Any], Answer]:
    import msgspec

    from edgeml import models
    from edgeml.messages import SampleRef
    from inferencer.config import Pipeline
    from inferencer.sample import Sample
    from inferencer.sessions import session_of
    from inferencer.tasks import runner_of

    bundle = models.load(folder)
    if way == "variant":
        from inferencer.trial import How
        from inferencer.variants import chosen

        with tempfile.TemporaryDirectory() as work:
            how = How("auto", 10.0, ("CPUExecutionProvider",), threads, "all", FACES[0], patient=False)
            bundle = chosen(bundle, how, Path(work) / "variants.json")
    backend = {"type": "onnx", "model": bundle.ref.name}
    source = {"type": "camera", "camera": "c"}
    pipeline = msgspec.convert({"source": source, "backend": backend, "score_threshold": LEAST[job]}, Pipeline)
    session = session_of(bundle, providers=("CPUExecutionProvider",), threads=threads, optimization="all")
    runner = runner_of(bundle, session, pipeline)
    if job == "faces":
        runner.look(FACES[0], (1, 1))
    models.give_back()

    def look(frame: Any) -> Answer:
        outcome = runner.infer(Sample(frame, SampleRef(), time.monotonic_ns(), "bgr24"))
        assert outcome is not None
        return [(each.label, each.score, list(getattr(each, "box", ()))) for each in outcome.results]

    return look


def bare(way: str, job: str, folder: Path, threads: int) -> Callable[[Any], Answer]:
    """With ONNX Runtime or OpenCV as they come, as their own examples do it."""
    model = str(folder / "model.onnx")
    names = list(json.loads((folder / "model.json").read_text(encoding="utf-8"))["output"]["shapes"])
    run = _onnxruntime(model, names, threads) if way == "onnxruntime" else _opencv(model, names)
    labels = [line.strip() for line in (folder / "labels.txt").read_text().splitlines()] if job == "things" else []

    def things(frame: Any) -> Answer:
        scale = SHORTER / min(frame.shape[:2])
        small = cv2.resize(frame, None, fx=scale, fy=scale)
        top, left = (small.shape[0] - SIDE) // 2, (small.shape[1] - SIDE) // 2
        part = small[top : top + SIDE, left : left + SIDE]
        (scores,) = run(cv2.dnn.blobFromImage(part, 1 / 128, (SIDE, SIDE), (127, 127, 127), swapRB=True))
        chances = np.exp(scores[0] - scores[0].max())
        chances /= chances.sum()
        best = np.argsort(chances)[::-1][:5]
        return [(labels[index], float(chances[index]), []) for index in best if chances[index] >= LEAST[job]]

    def faces(frame: Any) -> Answer:
        heat, scale, offset, _ = run(cv2.dnn.blobFromImage(cv2.resize(frame, FACES), 1.0, swapRB=True))
        rows, columns = np.where(heat[0, 0] >= LEAST[job])
        sizes = np.exp(scale[0][:, rows, columns]) * 4
        middles = np.stack([rows, columns]) + offset[0][:, rows, columns] + 0.5
        boxes = [
            [float(x * 4 - w / 2), float(y * 4 - h / 2), float(w), float(h)]
            for (h, w), (y, x) in zip(sizes.T, middles.T, strict=True)
        ]
        scores = [float(score) for score in heat[0, 0][rows, columns]]
        kept = np.array(cv2.dnn.NMSBoxes(boxes, scores, LEAST[job], OVERLAP)).reshape(-1)
        ratio = frame.shape[1] / FACES[0], frame.shape[0] / FACES[1]
        return [("face", scores[i], [value * ratio[n % 2] for n, value in enumerate(boxes[i])]) for i in kept]

    return faces if job == "faces" else things


def product(way: str, job: str, folder: Path, threads: int) -> Callable[[Any], Answer]:
    """With ultralytics, which has no setting for ONNX Runtime's threads: as many as it has cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    from ultralytics import YOLO  # type: ignore[import-not-found]

    labels = [line.strip() for line in (folder / "labels.txt").read_text().splitlines()]
    model = YOLO(str(folder / "model.onnx"), task="classify")

    def look(frame: Any) -> Answer:
        found = model.predict(frame, imgsz=SIDE, device="cpu", verbose=False)[0].probs
        return [(labels[i], float(score), []) for i, score in zip(found.top5, found.top5conf, strict=True)]

    return look


def _onnxruntime(model: str, names: list[str], threads: int) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(names, {name: tensor})


def _opencv(model: str, names: list[str]) -> Callable[[Any], Any]:
    net = cv2.dnn.readNetFromONNX(model)

    def run(tensor: Any) -> Any:
        net.setInput(tensor)
        return net.forward(names)

    return run


if __name__ == "__main__":
    main()
