"""Why a batch could not be delivered."""

# EdgemlError
#  ├── DeliveryError          not now: read it again and send it later
#  │    ├── BatchRefused          not like this: smaller batches find out which event is at fault
#  │    └── DoubtedError          a no that may be meant for this batch, or for all: repeated, it counts as the former
#  ├── CheckpointError        delivered, but that cannot be recorded
#  └── ZoneError              no such time zone

from edgeml.errors import EdgemlError


class DeliveryError(EdgemlError):
    """The receiver did not take a batch; it will be sent again, for ever. `code` is another problem than that."""

    code = "unreachable"

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code or self.code


class BatchRefused(DeliveryError):  # noqa: N818  (names the verdict)
    """The receiver says that the batch itself is wrong; sending it again unchanged is useless."""

    code = "refused"


class DoubtedError(DeliveryError):
    """An answer that is no success and does not say why, such as a firewall's that dislikes what is in a line."""


class CheckpointError(EdgemlError):
    """Progress cannot be recorded (disk full, read-only): nothing more may be sent until it can."""

    code = "disk_full"


class ZoneError(EdgemlError):
    """There is no such time zone, or this machine has no data of it."""

    code = "time_zone"
