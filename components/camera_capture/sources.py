"""The sources by their types in the configuration."""

from camera_capture.config import Camera
from camera_capture.gstreamer import GStreamer
from camera_capture.http_camera import HttpCamera
from camera_capture.images import Images
from camera_capture.pattern import Pattern
from camera_capture.source import Source, UndecodableError
from camera_capture.video import Video
from edgeml.redact import location as redacted

__all__ = [
    "GStreamer", "HttpCamera", "Images", "Pattern", "Source", "UndecodableError", "Video", "open_source", "redacted",
]  # fmt: skip

_KINDS: dict[str, type[Source]] = {
    "images": Images,
    "gstreamer": GStreamer,
    "test_pattern": Pattern,
    "http": HttpCamera,
}


def open_source(camera: Camera) -> Source:
    """The source that `camera` describes. Raises SourceError saying what cannot be opened and why.

    Those that connect to something do that in `Source.open`, or with the first `grab`.
    """
    kind: type[Source] = _KINDS.get(camera.type, Video)
    return kind(camera)  # type: ignore[call-arg]
