"""What another tracker makes of the same boxes: Roboflow's `trackers` (ByteTrack), kept in trackers_reference.json.

To make it anew, in an environment of its own:

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install trackers==2.6.1 trackeval==1.3.0
    PYTHONPATH=tests:scripts /tmp/peer/bin/python tests/peers/trackers_reference.py
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import tracking_support as support

KEPT = Path(__file__).with_suffix(".json")


def main() -> int:
    found = {name: round(support.mean_idf1(frames, followed), 4) for name, frames in support.sequences().items()}
    if sys.argv[1:] == ["--print"]:
        print(json.dumps({"version": version("trackers"), "idf1": found}))
    else:
        text = json.dumps({"package": "trackers", "version": version("trackers"), "idf1": found}, indent=2)
        KEPT.write_text(text + "\n", encoding="utf-8")
    return 0


def followed(frames: list[support.Frame], rate: float) -> list[tuple[Any, list[int]]]:
    import supervision  # type: ignore[import-not-found]
    from trackers import ByteTrackTracker  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")
    tracker, answers = ByteTrackTracker(frame_rate=rate), []
    for frame in frames:
        corners = np.concatenate([frame.boxes[:, :2], frame.boxes[:, :2] + frame.boxes[:, 2:]], axis=1)
        found = tracker.update(supervision.Detections(xyxy=corners, confidence=frame.scores.astype(np.float32)))
        told = found.tracker_id != -1
        boxes = found.xyxy[told]
        ids = [int(one) for one in found.tracker_id[told]]
        answers.append((np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), ids))
    return answers


if __name__ == "__main__":
    raise SystemExit(main())
