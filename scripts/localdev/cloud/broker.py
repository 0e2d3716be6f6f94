"""An MQTT broker in a background thread that stands in for AWS IoT Core's message broker.

There is no TLS and no authentication, so it listens on the loopback only. Sessions, subscriptions and retained messages
live in memory: a restarted broker has forgotten them.
"""

import asyncio
import logging
import threading
from typing import Self

from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from localdev.cloud import iot_broker
from localdev.cloud.iot_broker import IotCoreBroker, OnPublish, Reader, Writer

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0


class Broker:
    """`with Broker() as broker: connect(broker.url)`. `stop()` and `start()` again keep the port."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.on_publish: list[OnPublish] = []
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listens when it returns. Raises OSError when the port is taken."""
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="mqtt-broker", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise TimeoutError(f"the MQTT broker did not start in {START_TIMEOUT_S:g} s")
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Disconnects every client and frees the port; does nothing when it is stopped already."""
        thread, self._thread = self._thread, None
        if thread is None or not thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(STOP_TIMEOUT_S)
        if thread.is_alive():
            raise TimeoutError(f"the MQTT broker did not stop in {STOP_TIMEOUT_S:g} s")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  (raised again by start(), in the thread that waits there)
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        broker = IotCoreBroker(
            BrokerConfig(
                listeners={"default": ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={f"{iot_broker.__name__}.Welcome": {}},
            ),
            self.on_publish,
        )
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  (asyncio runs this callback as a task)
            connections.add(task)
            try:
                await broker.external_connected(Reader(reader), Writer(writer), "default")
            except (OSError, asyncio.CancelledError):
                pass  # the client went away, or the broker stops
            finally:
                connections.discard(task)
                writer.transport.abort()  # what was to be said was said; nobody waits for a client that reads no more

        await broker.start()
        server = await asyncio.start_server(connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        await broker.shutdown()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes its socket one round of the loop after it is told to
