"""Why a batch could not be delivered."""

# EdgemlError
#  ├── DeliveryError          not now: read it again and send it later
#  │    └── BatchRefused          not like this: smaller batches find out which event is at fault
#  └── CheckpointError        delivered, but that cannot be recorded

from edgeml.errors import EdgemlError


class DeliveryError(EdgemlError):
    """The receiver did not take a batch; it will be sent again, for ever."""


class BatchRefused(DeliveryError):  # noqa: N818  (names the verdict)
    """The receiver says that the batch itself is wrong; sending it again unchanged is useless."""


class CheckpointError(EdgemlError):
    """Progress cannot be recorded (disk full, read-only): nothing more may be sent until it can."""
