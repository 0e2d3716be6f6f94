"""One configured port at work: its reader, its sinks, and for Edge Impulse firmware its metrics and commands."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeml.component import Context
from edgeml.edge_impulse.device import Topics, board_topics
from edgeml.edge_impulse.parameters import Settings, interpret
from edgeml.edge_impulse.reporter import Reporter
from edgeml.edge_impulse.results import ModelInfo
from edgeml.errors import ConfigError, SpoolError
from edgeml.fields import check_topic
from edgeml.log import kv
from edgeml.outbox import Put
from serial_scraper import records, sinks
from serial_scraper.config import Config, Port
from serial_scraper.port import Noise, PortReader
from serial_scraper.records import Format
from serial_scraper.sinks import Sink, Sinks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a port is to do; equal plans need no restart. `topics` are those of Edge Impulse firmware."""

    name: str
    port: Port
    settings: Settings
    topics: Topics | None


def plans(config: Config, mac: str) -> dict[str, Plan]:
    """By name."""
    ports = config.ports or {"mcu": Port()}
    settings = interpret(config.parameters)
    boards = {name: port.device_name for name, port in ports.items() if port.format == "edge_impulse"}
    topics = board_topics(boards, settings.device_name, mac, config.topic_prefix)
    planned = {}
    for name, port in ports.items():
        if name in topics:
            topics[name].check("topic_prefix")
        if port.iot_core.topic:
            check_topic(f"ports.{name}.iot_core.topic", port.iot_core.topic)
        planned[name] = Plan(name, port, settings, topics.get(name))
    devices = [plan.topics.device for plan in planned.values() if plan.topics]
    if twice := {device for device in devices if devices.count(device) > 1}:
        raise ConfigError("ports", f"each board needs a device_name of its own, found twice {', '.join(twice)}")
    return planned


def new_format(plan: Plan, context: Context) -> Format:
    """Raises ConfigError."""
    port, noise = plan.port, Noise(plan.name, context.health)
    try:
        if port.format == "jsonl":
            return records.jsonl(noise)
        if port.format == "csv":
            return records.csv(port.columns, port.delimiter, noise)
        if port.format == "regex":
            return records.regex(port.pattern, port.columns, noise)
    except ConfigError as error:
        raise ConfigError(f"ports.{plan.name}.{error.path}", str(error).partition(": ")[2]) from error
    return records.EdgeImpulse(noise)


class Service:
    """Runs from `start` to `stop`, or until it is asked to stop."""

    def __init__(self, plan: Plan, context: Context, put: Put) -> None:
        self.plan, self._context = plan, context
        self._stopping = threading.Event()
        self._reporter: Reporter | None = None
        targets: dict[str, Sink] = {"local": sinks.local(plan.name, plan.port, context.ipc, context.health)}
        if plan.port.iot_core.topic:
            targets["iot_core"] = sinks.iot_core(plan.name, plan.port, put, context.health)
        if plan.topics is not None:
            self._reporter = Reporter(
                plan.settings,
                plan.topics,
                put,
                health=context.health,
                max_bytes=context.ipc.max_iot_bytes,
                restart=self._restart,
            )
            targets["edge_impulse"] = sinks.edge_impulse(self._reporter)
        self._reader = PortReader(
            plan.name,
            plan.port,
            new_format(plan, context),
            Sinks(plan.name, plan.port, context.health, targets),
            context.health,
            model=self._runs,
        )

    def start(self) -> None:
        self._threads = [self._context.spawn(f"port {self.plan.name}", self._reader.run)]
        if self._reporter is not None:
            self._threads.append(self._context.spawn(f"metrics {self.plan.name}", self._metrics(self._reporter)))

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._reader.ask_to_stop()

    def stop(self, timeout: float) -> None:
        """End, waiting no longer than `timeout` seconds."""
        self.ask_to_stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._context.health.forget(f"ports.{self.plan.name}")

    def command(self, payload: bytes) -> None:
        if self._reporter is not None:
            self._reporter.command(payload)

    def _runs(self, model: ModelInfo) -> None:
        if self._reporter is not None:
            self._reporter.model = model

    def _restart(self) -> None:
        """As the answer to the `restart` command: begin anew, which says so."""
        self._reader.restart()
        if self._reporter is not None:
            self._reporter.started()

    def _metrics(self, reporter: Reporter) -> Callable[[], None]:
        """What says `started` once, and the metrics at once and in intervals from then on."""

        def publish() -> None:
            messages = [reporter.started, reporter.publish_metrics]
            while True:
                try:
                    for message in messages:
                        message()
                    messages = [reporter.publish_metrics]
                except SpoolError as error:
                    self._context.health.error(error)
                    log.error("metrics not published %s", kv(port=self.plan.name, reason=error))
                if self._stopping.wait(self.plan.settings.metrics_interval_s):
                    return

        return publish
