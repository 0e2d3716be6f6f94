"""The whole cloud: AWS's APIs and IoT Core's broker."""

from contextlib import ExitStack
from typing import Self
from urllib.parse import urlsplit

from localdev.cloud.aws import LocalAws
from localdev.cloud.broker import Broker


class LocalCloud:
    """`with LocalCloud() as cloud:` starts AWS's APIs at `cloud.aws.url` and a broker at `cloud.mqtt_url`.

    `mqtt_url` names a broker that runs already, such as mosquitto, instead.
    """

    def __init__(self, mqtt_url: str = "") -> None:
        self.aws = LocalAws()
        self.mqtt_url = mqtt_url
        self.broker: Broker | None = None
        self._running = ExitStack()

    def environment(self) -> dict[str, str]:
        return self.aws.environment()

    @property
    def mqtt_address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        parts = urlsplit(self.mqtt_url)
        return parts.hostname or "127.0.0.1", parts.port or 1883

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.aws)
            if not self.mqtt_url:
                self.broker = starting.enter_context(Broker())
                self.mqtt_url = self.broker.url
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()
