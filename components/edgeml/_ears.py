"""Whether subscriptions still bring anything, on Nucleus Lite: used by edgeml.ipc.GreengrassIpc.

Lite's brokers are daemons of their own. When ggpubsubd or iotcored starts anew, every subscription it had is gone
without a word, while our connection (to ggipcd) stays and publishes succeed. Local topics are proved by a message to
oneself; where accessControl does not allow that, which an upgraded device may not know yet, nothing is proved and
subscriptions are renewed now and then. So are those of IoT Core, always: a message to oneself through the cloud
costs money, and a policy there that forbids it ends the device's whole connection.
"""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from edgeml._subscription import Received, Subscription
from edgeml.errors import IpcError, RefusedError
from edgeml.health import Health
from edgeml.log import kv

log = logging.getLogger("edgeml.ipc")


@dataclass(frozen=True)
class Pace:
    """Seconds: between proofs, for the answer to one, between renewals of local topics without proof, of IoT topics."""

    proof_s: float = 25.0
    answer_s: float = 5.0
    local_s: float = 45.0
    iot_s: float = 300.0


class Hearing(Protocol):
    """What is asked of the connection: edgeml.ipc.GreengrassIpc says what each does."""

    def listen(self, topic: str, received: Received) -> Any: ...
    def subscriptions(self, channel: str) -> list[Subscription]: ...
    def renew_configuration(self) -> None: ...
    def publish_and_wait(self, topic: str, payload: bytes) -> None: ...


class Ears:
    """One thread, from the first subscription on. What it fails in it tries again at its next turn."""

    def __init__(self, ipc: Hearing, name: str, health: Health | None, pace: Pace) -> None:
        self._ipc, self._health, self._pace = ipc, health, pace
        self._topic = f"edgeml/echo/{name.removeprefix('edgeml.')}"
        self._closed, self._heard = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._echo: Subscription | None = None
        self._provable = bool(name)

    def open(self, channel: str) -> None:
        """To be called before each new subscription: what the proof is to stand for must not be older than its ears."""
        with self._lock:
            if self._closed.is_set():
                return
            if channel == "local" and self._echo is None and self._provable:
                self._begin_to_prove()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ipc-ears", daemon=True)
                self._thread.start()

    def close(self) -> Subscription | None:
        """End the thread at its next turn; it does not keep the process alive. What is left to be closed."""
        self._closed.set()
        self._heard.set()
        return self._echo

    def _run(self) -> None:
        local_due = time.monotonic() + self._pace.proof_s
        iot_due = time.monotonic() + self._pace.iot_s
        while not self._closed.wait(max(0.0, min(local_due, iot_due) - time.monotonic())):
            try:
                if time.monotonic() >= iot_due:
                    iot_due = time.monotonic() + self._pace.iot_s
                    self._renew("iot_core")
                    self._ipc.renew_configuration()
                if time.monotonic() >= local_due:
                    local_due = time.monotonic() + self._pace.proof_s
                    self._care_for_local()
                    if not self._provable:
                        local_due = time.monotonic() + self._pace.local_s
            except IpcError as error:
                log.warning("not subscribed anew %s", kv(reason=error))
            except Exception:  # whatever it is, the next turn comes
                log.exception("subscriptions could not be looked after")

    def _care_for_local(self) -> None:
        if not self._ipc.subscriptions("local"):
            return
        if self._provable and self._echo is None:  # at the first subscription the core did not answer
            self._begin_to_prove()
        elif self._provable and self._proved():
            return
        elif self._provable and not self._closed.is_set():
            log.warning("local messages are not heard any more, subscribing anew")
            if self._health is not None:
                self._health.count("subscriptions.lost")
            if self._echo is not None:
                self._echo.renew()
        self._renew("local")

    def _begin_to_prove(self) -> None:
        echo = Subscription(
            lambda received: self._ipc.listen(self._topic, received), lambda topic, payload: self._heard.set()
        )
        try:
            echo.renew()
            self._echo = echo
        except RefusedError as error:
            self._cannot_prove(error)
        except IpcError as error:
            log.warning("subscriptions cannot be proved yet %s", kv(reason=error))

    def _cannot_prove(self, error: RefusedError) -> None:
        """No news for anybody who upgraded: devices keep the access control of the version they had first."""
        self._provable = False
        log.info("local subscriptions are renewed unproved %s", kv(every_s=self._pace.local_s, reason=error))
        if self._health is not None:
            self._health.note("subscriptions", f"cannot be proved alive, renewed instead: {error}")
        if self._echo is not None:
            self._echo.close()

    def _proved(self) -> bool:
        """Whether a message to ourselves came back; True as well where that cannot be asked now."""
        self._heard.clear()
        try:
            self._ipc.publish_and_wait(self._topic, b"%d" % time.monotonic_ns())  # no two alike: none is a copy
        except RefusedError as error:
            self._cannot_prove(error)
            return False
        except IpcError as error:
            log.warning("subscriptions could not be proved now %s", kv(reason=error))
            return True
        return self._heard.wait(self._pace.answer_s)

    def _renew(self, channel: str) -> None:
        for subscription in self._ipc.subscriptions(channel):
            if self._closed.is_set():
                return
            try:
                subscription.renew()
            except IpcError as error:  # the former one stays
                log.warning("not subscribed anew %s", kv(reason=error))
