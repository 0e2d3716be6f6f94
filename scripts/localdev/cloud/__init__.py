"""A stand-in for AWS on a laptop: the APIs the suite calls, IoT Core's broker, and the events between them.

For development only. What answers here is moto, amqtt and code of this package; it shows that the suite's calls
fit the APIs' models and the suite's idea of AWS, not that AWS itself would agree.
"""

from localdev.cloud.cloud import LocalCloud

__all__ = ["LocalCloud"]
