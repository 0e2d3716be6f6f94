"""edgeml.ModelUpdater: over-the-air model updates by AWS IoT Jobs, all or nothing."""

__version__ = "1.1.0"
