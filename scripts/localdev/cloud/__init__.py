"""A stand-in for AWS on a laptop: the APIs the suite calls, IoT Core's broker, and the events between them.

For development only. What answers here is moto, amqtt and code of this package; it shows that the suite's calls
fit the APIs' models and the suite's idea of AWS, not that AWS itself would agree.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localdev.cloud.cloud import LocalCloud

__all__ = ["LocalCloud"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: it takes a second, which a process that is one part of a cloud need not wait for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from localdev.cloud.cloud import LocalCloud

    return LocalCloud
