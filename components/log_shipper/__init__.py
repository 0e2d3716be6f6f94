"""edgeml.LogShipper: every log line of the device reaches CloudWatch Logs, or IoT Core, once it can."""

__version__ = "1.1.0"
