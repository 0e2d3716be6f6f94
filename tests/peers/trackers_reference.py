"""What another tracker makes of the same boxes: ByteTrack of Roboflow's `trackers`, kept in trackers_reference.json.

    .venv/bin/python tests/peers/trackers_reference.py [PYTHON that can import trackers]

makes the file anew; without PYTHON in an environment that is made for it, and removed.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

import tracking_support as support

KEPT = Path(__file__).with_suffix(".json")
VERSION = "2.6.1"
DRIVER = """
import json, sys, warnings
import numpy, supervision
from importlib.metadata import version
from trackers import ByteTrackTracker

warnings.simplefilter("ignore")
answers = []
for rate, frames in json.load(sys.stdin):
    tracker, told = ByteTrackTracker(frame_rate=rate), []
    for corners, scores in frames:
        corners, scores = numpy.array(corners).reshape(-1, 4), numpy.array(scores, numpy.float32)
        found = tracker.update(supervision.Detections(xyxy=corners, confidence=scores))
        kept = found.tracker_id != -1
        told.append([found.xyxy[kept].tolist(), found.tracker_id[kept].tolist()])
    answers.append(told)
json.dump({"version": version("trackers"), "answers": answers}, sys.stdout)
"""


def made(python: str) -> dict[str, Any]:
    """The figures by what `python` can import. Raises CalledProcessError."""
    runs = [(name, rate, frames) for name, (rate, several) in support.sequences().items() for frames in several]
    asked = json.dumps([[rate, [_corners(frame) for frame in frames]] for _, rate, frames in runs])
    found = subprocess.run(
        [python, "-c", DRIVER], input=asked, capture_output=True, text=True, timeout=300, check=True
    ).stdout
    told = json.loads(found.splitlines()[-1])
    figures: dict[str, list[float]] = {}
    for (name, _, frames), answers in zip(runs, told["answers"], strict=True):
        figures.setdefault(name, []).append(support.idf1(frames, [(_boxes(corners), ids) for corners, ids in answers]))
    means = {name: round(float(np.mean(several)), 4) for name, several in figures.items()}
    return {"package": "trackers", "version": told["version"], "idf1": means}


def _corners(frame: support.Frame) -> list[Any]:
    corners = np.concatenate([frame.boxes[:, :2], frame.boxes[:, :2] + frame.boxes[:, 2:]], axis=1)
    return [corners.tolist(), frame.scores.tolist()]


def _boxes(corners: list[list[float]]) -> support.Array:
    found = np.array(corners, float).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], axis=1)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        python = sys.argv[1] if sys.argv[1:] else f"{folder}/bin/python"
        if not sys.argv[1:]:
            venv.create(folder, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", f"trackers=={VERSION}"], check=True, timeout=600)
        KEPT.write_text(json.dumps(made(python), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
