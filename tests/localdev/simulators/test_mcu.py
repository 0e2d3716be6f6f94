import itertools
import os
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked import popen
from localdev.simulators.dialects import DIALECTS, Inference, Style, render, short_number
from localdev.simulators.mcu import Mcu, classifications, detections
from support import eventually

SCORES = Inference(
    {"dsp": 2, "classification": 14, "anomaly": 0}, {"classification": {"idle": 0.99609}, "anomaly": -0.312}
)
RECT = {"x": 8, "y": 16, "width": 8, "height": 8}
FACE = {"label": "face", "value": 0.99609, **RECT}
BOXES = Inference({"dsp": 2, "classification": 14, "anomaly": 0}, {"bounding_boxes": [FACE]})


# Word for word what the firmware prints, from its sources.
@pytest.mark.parametrize(
    ("dialect", "inference", "text"),
    [
        (
            "D1",
            SCORES,
            "Predictions (DSP: 2 ms., Classification: 14 ms., Anomaly: 0 ms.): \n"
            "    idle: 0.99609\n    anomaly score: -0.31200\n",
        ),
        (
            "D2",
            BOXES,
            "Predictions (DSP: 2 ms., Classification: 14 ms., Anomaly: 0 ms.): \n"
            "    face (0.99609) [ x: 8, y: 16, width: 8, height: 8 ]\n",
        ),
        (
            "D3",
            SCORES,
            "Predictions (DSP: 2 ms., Classification: 14 ms., Anomaly: 0 ms.): \n"
            "#Classification results:\n    idle: 0.99609\nAnomaly prediction: -0.31200\n",
        ),
        (
            "D4",
            Inference(
                {"dsp": 2.1, "classification": 14.2},
                {
                    "bounding_boxes": [],
                    "counters": {"0": 3},
                    "object_tracking": [{"object_id": 3, **FACE}],
                    "detected_label": "yes",
                },
            ),
            "Predictions (DSP: 2.1 ms., Classification: 14.2 ms., Anomaly: 0ms.): \n"
            "#Object detection results:\n    No objects found\nCounts:\n  Counter 0: 3\n"
            "Open traces:\n  Trace 3: face [ x: 8, y: 16, width: 8, height: 8 ]\nDetected label: yes\n",
        ),
        (
            "D5",
            SCORES,
            "Timing: DSP 2 ms, inference 14 ms, anomaly 0 ms\n"
            "Classification predictions:\n  idle: 0.99609\nAnomaly prediction: -0.31200\n",
        ),
        (
            "D6",
            Inference({"dsp": 2, "postprocessing": 1}, {"object_tracking": [{"object_id": 3, **FACE}]}),
            "Timing: DSP 2 ms, inference 0 ms, anomaly 0 ms, postprocessing 1 ms\n"
            "#Object tracking results:\n  face (ID 3) (0.99609) [ x: 8, y: 16, width: 8, height: 8 ]\n",
        ),
        ("D7", Inference({}, {"classification": {"on": 0, "off": 1}}), "\nPredictions:\n    on: \t0\n    off: \t1\n"),
        (
            "D8",
            Inference({}, {"match": 2, "classification": {"on": 1}}),
            "\nMatch: 2\nPredictions:\n    on: \t1\n",
        ),
        ("D9", BOXES, "Object detection bounding boxes:\n  face (0.99609) [ x: 8, y: 16, width: 8, height: 8 ]\n"),
    ],
)
def test_results_read_as_the_firmware_prints_them(dialect: str, inference: Inference, text: str) -> None:
    assert render(inference, dialect, Style("\n")) == text


def test_the_short_printer_cuts_digits_and_points() -> None:
    assert [short_number(value) for value in (0, 1, 0.996094, -0.3, 0.000001)] == ["0", "1", "0.99609", "-0.3", "0."]


class Terminal:
    """A host at the other end, as a person with a terminal program."""

    def __init__(self, link: Path) -> None:
        self._descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._descriptor, termios.TCSANOW)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def until(self, text: str) -> str:
        """What came up to and with `text`."""
        deadline = time.monotonic() + 5
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, self.text
            if select.select([self._descriptor], [], [], left)[0]:
                data = os.read(self._descriptor, 4096)
                if not data:
                    raise OSError("hung up")
                self.text += data.decode()
        said, self.text = self.text.split(text, 1)
        return said + text

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "ttyMCU"


@pytest.fixture
def board(link: Path) -> Iterator[Mcu]:
    with Mcu(link, classifications(), interval_s=0.02) as running:
        yield running


@pytest.fixture
def terminal(board: Mcu, link: Path) -> Iterator[Terminal]:
    host = Terminal(link)
    yield host
    host.close()


def test_the_board_boots_echoes_answers_and_infers_until_it_is_interrupted(board: Mcu, terminal: Terminal) -> None:
    assert "Type AT+HELP" in terminal.until("\r\n> ")
    terminal.type("AT+INFO\r")
    answer = terminal.until("> ")
    assert answer.startswith("AT+INFO\r\n***")
    assert "Model deploy version : 7\r\n" in answer
    terminal.type("AT+NONSENSE\r")
    assert "Not a valid AT command (AT+NONSENSE)" in terminal.until("> ")
    terminal.type("AT+RUNIMPULSE\r")
    terminal.until("press 'b' to break\r\n")
    terminal.until("#Classification predictions:\r\n  face: 0.01000\r\n  no face: 0.99000\r\n")
    terminal.type("b")
    terminal.until("Inferencing stopped by user\r\n> ")
    assert not board.running
    assert board.received == b"AT+INFO\rAT+NONSENSE\rAT+RUNIMPULSE\rb"


def test_unplugging_removes_the_device_and_hangs_up(board: Mcu, terminal: Terminal, link: Path) -> None:
    terminal.until("> ")
    board.unplug()
    assert not link.is_symlink()
    with pytest.raises(OSError):
        terminal.until("more")
    board.plug_in()
    assert link.resolve().exists()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_runs_from_the_command_line_in_every_dialect(dialect: str, link: Path) -> None:
    command = [sys.executable, "-m", "localdev.simulators.mcu", "--link", str(link), "--dialect", dialect]
    process = popen(
        [*command, "--auto-start", "--interval", "0.02"],
        env={},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"board on {link}\n"
    host = Terminal(link)
    host.until("Match: " if dialect == "D8" else "face")
    host.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    process.stdout.close()
    assert not link.is_symlink()


def test_detections_move() -> None:
    first, second = itertools.islice(detections(), 2)
    assert first.result["bounding_boxes"][0]["x"] != second.result["bounding_boxes"][0]["x"]


def test_a_board_that_nobody_reads_is_not_held_up(link: Path) -> None:
    with Mcu(link, classifications(), interval_s=0, auto_start=True) as board:
        board.say("x" * 200_000)
        eventually(lambda: not board.pending, what="an empty queue")
