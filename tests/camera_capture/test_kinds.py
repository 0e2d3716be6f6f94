"""A camera is one of several kinds, each with what it alone is told."""

from typing import Any

import msgspec
import pytest

from camera_capture.config import Config
from camera_capture.kinds import KINDS
from camera_capture.snapshots import check_places
from camera_support import configured
from edgeml.config import unknown_keys
from edgeml.errors import ConfigError
from edgeml.kinds import union


def test_a_kind_has_the_name_of_its_module() -> None:
    kinds: Any = msgspec.inspect.type_info(union("camera_capture.kinds", KINDS))
    assert [kind.tag for kind in kinds.types] == list(KINDS)


@pytest.mark.parametrize("settings", [{}, {"type": None}, {"location": 1, "fps": "15"}, {"type": "device"}], ids=str)
def test_a_camera_without_a_type_is_a_device_as_ever(settings: dict[str, Any]) -> None:
    assert configured(**settings).kind == "device"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "gstreamer", "location": "videotestsrc"}, "cameras.c.width: expected int >= 1"),
        (
            {"type": "gstreamer", "location": "x", "width": 0, "height": 2},
            "c.width: expected int >= 1, as gstreamer needs it, found 0",
        ),
        (
            {"type": "gstreamer", "location": "x", "width": 2, "height": 0},
            "c.height: expected int >= 1, as gstreamer needs it, found 0",
        ),
        (
            {"type": "rtps", "location": "rtsp://h"},
            "c.type: invalid value 'rtps', expected one of device",
        ),
        ({"type": 3}, "cameras.c.type"),
        ({"type": "DEVICE"}, "cameras.c.type"),
    ],
    ids=str,
)
def test_what_can_never_work_is_refused_as_configuration(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_places({"c": configured(**settings)}, "thing")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "gstreamer", "location": "libcamerasrc", "enabled": False},
        *({"type": kind, "location": None} for kind in ("http", "file", "rtsp", "images")),
    ],
    ids=str,
)
def test_what_never_ran_is_no_reason_to_refuse_the_others(settings: dict[str, Any]) -> None:
    """As it may stand in deployed configurations: it fails where it is opened, and alone."""
    check_places({"c": configured(**settings)}, "thing")


def test_what_another_kind_is_told_is_no_error_where_it_does_nothing() -> None:
    """As it stands in deployed configurations."""
    settings = {"type": "rtsp", "location": "rtsp://h/1", "loop": True, "every_s": 0}
    assert configured(**settings).kind == "rtsp"
    assert [where for where, _ in unknown_keys(Config, {"cameras": {"c": settings}})] == [
        "cameras.c.loop",
        "cameras.c.every_s",
    ]
    taken_back = settings | {"loop": None, "every_s": None}
    assert list(unknown_keys(Config, {"cameras": {"c": taken_back}})) == []
