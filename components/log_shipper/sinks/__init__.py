"""Where lines go. A kind is a module with `make`, one line here, and its name in `config.Sink`."""

import importlib
from typing import Protocol

from edgeml.component import Context
from log_shipper.batch import Batch
from log_shipper.config import Config
from log_shipper.scan import Log

KINDS = (
    "cloudwatch",  # CloudWatch Logs
    "iot_core",  # messages to AWS IoT Core, through a spool
)


class Sink(Protocol):
    """Takes the batches of all logs. Thread-safe."""

    keeps_days: int  # an event older than that is sent as of now; 0: however old it is

    def put(self, log: Log, batch: Batch) -> None:
        """Deliver all of a batch. Raises DeliveryError, and BatchRefused if it will never be taken."""

    def close(self) -> None: ...


def make(kind: str, config: Config, context: Context) -> Sink:
    """Raises ConfigError for what cannot work."""
    made: Sink = importlib.import_module(f"{__name__}.{kind}").make(config, context)
    return made
