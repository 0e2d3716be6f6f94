"""Edge Impulse's own Python SDK drives our stand-in, and must see what our client sees.

Needs a Python that can import `edge_impulse_linux.runner` (pip install --no-deps edge-impulse-linux, with numpy and
opencv-python-headless): this one, or the one that EDGEML_PEER_PYTHON names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_impulse_runner import images
from edge_impulse_runner.eim import Eim
from edge_impulse_runner.protocol import ModelParameters, ResizeMode
from localdev.simulators.eim import Kind, Options, Shm, write_launcher

pytestmark = pytest.mark.peer

PYTHON = os.environ.get("EDGEML_PEER_PYTHON", sys.executable)

# The package imports pyaudio for microphones, which needs a compiler and portaudio; an empty module does here.
STUB = "import sys, types, json; sys.modules['pyaudio'] = types.ModuleType('pyaudio')\n"
STUB += "sys.modules['pyaudio'].PyAudio = object; sys.modules['pyaudio'].paInt16 = 8\n"

DRIVER = (
    STUB
    + """
from edge_impulse_linux.runner import ImpulseRunner
runner = ImpulseRunner(sys.argv[1])
hello = runner.init()
answers = [runner.classify(features) for features in json.loads(sys.argv[2])]
threshold = runner.set_threshold({"id": 3, "min_score": 0.7}) if hello["model_parameters"].get("thresholds") else None
after = runner.classify(json.loads(sys.argv[2])[0]) if threshold else None
runner.stop()
json.dump({"hello": hello, "answers": answers, "threshold": threshold, "after": after}, sys.stdout, default=list)
"""
)

RESIZER = (
    STUB
    + """
import numpy
from edge_impulse_linux.image import get_features_from_image_with_studio_mode
image = numpy.load(sys.argv[1])
mode, width, height, gray = json.loads(sys.argv[2])
features, _ = get_features_from_image_with_studio_mode(image, mode, width, height, gray)
json.dump(features, sys.stdout)
"""
)


@pytest.fixture(scope="module")
def sdk() -> None:
    try:
        found = subprocess.run(
            [PYTHON, "-c", STUB + "import edge_impulse_linux.runner"], capture_output=True, text=True, timeout=60
        )
    except OSError as error:
        pytest.skip(f"EDGEML_PEER_PYTHON: {error}")
    if found.returncode:
        pytest.skip(
            f"{PYTHON} cannot import edge_impulse_linux.runner: {(found.stderr or found.stdout).splitlines()[-1]}"
        )


def driven(code: str, *arguments: str) -> Any:
    found = subprocess.run([PYTHON, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def ours(launcher: Path, features: list[float]) -> dict[str, Any]:
    with Eim(launcher) as model:
        result = model.classify(np.array(features, dtype=np.float32)).result
    fields: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(result, is_regression=False))
    return fields


@pytest.mark.parametrize("shm", ["offered", "old"])
@pytest.mark.parametrize(
    "kind", ["classification", "regression", "kmeans", "box", "fomo", "tracking", "grid", "freeform", "motion"]
)
def test_the_sdk_reads_every_kind_of_result_as_we_do(sdk: None, tmp_path: Path, kind: Kind, shm: Shm) -> None:
    record = tmp_path / "record"
    options = Options(kind=kind, width=4, height=4, features=16, slice_size=16, shm=shm, record=str(record))
    launcher = write_launcher(tmp_path / "m.eim", options)
    features = [float(0x10203 + index) for index in range(16)]
    seen = driven(DRIVER, str(launcher), json.dumps([features]))
    assert seen["answers"][0]["result"] == ours(launcher, features)
    if seen["threshold"]:
        assert seen["threshold"]["success"]
        assert [box["value"] for box in seen["after"]["result"]["bounding_boxes"]] == [0.91]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {line["crc"] for line in lines} == {lines[0]["crc"]}  # theirs and ours are the same bytes
    assert {line["shm"] for line in lines} == {shm == "offered"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["fit-shortest", "fit-longest", "squash"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (97, 61), (40, 30)])
def test_images_become_the_very_features_that_the_sdk_makes(
    sdk: None, tmp_path: Path, mode: ResizeMode, channels: int, size: tuple[int, int]
) -> None:
    bgr = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    np.save(tmp_path / "rgb.npy", np.ascontiguousarray(bgr[..., ::-1]))
    theirs = driven(RESIZER, str(tmp_path / "rgb.npy"), json.dumps([mode, 96, 64, channels == 1]))
    parameters = ModelParameters(
        input_features_count=96 * 64, image_input_width=96, image_input_height=64, image_channel_count=channels
    )
    found = images.features(images.model_input(bgr, "bgr24", parameters, mode)).tolist()
    if channels == 3:
        assert found == theirs
    else:  # the SDK gives RGB to a BGR conversion, so that its red and blue weights are exchanged
        swapped = np.ascontiguousarray(bgr[..., ::-1])
        assert images.features(images.model_input(swapped, "bgr24", parameters, mode)).tolist() == theirs
