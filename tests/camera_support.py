"""Cameras as they are configured."""

from typing import Any

from camera_capture.camera import Camera
from camera_capture.config import Config
from camera_capture.video import Video
from edgeml.config import load


def configured(**settings: Any) -> Camera:
    """One camera's settings. Raises ConfigError."""
    return load(Config, {"cameras": {"c": settings}}).cameras["c"]


def source_of(**settings: Any) -> Any:
    """The source of a camera, of whatever class, and a video opened. Raises ConfigError and SourceError."""
    source = configured(**settings).open()
    if isinstance(source, Video):
        source.open()
    return source
