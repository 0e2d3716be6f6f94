"""edgeml.CameraCapture: frames from cameras, streams and files into shared-memory rings."""

__version__ = "1.1.0"
