"""One port for ever: found, opened, its firmware started, read, and found again after it was unplugged."""

import logging
import threading
import time
from collections.abc import Callable

from edgeml.backoff import Backoff
from edgeml.edge_impulse.results import ModelInfo
from edgeml.errors import SourceError
from edgeml.health import Health
from edgeml.log import kv
from edgeml.pace import Pacer
from serial_scraper import firmware, lines
from serial_scraper.config import Port
from serial_scraper.discovery import candidates
from serial_scraper.lines import LineSplitter
from serial_scraper.link import Link
from serial_scraper.records import Format, Record

log = logging.getLogger(__name__)

LOOK_S = 0.25  # how soon `stop` is noticed
STEADY_S = 10.0  # what worked for so long begins again with short pauses
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
_PATIENCE = 8  # idle gaps to wait for the rest of a line that has begun
_SAMPLE_LOG_S = 10.0


class Noise:
    """Lines that belong to nothing: all are counted, and one in a while is shown in the log."""

    def __init__(self, port: str, health: Health) -> None:
        self._port, self._of_port = port, health.scope(f"ports.{port}")
        self._count, self._shown = 0, Pacer(_SAMPLE_LOG_S)

    def __call__(self, line: str) -> None:
        self._count += 1
        self._of_port.count("unknown_lines")
        if self._shown.take():
            log.info("line not understood %s", kv(port=self._port, line=line[:200], since_start=self._count))


class PortReader:
    """`run` returns after `ask_to_stop`, which as `restart` may be called by any thread.

    `records` gets what the port said, in order and in `run`'s thread. `model` is told what the firmware says it runs.
    """

    def __init__(
        self,
        name: str,
        config: Port,
        form: Format,
        records: Callable[[list[Record]], None],
        health: Health,
        *,
        model: Callable[[ModelInfo], None] = lambda info: None,
    ) -> None:
        self._name, self._config, self._format, self._records = name, config, form, records
        self._health, self._of_port, self._model = health, health.scope(f"ports.{name}"), model
        self._drives = config.format == "edge_impulse" and config.mode != "listen"
        self._stopping, self._wake = threading.Event(), threading.Event()

    def run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, floor_s=FIRST_PAUSE_S / 2)
        while not self._stopping.is_set():
            self._wake.clear()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                link = self._opened()
                try:
                    self._begin(link)
                    self._read(link)
                finally:
                    link.close()
            except SourceError as error:
                if time.monotonic() - began > STEADY_S:
                    backoff.reset()
                self._failed(error, backoff)

    def restart(self) -> None:
        """Close the port and begin anew."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def _failed(self, error: SourceError, backoff: Backoff) -> None:
        pause = backoff.next()
        self._of_port.count("failures")
        self._of_port.failed(error)
        self._of_port.note(str(error))
        level = logging.ERROR if backoff.failures == 1 else logging.INFO  # once is enough for a board left unplugged
        log.log(level, "port %s", kv(port=self._name, reason=error, failures=backoff.failures, pause_s=pause))
        self._wake.wait(pause)

    def _opened(self) -> Link:
        """The first of the candidates that nobody else has open."""
        config = self._config
        problem: SourceError | None = None
        for path in candidates(config.device, config.usb):
            try:
                return Link(path, baud=config.baud, reset=config.reset)
            except SourceError as error:
                problem = error
        wanted = config.device or config.usb or "/dev/ttyACM* and /dev/ttyUSB*"
        raise problem or SourceError(f"waiting for {wanted}: nothing is plugged in")

    def _begin(self, link: Link) -> None:
        self._of_port.count("opened")
        log.info("port open %s", kv(port=self._name, device=link.path, baud=self._config.baud))
        if self._drives:
            self._drive(link)

    def _well(self) -> None:
        """Not yet when it opened: a device that breaks at each read opens every time."""
        self._of_port.note("")
        self._of_port.well()

    def _drive(self, link: Link) -> None:
        self._of_port.note("starting the firmware")
        found = firmware.start(link, self._config.mode)
        self._model(found.model)
        log.info(
            "inference started %s",
            kv(
                port=self._name,
                board=found.config.get("Type", ""),
                at_version=found.config.get("AT Version", ""),
                model=found.model.name,
                version=found.model.version,
            ),
        )

    def _read(self, link: Link) -> None:
        splitter = LineSplitter(self._config.max_line_bytes)
        gap = self._config.idle_gap_ms / 1000
        heard = time.monotonic()
        open_block = False
        well = False
        try:
            while not self._wake.is_set():
                data = link.read(min(gap, LOOK_S))
                if not well:
                    well = True
                    self._well()
                now = time.monotonic()
                if data:
                    heard = now
                    open_block = True
                    self._take(link, splitter, data)
                elif open_block and self._is_over(splitter.partial, now - heard, gap):
                    open_block = False
                    self._deliver(self._format.flush())
                elif self._drives and 0 < self._config.silence_s < now - heard:
                    raise SourceError(f"{link.path}: silent for {self._config.silence_s:g} s")
        finally:
            self._deliver(self._format.flush())  # unplugged or stopped: what came whole is not lost
        if self._drives:
            link.type(firmware.BREAK)

    def _is_over(self, partial: bytes, silent: float, gap: float) -> bool:
        """Whether the silence means that a block has ended; in the middle of a line it may be a slow board."""
        if partial and not firmware.is_prompt(partial):
            return silent >= gap * _PATIENCE
        return silent >= gap

    def _take(self, link: Link, splitter: LineSplitter, data: bytes) -> None:
        began = time.monotonic()
        too_long = splitter.too_long
        found = splitter.feed(data)
        if splitter.too_long > too_long:
            self._of_port.count("too_long_lines", splitter.too_long - too_long)
        if not found:
            return
        decoded = [lines.text(line) for line in found]
        if wrong := sum(not valid for _, valid in decoded):
            self._of_port.count("not_utf8_lines", wrong)
        self._of_port.count("lines", len(found))
        self._deliver(self._format.feed(line for line, _ in decoded))
        self._health.observe("parse", time.monotonic() - began)
        if self._drives and any(firmware.BANNER in line for line in found):
            log.warning("board restarted %s", kv(port=self._name))
            self._of_port.count("board_restarts")
            self._drive(link)

    def _deliver(self, records: list[Record]) -> None:
        if records:
            self._of_port.count("records", len(records))
            self._records(records)
