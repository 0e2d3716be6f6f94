"""What Edge Impulse devices say to AWS IoT Core and are told from there, heard while a page shows devices.

They say so nowhere else, but for results of serial ones. Each message that IoT Core sends back costs money and the
device's network, hence only then.
"""

import functools

from edgeml.component import Context
from edgeml.errors import EdgemlError
from edgeml.ipc import Subscription
from monitor.neighbours import Known
from monitor.state import DeviceKind, State, What

Takes = tuple[DeviceKind, str, What]  # whose messages a topic has, and what they are


class EdgeImpulse:
    """For one thread: `look` now and then."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._state = context, state
        self._scope = context.health.scope("edge_impulse")
        self._heard: dict[tuple[str, Takes], Subscription] = {}

    def look(self) -> None:
        """Hear the devices' topics if somebody wants to know, and only then."""
        wanted = _topics(self._state.neighbours.known()).items() if self._state.records_wanted else set()
        for gone in self._heard.keys() - wanted:
            self._heard.pop(gone).close()
        failed: EdgemlError | None = None
        for topic, takes in wanted - self._heard.keys():
            try:
                heard = functools.partial(self._take, takes)
                self._heard[topic, takes] = self._context.ipc.subscribe_iot(topic, heard)
            except EdgemlError as error:  # one that is not allowed leaves the others worth having
                failed = error
        if failed is None:
            self._scope.well()
        else:
            self._scope.failed(failed)

    def _take(self, takes: Takes, topic: str, payload: bytes) -> None:
        taken = self._state.edge_impulse(*takes, payload)
        self._context.health.count("messages" if taken else "messages.refused")


def _topics(known: Known) -> dict[str, Takes]:
    """What the messages of each topic are. Of a port results are not among them: it says them on the core as well."""
    found: dict[str, Takes] = {}
    for port, topics in known.ports.items():
        if topics is not None:
            found[topics.command_input] = "serial", port, "command"
            found[topics.command_output] = "serial", port, "answer"
    if (device := known.device) is not None:
        name = device.device
        found[device.inference] = "edge_impulse", name, "said"
        found[device.command_input] = "edge_impulse", name, "command"
        found[device.command_output] = "edge_impulse", name, "answer"
    return found
