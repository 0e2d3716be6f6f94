"""This device in Edge Impulse Studio: data acquisition from its cameras and sensors, started from the browser."""

__version__ = "1.1.0"
