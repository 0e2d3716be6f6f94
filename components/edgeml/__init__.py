"""The shared library of the suite: what every component needs, and nothing that only one of them does.

The build copies this package into each artifact, so a component is self-contained and versioned on its own.
Nothing here imports a component, and importing `edgeml` itself loads nothing heavy.
"""

import os as _os

# OpenCV reads these when it is loaded, so they are set before anybody can load it. No picture is decoded beyond this
# many pixels, whatever its header says (400 MB of BGR); and neither OpenCV nor FFmpeg writes to our log by itself:
# their lines hold addresses with passwords. Who sets them in the environment gets what they say.
_os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))
_os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
_os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
