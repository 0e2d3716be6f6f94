import itertools
import logging
import os
import pty
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.edge_impulse.results import ModelInfo
from edgeml.health import Health
from localdev.simulators.dialects import Inference, Style
from localdev.simulators.mcu import Mcu
from serial_scraper import records
from serial_scraper.config import Port
from serial_scraper.port import Noise, PortReader
from serial_scraper.records import Record
from support import eventually


def numbered(*, boxes: bool = False) -> Iterator[Inference]:
    """Endless and each told from the others."""
    for number in itertools.count():
        result: dict[str, Any] = {"classification": {"number": float(number)}}
        if boxes:
            rect = {"x": 8, "y": 16, "width": 8, "height": 8}
            result = {"bounding_boxes": [{"label": "a: (b)", "value": 0.5, **rect} for _ in range(3)]}
        yield Inference({"dsp": 2, "classification": 14, "anomaly": 0}, result)


class Reading:
    """A PortReader at work, and what it delivered."""

    def __init__(self, config: Port) -> None:
        self.health = Health("test", "1")
        self.records: list[Record] = []
        self.models: list[ModelInfo] = []
        noise = Noise("mcu", self.health)
        form = records.EdgeImpulse(noise) if config.format == "edge_impulse" else records.jsonl(noise)
        self.reader = PortReader("mcu", config, form, self.records.extend, self.health, model=self.models.append)
        self._thread = threading.Thread(target=self.reader.run)
        self._thread.start()

    def numbers(self) -> list[float]:
        return [record["result"]["classification"]["number"] for record in list(self.records)]

    def count(self, what: str) -> int:
        return self.health.counter(f"ports.mcu.{what}")

    def stop(self) -> None:
        self.reader.ask_to_stop()
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()


Read = Callable[..., Reading]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    readings: list[Reading] = []

    def start(**config: Any) -> Reading:
        readings.append(Reading(Port(device=str(tmp_path / "ttyMCU"), **config)))
        return readings[-1]

    yield start
    for reading in readings:
        reading.stop()


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "ttyMCU"


def test_firmware_is_started_asked_and_read(read: Read, link: Path) -> None:
    with Mcu(link, numbered(), interval_s=0.02) as board:
        reading = read()
        eventually(lambda: len(reading.records) >= 3, what="results")
        assert reading.numbers()[:3] == [0.0, 1.0, 2.0]
        (model,) = reading.models
        assert (model.name, model.version) == ("Door watch", "v7")
        assert model.parameters["used_sensor"] == "camera"
        assert model.parameters["type"] == "ARDUINO_NANO33BLE"
        assert board.received.startswith(b"b\rAT+CONFIG?\rAT+INFO\rAT+RUNIMPULSE\r")
        reading.stop()
        eventually(lambda: not board.running, what="a board that was told to stop")


def test_continuous_inference_is_another_command(read: Read, link: Path) -> None:
    with Mcu(link, numbered()) as board:
        reading = read(mode="run_continuous")
        eventually(lambda: reading.records, what="results")
        assert b"AT+RUNIMPULSECONT\r" in board.received


def test_listening_sends_nothing(read: Read, link: Path) -> None:
    with Mcu(link, numbered(), auto_start=True, answers=False, interval_s=0.02) as board:
        reading = read(mode="listen")
        eventually(lambda: len(reading.records) >= 2, what="results")
        reading.stop()
        assert board.received == b""


@pytest.mark.parametrize("dialect", ["D2", "D3", "D4", "D5", "D6"])
def test_slow_boards_that_print_in_pieces_lose_nothing(read: Read, link: Path, dialect: str) -> None:
    style = Style("\r\n", "{:.5f}".format)
    with Mcu(link, numbered(boxes=True), dialect=dialect, style=style, interval_s=0.02, piece_bytes=7) as board:
        reading = read(idle_gap_ms=2000)  # a busy machine makes pauses of its own
        eventually(lambda: len(reading.records) >= 3, what="results")
        assert board.running
    for record in reading.records[:3]:  # a later one may have been cut off with the board
        assert [box["label"] for box in record["result"]["bounding_boxes"]] == ["a: (b)"] * 3


def test_a_block_is_delivered_after_the_idle_gap_though_nothing_follows(read: Read, link: Path) -> None:
    with Mcu(link, itertools.islice(numbered(), 1)):
        reading = read(idle_gap_ms=50)
        eventually(lambda: reading.records, timeout=2, what="the only result")
    assert reading.numbers() == [0.0]


def test_a_board_unplugged_and_plugged_in_again_is_found_and_started(read: Read, link: Path) -> None:
    with Mcu(link, numbered(), interval_s=0.02) as board:
        reading = read()
        eventually(lambda: len(reading.records) >= 2, what="results")
        board.unplug()
        eventually(lambda: reading.count("failures") >= 1, what="a noticed loss")
        before = len(reading.records)
        board.plug_in()
        eventually(lambda: len(reading.records) >= before + 2, what="results after replugging")
        assert reading.count("opened") == 2
    numbers = reading.numbers()
    assert numbers == sorted(set(numbers))


