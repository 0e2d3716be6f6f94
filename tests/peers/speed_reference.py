"""How fast ultralytics classifies, beside ONNX Runtime as it comes, kept in speed_reference.json as ratios.

    .venv/bin/python tests/peers/speed_reference.py PYTHON

makes the file anew by a PYTHON that can import ultralytics, onnxruntime and torch, in one interleaved run.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import peers
from benchmarks.bundles import installed

KEPT = Path(__file__).with_suffix(".json")
VERSIONS = (
    "import json\nfrom importlib.metadata import version\nprint(json.dumps({name: version(name) for name in %r}))"
)
NAMES = ("ultralytics", "onnxruntime", "torch")


def main() -> None:
    (python,) = sys.argv[1:]
    told = subprocess.run([python, "-c", VERSIONS % (NAMES,)], capture_output=True, text=True, check=True, timeout=60)
    ratios = {}
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as settings:
        os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": settings}
        for threads in (1, 2):
            ways = {"ultralytics": [python], "onnxruntime": [sys.executable]}
            figures = peers.interleaved(root, "things", threads, ways)
            bare = figures.pop("onnxruntime")
            ratios[f"things {threads}"] = {
                name: {key: round(value / bare[key], 3) for key, value in each.items()}
                for name, each in figures.items()
            }
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    kept = {"versions": json.loads(told.stdout), "machine": machine, "ratios": ratios}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
