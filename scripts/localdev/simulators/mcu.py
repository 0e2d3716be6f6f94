"""A microcontroller with Edge Impulse firmware, on a pty: AT commands, echo, prompt, boot text, results in a dialect.

    python -m localdev.simulators.mcu --link /tmp/ttyMCU --dialect D6

The link stands for a device file: it is there while the board is plugged in, and points to another pty after it was
unplugged and plugged in again.
"""

import argparse
import itertools
import os
import pty
import select
import signal
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from localdev.simulators.dialects import DIALECTS, Inference, Style, render

PROMPT = "> "
_SAID, _UNPLUGGED = b"s", b"x"  # what wakes the board
_BOOT = (
    "I (164) esp_image: segment 0: paddr=00010020\r\nHello from Edge Impulse Device SDK.\r\nCompiled on Jan 28 2026\r\n"
)
_READY = "Type AT+HELP to see a list of commands.\r\n"
_CONFIG = """===== Device info =====
ID:         31:32:33:34:35:36
Type:       ARDUINO_NANO33BLE
AT Version: 1.8.0
Data Transfer Baudrate: 115200

===== Sensors ======
Name: Camera, Max sample length: 0s, Frequencies: []

===== Inference ======
Sensor:           3
Model type:       constrained_object_detection
"""
_INFO = """*************************
* Edge Impulse firmware *
*************************
Firmware build date  : Jan 28 2026
Firmware build time  : 10:11:12
ML model author      : Someone
ML model name        : Door watch
ML model ID          : 4711
Model deploy version : 7
Edge Impulse version : v1.86.0
Used sensor          : camera
"""
_SETTINGS = "Inferencing settings:\n\tInterval: 16.00 ms.\n\tFrame size: 9216\n\tNo. of classes: 2\n"
_STARTED = "Starting inferencing, press 'b' to break\n"


class Mcu:
    """Plugged in when made, until `close`; the board runs in a thread of its own.

    `inferences` are printed one per `interval_s` while inference runs, `auto_start` lets that begin at power-up.
    `answers=False` is a board without AT commands, that only prints. `piece_bytes` cuts all output into small writes.
    `received` is every byte the host sent.
    """

    def __init__(
        self,
        link: Path,
        inferences: Iterator[Inference],
        *,
        dialect: str = "D6",
        style: Style | None = None,
        interval_s: float = 0.1,
        auto_start: bool = False,
        answers: bool = True,
        piece_bytes: int = 0,
    ) -> None:
        self.received = b""
        self._link, self._inferences = link, inferences
        self._dialect, self._style, self._interval_s = dialect, style or Style(newline="\r\n"), interval_s
        self._auto_start, self._answers, self._piece_bytes = auto_start, answers, piece_bytes
        self._thread: threading.Thread | None = None
        self.plug_in()

    def plug_in(self) -> None:
        """Power up: a new pty under the same name."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._wake_read, self._wake_write = os.pipe()
        self._running, self._line = self._auto_start, ""
        self._outbox: list[str] = []
        self._boot()
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.ttyname(self._slave))
        self._thread = threading.Thread(target=self._run, name="mcu", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        if self._thread is None:
            return
        os.write(self._wake_write, _UNPLUGGED)
        self._thread.join()
        self._thread = None
        self._link.unlink(missing_ok=True)
        for descriptor in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(descriptor)

    close = unplug

    def reboot(self) -> None:
        """As after a watchdog reset: the port stays, inference stops, the boot text appears."""
        self._running = self._auto_start
        self._boot()

    def say(self, text: str) -> None:
        """Print `text` between two results."""
        self._outbox.append(text)
        if self._thread is not None:
            os.write(self._wake_write, _SAID)

    @property
    def running(self) -> bool:
        """Whether inference runs."""
        return self._running

    @property
    def pending(self) -> bool:
        """Whether something said is not printed yet."""
        return bool(self._outbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _boot(self) -> None:
        self.say(_BOOT + (_READY + PROMPT if self._answers else ""))

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            while self._outbox:
                self._print(self._outbox.pop(0))
            pause = max(0.0, due - time.monotonic()) if self._running else None
            ready = select.select([self._master, self._wake_read], [], [], pause)[0]
            if self._wake_read in ready and _UNPLUGGED in os.read(self._wake_read, 1024):
                return
            if self._master in ready:
                self._hear(os.read(self._master, 1024))
            if self._running and time.monotonic() >= due:
                due = time.monotonic() + self._interval_s
                self._infer()

    def _infer(self) -> None:
        inference = next(self._inferences, None)
        if inference is not None:
            self._print(render(inference, self._dialect, self._style))

    def _hear(self, data: bytes) -> None:
        self.received += data
        if not self._answers:
            return
        for character in data.decode(errors="replace"):
            if self._running:
                if character == "b":
                    self._running = False
                    self._print("Inferencing stopped by user\r\n" + PROMPT)
                continue
            if character != "\r":
                self._line += character
                self._print(character)
                continue
            command, self._line = self._line, ""
            self._print("\r\n")
            self._execute(command)

    def _execute(self, command: str) -> None:
        if command == "AT+CONFIG?":
            self._print(_CONFIG.replace("\n", "\r\n"))
        elif command == "AT+INFO":
            self._print(_INFO.replace("\n", "\r\n"))
        elif command in ("AT+RUNIMPULSE", "AT+RUNIMPULSECONT"):
            self._print((_SETTINGS + _STARTED).replace("\n", "\r\n"))
            self._running = True
            return
        else:
            self._print(f"Not a valid AT command ({command})\r\n")
        self._print(PROMPT)

    def _print(self, text: str) -> None:
        data = text.encode()
        size = self._piece_bytes or len(data)
        for start in range(0, len(data), size or 1):
            try:
                os.write(self._master, data[start : start + size])
            except BlockingIOError:
                return  # nobody reads: a UART does not wait either
            if self._piece_bytes:
                time.sleep(0.0005)


def classifications() -> Iterator[Inference]:
    """Endless, with scores that swing between two labels."""
    for step in itertools.count():
        score = round(0.5 + 0.49 * ((step % 20) / 10 - 1), 5)
        scores = {"face": score, "no face": round(1 - score, 5)}
        yield Inference({"dsp": 2, "classification": 14, "anomaly": 0}, {"classification": scores})


def detections() -> Iterator[Inference]:
    """Endless, two boxes each, the first one moving."""
    for step in itertools.count():
        boxes = [
            {"label": "face", "value": 0.99609, "x": step % 80, "y": 16, "width": 8, "height": 8},
            {"label": "cup", "value": 0.5, "x": 40, "y": 24, "width": 16, "height": 8},
        ]
        yield Inference({"dsp": 2, "classification": 14, "anomaly": 0}, {"bounding_boxes": boxes})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--link", type=Path, required=True, help="where the device file shall appear")
    parser.add_argument("--dialect", choices=DIALECTS, default="D6")
    parser.add_argument("--interval", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--auto-start", action="store_true", help="infer from power-up, as Syntiant boards do")
    parser.add_argument("--detect", action="store_true", help="boxes, not scores; always so in dialect D2")
    arguments = parser.parse_args()
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with Mcu(
        arguments.link,
        detections() if arguments.detect or arguments.dialect == "D2" else classifications(),
        dialect=arguments.dialect,
        interval_s=arguments.interval,
        auto_start=arguments.auto_start,
    ):
        print(f"board on {arguments.link}", flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
