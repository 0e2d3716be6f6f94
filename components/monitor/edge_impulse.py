"""What the Edge Impulse runner says to AWS IoT Core and is told from there, heard while a page shows devices.

It says so nowhere else. Each message that IoT Core sends back costs money and the device's network, hence only then.
"""

import functools

from edgeml.component import Context
from edgeml.edge_impulse.device import Topics
from edgeml.errors import EdgemlError
from edgeml.ipc import Subscription
from monitor.state import State


class EdgeImpulse:
    """For one thread: `look` now and then."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._state = context, state
        self._scope = context.health.scope("edge_impulse")
        self._heard: dict[str, Subscription] = {}  # by topic

    def look(self) -> None:
        """Hear the device's topics if somebody wants to know, and only then."""
        device = self._state.neighbours.known().device
        wanted = _kinds(device) if device is not None and self._state.records_wanted else {}
        for topic in self._heard.keys() - wanted.keys():
            self._heard.pop(topic).close()
        for topic in wanted.keys() - self._heard.keys():
            heard = functools.partial(self._take, wanted[topic], device.device if device is not None else "")
            try:
                self._heard[topic] = self._context.ipc.subscribe_iot(topic, heard)
            except EdgemlError as error:
                self._scope.failed(error)
                return
        self._scope.well()

    def _take(self, kind: str, device: str, topic: str, payload: bytes) -> None:
        taken = self._state.edge_impulse(kind, device, payload)
        self._context.health.count("messages" if taken else "messages.refused")


def _kinds(device: Topics) -> dict[str, str]:
    """What the messages of each topic are to a page."""
    return {device.inference: "edge_impulse", device.command_output: "edge_impulse", device.command_input: "command"}
