"""From a frame in memory to labels and boxes: the Inferencer's runner beside what one would take instead.

Each contestant is a process of its own (contestant.py), with the same models (fp32; in rows of their own the variant
that a device chooses) and the same 720p picture, in turns: ONNX Runtime and OpenCV's DNN module as they come, and
ultralytics, whose figures were taken beside those of ONNX Runtime by tests/peers/speed_reference.py and are kept as
ratios to them, with its version.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import installed
from benchmarks.detecting import picture
from benchmarks.harness import Row
from edgeml import models
from edgeml.variants import this_processor

SIZE = (1280, 720)
ROUNDS = 3
JOBS = {"things": "ImageClassifier", "faces": "FaceDetector"}
GAINS = {"things": 1.7, "faces": 1.4}  # times as fast as fp32 in ONNX Runtime
PACKAGES = ("image_classifier", "face_detector")
FIGURES = {"cpu_ms": "ms of CPU", "fps": "frames/s", "rss_mb": "MB", "first_s": "s to the first answer"}
KEPT = Path(__file__).parents[1] / "peers" / "speed_reference.json"
TIMEOUT_S = 120.0

Figures = dict[str, float]


def run() -> list[Row]:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    rows: list[Row] = []
    with installed(*PACKAGES) as root:
        for job, threads in itertools.product(JOBS, (1, 2)):
            ways = {way: [sys.executable] for way in ("ours", "variant", "onnxruntime", "opencv")}
            figures = interleaved(root, job, threads, ways)
            rows.append(_chosen(job, threads, figures.pop("variant"), figures["onnxruntime"]))
            bare = figures["onnxruntime"]
            for name, ratios in kept["ratios"].get(f"{job} {threads}", {}).items():
                figures[f"{name} {kept['versions'][name]}"] = {key: bare[key] * ratios[key] for key in FIGURES}
            rows += itertools.chain(
                *(_rows(f"{job}, {threads} thread{'s' * (threads > 1)}, {key}", key, figures) for key in FIGURES)
            )
    return rows


def _chosen(job: str, threads: int, variant: Figures, bare: Figures) -> Row:
    """Bars are for machines with VNNI, and one thread."""
    vnni, least = "x86_64_vnni" in this_processor().isas, GAINS[job]
    ratio = bare["cpu_ms"] / variant["cpu_ms"]
    barred = vnni and threads == 1
    return Row(
        bench="peers", metric=f"{job}, {threads} thread{'s' * (threads > 1)}, the chosen variant", unit="ms of CPU",
        value=variant["cpu_ms"], limit=bare["cpu_ms"], ratio=ratio,
        bar=f">= {least:g} x onnxruntime on fp32" if barred else "shown", ok=not barred or ratio >= least,
    )  # fmt: skip


def _rows(metric: str, key: str, figures: dict[str, Figures]) -> Iterator[Row]:
    ours = figures["ours"][key]
    for name, other in figures.items():
        if name == "ours":
            continue
        ratio = ours / other[key]
        bar, ok = "shown", True
        # OpenCV's module is smaller than ONNX Runtime is alone, and takes two to three times the CPU.
        if key == "cpu_ms" or (key == "rss_mb" and name != "opencv"):
            most = 1.1 if (name, key) == ("onnxruntime", "cpu_ms") else 1.0
            bar, ok = f"<= {most:g} x {name}", ratio <= most
        unit = FIGURES[key]
        yield Row(
            bench="peers", metric=f"{metric} beside {name}", unit=unit, value=ours, limit=other[key], ratio=ratio,
            bar=bar, ok=ok,
        )  # fmt: skip


def interleaved(root: Path, job: str, threads: int, ways: Mapping[str, Sequence[str]]) -> dict[str, Figures]:
    """The medians of all contestants, by the Pythons that run them; all that prepare alike must have found the same."""
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        np.save(frame, picture(*SIZE))
        for _ in range(ROUNDS):
            for way, python in ways.items():
                bundle = models.component_folder(root, JOBS[job])
                script = Path(__file__).with_name("contestant.py")
                answers[way], figures = _asked([*python, str(script), way, job, str(bundle), str(threads), str(frame)])
                found[way].append(figures)
    for unlike in ("ultralytics", "variant"):  # one scales pixels its own way, the other rounds
        answers.pop(unlike, None)
    if len({tuple(label for label, *_ in answer[:1]) for answer in answers.values()}) != 1:
        raise RuntimeError(f"{job}: they do not find the same: {answers}")
    return {way: {key: statistics.median(each[key] for each in many) for key in FIGURES} for way, many in found.items()}


def _asked(command: Sequence[str]) -> tuple[Any, Figures]:
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        first_s = time.perf_counter() - began
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode}")
    return json.loads(first), {**json.loads(rest), "first_s": first_s}
