"""Serves a page about this device to browsers on it."""

import threading
from collections.abc import Callable
from pathlib import Path

from edgeml.component import Component, Context
from edgeml.errors import RefusedError
from monitor import __version__
from monitor.config import Config
from monitor.edge_impulse import EdgeImpulse
from monitor.look import Look
from monitor.otlp import Exporter
from monitor.page import Page
from monitor.report import Reporter
from monitor.state import State
from monitor.vitals.device import checks
from monitor.vitals.watch import Watch

ASK_S, AT_LEAST_S = 5.0, 0.5  # between two looks at the configurations of others, and however often pages ask


class Monitor(Component[Config]):
    """Shows in a browser what the device sees and how it does."""

    name = "edgeml.Monitor"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._watch = Watch(checks(context), context.health.problems)
        self._state = State(context.thing_name, __version__, context.health.problems.current, vitals=self._watch.vitals)
        self._vitals_due = threading.Event()
        self._page = Page(context, self._state)
        self._reporter = Reporter(context, self._state)
        self._look = Look(context, self._state)
        self._exporter = Exporter(context, self._state)

    def start(self, config: Config) -> None:
        config.check()
        self._config = config
        self._state.neighbours.place(Path(config.ring_directory))
        for topic, take in self._state.topics().items():
            self._subscribe(topic, take)
        self.context.spawn("neighbours", self._ask_for_ever)
        self._page.start(config)
        self._reporter.start(config)
        self._look.start(config)
        self._exporter.start(config)
        self.context.spawn("vitals", self._watch_for_ever)

    def reconfigure(self, config: Config) -> None:
        config.check()
        self._config = config
        self._state.neighbours.place(Path(config.ring_directory))
        self._vitals_due.set()
        self._page.reconfigure(config)
        self._reporter.reconfigure(config)
        self._look.reconfigure(config)
        self._exporter.reconfigure(config)

    def stop(self) -> None:
        self._vitals_due.set()
        self._state.asked.set()
        self._page.ask_to_stop()
        self._look.ask_to_stop()
        self._exporter.ask_to_stop()
        self._reporter.stop()

    def _subscribe(self, topic: str, take: Callable[[str, bytes], bool]) -> None:
        """Hear a topic; one that an older deployment does not allow leaves the others worth having."""

        def heard(topic: str, payload: bytes) -> None:
            self.context.health.count("messages" if take(topic, payload) else "messages.refused")

        try:
            self.context.ipc.subscribe(topic, heard)
        except RefusedError as error:
            self.context.health.scope(topic).failed(error)

    def _ask_for_ever(self) -> None:
        devices = EdgeImpulse(self.context, self._state)
        while not self.context.stopping.is_set():
            self._state.asked.clear()
            self._state.neighbours.ask(self.context.ipc)
            devices.look()
            self.context.stopping.wait(AT_LEAST_S)
            self._state.asked.wait(ASK_S - AT_LEAST_S)

    def _watch_for_ever(self) -> None:
        while not self.context.stopping.is_set():
            self._vitals_due.clear()
            limits = self._config.vitals
            self._watch.round(limits)
            self._vitals_due.wait(limits.interval_s)
