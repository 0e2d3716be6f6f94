"""edgeml.Monitor: what a device sees and how it does, in a browser."""

__version__ = "1.1.0"