def test_a_board_that_restarts_by_itself_is_started_again_without_reopening(read: Read, link: Path) -> None:
    with Mcu(link, numbered(), interval_s=0.02) as board:
        reading = read()
        eventually(lambda: len(reading.records) >= 2, what="results")
        board.reboot()
        eventually(lambda: reading.count("board_restarts") == 1, what="a noticed restart")
        before = len(reading.records)
        eventually(lambda: len(reading.records) >= before + 2, what="results after the restart")
        assert reading.count("opened") == 1


def test_a_silent_board_is_started_anew(read: Read, link: Path) -> None:
    with Mcu(link, itertools.islice(numbered(), 1)):
        reading = read(silence_s=0.3)
        eventually(lambda: reading.count("opened") >= 2, what="a second start")


def test_restart_begins_anew(read: Read, link: Path) -> None:
    with Mcu(link, numbered(), interval_s=0.02) as board:
        reading = read()
        eventually(lambda: reading.records, what="results")
        reading.reader.restart()
        eventually(lambda: reading.count("opened") == 2, what="a second start")
        eventually(lambda: board.received.count(b"AT+RUNIMPULSE\r") == 2, what="the command")


def test_ports_that_fit_the_same_pattern_take_a_board_each(tmp_path: Path) -> None:
    config = Port(device=str(tmp_path / "tty*"), mode="listen")
    settings: dict[str, Any] = {"auto_start": True, "answers": False, "interval_s": 0.02}
    with Mcu(tmp_path / "tty1", numbered(), **settings), Mcu(tmp_path / "tty2", numbered(boxes=True), **settings):
        readings = [Reading(config), Reading(config)]
        try:
            for reading in readings:
                eventually(lambda reading=reading: reading.records, what="results of each board")  # type: ignore[misc]
        finally:
            for reading in readings:
                reading.stop()
    kinds = {next(iter(record["result"])) for reading in readings for record in reading.records[:1]}
    assert kinds == {"classification", "bounding_boxes"}


def test_waiting_for_a_board_says_so(read: Read, link: Path) -> None:
    reading = read()
    eventually(lambda: "nothing is plugged in" in reading.health.report().notes.get("ports.mcu", ""), what="a note")
    with Mcu(link, numbered()):
        eventually(lambda: reading.records, what="results")
        assert reading.health.report().notes == {}


@pytest.fixture
def wire(link: Path) -> Iterator[int]:
    """The board's end of a port whose board the test plays itself."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    link.symlink_to(os.ttyname(slave))
    yield master
    os.close(master)
    os.close(slave)


def opened(reading: Reading) -> None:
    eventually(lambda: reading.count("opened"), what="an open port")


def test_a_line_cut_by_a_long_pause_is_not_the_end_of_its_block(read: Read, wire: int) -> None:
    reading = read(mode="listen", idle_gap_ms=50)
    opened(reading)
    os.write(wire, b"Timing: DSP 2 ms, inference 14 ms, anomaly 0 ms\n#Object detection bounding boxes:\n  face (")
    time.sleep(0.15)
    assert reading.records == []
    os.write(wire, b"0.5) [ x: 1, y: 2, width: 3, height: 4 ]\n")
    eventually(lambda: reading.records, what="the result")
    assert len(reading.records[0]["result"]["bounding_boxes"]) == 1


def test_a_prompt_ends_the_block(read: Read, wire: int) -> None:
    reading = read(mode="listen", idle_gap_ms=20)
    opened(reading)
    os.write(wire, b"Predictions:\r\n  idle: 0.99\r\n\x1b[2K\r> ")
    eventually(lambda: reading.records, timeout=2, what="the result")


def test_garbage_wrong_utf8_and_endless_lines_are_counted_and_survived(
    read: Read, wire: int, caplog: pytest.LogCaptureFixture
) -> None:
    reading = read(format="jsonl", max_line_bytes=64)
    opened(reading)
    with caplog.at_level(logging.INFO):
        os.write(wire, bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") + b"\n")
        os.write(wire, b"x" * 3000 + b"\n\xff\xfe\nnoise\nmore noise\n" + b'{"ok": 1}\n')
        eventually(lambda: reading.records, what="the record")
    assert reading.records == [{"ok": 1}]
    assert reading.count("too_long_lines") == 2
    assert reading.count("not_utf8_lines") == 1
    assert reading.count("unknown_lines") == 3
    shown = [message for message in caplog.messages if "not understood" in message]
    assert len(shown) == 1
    assert "since_start=1" in shown[0]
