"""The configured ports at work, and changes of the configuration while they are."""

import logging
import time

from edgeml.component import Component, Context
from edgeml.edge_impulse.device import default_mac
from edgeml.edge_impulse.listener import CommandListener, Device
from edgeml.edge_impulse.parameters import Settings, interpret
from edgeml.edge_impulse.reporter import TIMES
from edgeml.log import kv
from edgeml.outbox import Outbox
from serial_scraper import __version__
from serial_scraper.config import Config
from serial_scraper.service import Plan, Service, new_format, plans

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 2.0  # for all ports together


class SerialScraper(Component[Config]):
    """Reads microcontrollers on serial ports: Edge Impulse results, and records of other formats."""

    name = "edgeml.SerialScraper"
    version = __version__

    _outbox: Outbox

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._services: dict[str, Service] = {}
        self._commands = CommandListener(context)
        self._notes: tuple[str, ...] = ()

    def start(self, config: Config) -> None:
        planned = self._planned(config)
        context, settings = self.context, self._explained(config)
        self._outbox = Outbox(
            context.work / "outbox.spool",
            context.ipc,
            context.health,
            max_bytes=config.spool_bytes,
            qos=settings.qos,
            times={**TIMES, "at": 1},  # of Edge Impulse results, and of records
            clock_wait_s=config.clock_wait_s,
        )
        self._run(planned)

    def reconfigure(self, config: Config) -> None:
        planned = self._planned(config)
        settings = self._explained(config)
        self._outbox.configure(max_bytes=config.spool_bytes, qos=settings.qos, clock_wait_s=config.clock_wait_s)
        self._end([name for name, service in self._services.items() if planned.get(name) != service.plan])
        self._run(planned)

    def stop(self) -> None:
        self._end(list(self._services))
        self._outbox.close()

    def _planned(self, config: Config) -> dict[str, Plan]:
        """Raises ConfigError, with all that runs still running."""
        planned = plans(config, default_mac())
        for plan in planned.values():
            new_format(plan, self.context)
        return planned

    def _explained(self, config: Config) -> Settings:
        settings = interpret(config.parameters)
        for note in settings.notes:
            if note not in self._notes:
                log.info("Parameters: %s", note)
        self._notes = settings.notes
        return settings

    def _run(self, planned: dict[str, Plan]) -> None:
        new = [plan for name, plan in planned.items() if name not in self._services]
        started = {plan.name: Service(plan, self.context, self._outbox.put) for plan in new}
        self._services |= started
        self._commands.listen(
            {
                service.plan.topics.command_input: Device(self.context.work / f"last-command-{name}", service.command)
                for name, service in self._services.items()
                if service.plan.topics
            }
        )
        for service in started.values():
            topics = service.plan.topics
            log.info("port %s", kv(name=service.plan.name, inference=topics.inference if topics else ""))
            service.start()

    def _end(self, names: list[str]) -> None:
        ending = [self._services.pop(name) for name in names]
        for service in ending:
            service.ask_to_stop()
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        for service in ending:
            service.stop(max(0.0, deadline - time.monotonic()))
