"""Cameras that are private: nothing is shown before it is known what is hidden, and that is gone."""

import json
import time
from typing import Any

import cv2
import numpy as np

from monitor.pictures import Picture
from shown_pictures_support import Rig

PRIVATE = {"source": {"camera": "door"}, "privacy": {"labels": ["face"]}}
HIDDEN = {"method": "blur", "regions": [[400, 200, 200, 200]]}


def region(picture: Picture) -> Any:
    """The pixels of what is to be hidden."""
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    x, y, width, height = (round(value * picture.width / picture.source_width) for value in (400, 200, 200, 200))
    return image[y + 16 : y + height - 16, x + 16 : x + width - 16].astype(int)  # a JPEG mixes blocks of 16


def test_a_private_camera_is_shown_with_its_result_alone_and_what_is_hidden_is_gone(rig: Rig) -> None:
    rig.configured(p=PRIVATE, q={"source": {"camera": "door"}})
    rig.watch()
    time.sleep(0.3)
    frames = [rig.frame() for _ in range(3)]
    time.sleep(0.3)
    rig.found(frames[0], "q")  # another pipeline's, which hides nothing
    rig.found(frames[1])  # an answer that does not say what is hidden
    time.sleep(0.2)
    assert not rig.shown
    rig.found(frames[2], hidden=HIDDEN)
    hidden = region(rig.picture(frames[2][0]))
    rows = hidden.mean(axis=2).std(axis=1)
    assert rows.max() < 40  # noise has 42 a pixel and more, what is left are the colours of a few cells


def test_what_is_private_by_report_alone_is_private(rig: Rig) -> None:
    rig.configured()
    report = {"component": "x", "version": "1", "at": 1, "uptime_s": 1, "counters": {}, "rates": {}, "latency_ms": {}}
    report |= {"gauges": {}, "notes": {}, "last_error": None}
    report |= {"privacy": [{"pipeline": "p", "camera": "door", "method": "box", "labels": []}]}
    assert rig.state.heard("edgeml/health/Inferencer", json.dumps(report).encode())
    rig.watch()
    time.sleep(0.3)
    rig.frame()
    time.sleep(0.2)
    assert not rig.shown
    frame = rig.frame()
    time.sleep(0.1)
    rig.found(frame, hidden=HIDDEN | {"method": "box"})
    assert region(rig.picture(frame[0])).max() < 30


def test_before_it_is_known_what_is_private_nothing_is_shown(rig: Rig) -> None:
    rig.watch()
    time.sleep(0.3)
    for _ in range(5):
        rig.found(rig.frame())
        time.sleep(0.02)
    assert not rig.shown
    rig.configured()
    rig.attached()
