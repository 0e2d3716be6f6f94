"""Frames that cannot be decoded: a few are passed over, a stream of nothing else is opened anew."""

from typing import Any

import pytest

from camera_capture import attempt
from camera_capture.errors import UndecodableError
from camera_capture.kinds.test_pattern import Pattern, PatternCamera
from camera_faults_support import Running
from camera_support import configured
from support import eventually


class Blurred(Pattern):
    """Gives so many frames that cannot be decoded, whenever it is opened."""

    undecodable = 0

    def __init__(self, camera: PatternCamera) -> None:
        super().__init__(camera)
        self._left = Blurred.undecodable if camera.width == 33 else 0

    def retrieve(self) -> Any:
        if self._left:
            self._left -= 1
            raise UndecodableError("half a frame")
        return super().retrieve()


def blurred(camera: PatternCamera) -> Blurred:
    """As a method of the settings."""
    return Blurred(camera)


@pytest.mark.parametrize("count", [0, 1, attempt.MAX_UNDECODABLE - 1, attempt.MAX_UNDECODABLE])
def test_a_few_frames_that_cannot_be_decoded_are_passed_over(
    running: Running, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(Blurred, "undecodable", count)
    monkeypatch.setattr(PatternCamera, "open", blurred)
    running.start(configured(type="test_pattern", width=33, height=17, fps=500))
    running.delivers("bad")
    assert (running.count("cameras.bad.undecodable"), running.count("cameras.bad.reconnects")) == (count, 0)


def test_a_stream_of_which_nothing_can_be_decoded_is_opened_anew(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blurred, "undecodable", attempt.MAX_UNDECODABLE + 1)
    monkeypatch.setattr(PatternCamera, "open", blurred)
    running.start(configured(type="test_pattern", width=33, height=17, fps=500, reconnect_min_s=0.01))
    eventually(lambda: running.count("cameras.bad.reconnects") > 1, what="another attempt")
    assert running.count("cameras.bad.captured") == 0
    running.delivers("good")
