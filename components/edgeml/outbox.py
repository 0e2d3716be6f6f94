"""Messages to IoT Core that wait on disk, in order, until the core has taken them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from edgeml.clock import CLOCK, WAIT_S, Clock, restamped
from edgeml.drainer import Drainer, Held
from edgeml.errors import IpcError, RefusedError
from edgeml.fields import topic_problem
from edgeml.health import Health
from edgeml.ipc import Ipc
from edgeml.problems import Problems
from edgeml.spool import Item, Spool

Put = Callable[[str, bytes], None]  # topic and payload of a message, which is kept until it is delivered

CLOSE_TIMEOUT_S = 1.0
LOOK_AGAIN_S = 1.0  # whether the clock is right by now


class Outbox:
    """`put` returns when the message is on disk. Raises SpoolError, when made too. Thread-safe.

    Topics are lanes: one that the core refuses, or cannot be reached, does not keep the others. `times` names the
    times in the messages and their units per second, as edgeml.clock.restamped takes them: with a wrong clock messages
    wait up to `clock_wait_s` seconds from boot, and are sent with their true time, or marked as unsynchronised.
    """

    def __init__(
        self,
        path: Path,
        ipc: Ipc,
        health: Health,
        *,
        max_bytes: int,
        qos: int = 1,
        times: Mapping[str, int] | None = None,
        clock: Clock = CLOCK,
        clock_wait_s: float = WAIT_S,
    ) -> None:
        self._ipc, self._health, self._qos = ipc, health, qos
        self._times, self._clock, self._clock_wait_s = times or {}, clock, clock_wait_s
        self._spool = Spool(path, max_bytes=max_bytes, clock=clock, problems=health.problems, subject="outbox")
        self._drainer = Drainer(self._spool, self._deliver, transient=(IpcError,))
        self._spool.measured(health.scope("outbox"))

    def put(self, topic: str, payload: bytes, *, qos: int | None = None) -> None:
        """Queue a message; `qos` is the outbox' own unless it is given."""
        self._spool.put(topic, payload, headers=None if qos is None else {"qos": str(qos)})

    def configure(self, *, max_bytes: int, qos: int, clock_wait_s: float = WAIT_S) -> None:
        """Take over a changed configuration. What was refused is tried once more: the reason may be gone."""
        self._spool.max_bytes, self._qos, self._clock_wait_s = max_bytes, qos, clock_wait_s
        self._drainer.again()

    def close(self) -> None:
        """Send what can be sent now; the rest goes out after the next start."""
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()

    def _deliver(self, item: Item) -> None:
        limit = self._ipc.max_iot_bytes
        if len(item.payload) > limit:  # put there under a core that takes more
            raise RefusedError(f"{len(item.payload)} bytes, {limit} are allowed")
        if problem := topic_problem(item.topic):  # put there by a version that did not look
            raise RefusedError(f"topic {item.topic}: {problem}")
        payload = stamped(item, self._times, self._clock, self._clock_wait_s, self._health.problems)
        qos = item.headers.get("qos", "")
        self._ipc.publish_iot(
            item.topic,
            payload if len(payload) <= limit else item.payload,
            qos=int(qos) if qos in ("0", "1") else self._qos,
        )
        self._health.count("outbox.sent")


def stamped(item: Item, times: Mapping[str, int], clock: Clock, wait_s: float, problems: Problems) -> bytes:
    """The message with the true times of what it tells. Raises Held while the clock may still be set."""
    moment = item.moment
    if not times or moment is None:
        return item.payload
    if (wait := clock.hold_s(wait_s)) > 0:
        problems.found("clock", "clock", "the clock is not set; messages wait until it is")
        raise Held(min(wait, LOOK_AGAIN_S))
    problems.cleared("clock", "clock")
    shift, certain = clock.shift_s(moment), clock.is_certain(moment)
    if certain and not shift:
        return item.payload
    return restamped(item.payload, times, shift, certain=certain, made=moment)
