import fcntl
import os
import pty
import struct
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import SourceError
from serial_scraper.link import Link


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The board's end of a port, and the port."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    path = tmp_path / "tty"
    path.symlink_to(os.ttyname(slave))
    yield master, path
    for descriptor in (master, slave):
        with_closed(descriptor)


def with_closed(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # the test has unplugged it
        return


def test_what_arrives_is_read_at_once_and_silence_ends_at_the_timeout(board: tuple[int, Path]) -> None:
    master, path = board
    link = Link(path, baud=115_200, reset=True)
    os.write(master, b"a\xff\x00\n")
    assert link.read(5) == b"a\xff\x00\n"
    began = time.monotonic()
    assert link.read(0.05) == b""
    assert 0.04 < time.monotonic() - began < 5
    link.close()


def test_the_port_is_set_to_the_baud_rate(board: tuple[int, Path]) -> None:
    link = Link(board[1], baud=921_600, reset=True)
    descriptor = os.open(board[1], os.O_RDWR | os.O_NOCTTY)
    assert termios.tcgetattr(descriptor)[4:6] == [termios.B921600, termios.B921600]
    os.close(descriptor)
    link.close()


def test_text_goes_out_in_small_pieces_with_pauses(board: tuple[int, Path]) -> None:
    master, path = board
    link = Link(path, baud=115_200, reset=True)
    began = time.monotonic()
    link.type("AT+RUNIMPULSE\r")
    assert time.monotonic() - began >= 0.04
    received = b""
    while len(received) < 14:
        received += os.read(master, 100)
    assert received == b"AT+RUNIMPULSE\r"
    link.close()


def test_a_port_belongs_to_one_process(board: tuple[int, Path]) -> None:
    link = Link(board[1], baud=115_200, reset=True)
    with pytest.raises(SourceError, match="lock"):
        Link(board[1], baud=115_200, reset=True)
    link.close()
    Link(board[1], baud=115_200, reset=True).close()


def test_an_unplugged_board_is_told(board: tuple[int, Path]) -> None:
    master, path = board
    link = Link(path, baud=115_200, reset=True)
    os.close(master)
    with pytest.raises(SourceError):
        link.read(1)
    link.close()


def test_what_is_no_port_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing"):
        Link(tmp_path / "nothing", baud=115_200, reset=True)


@pytest.mark.parametrize(("reset", "raised"), [(True, {"DTR", "RTS"}), (False, set())])
def test_modem_lines_stay_low_when_the_board_must_not_be_reset(
    board: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, reset: bool, raised: set[str]
) -> None:
    """A pty has no modem lines, so what is asked of the kernel is recorded instead."""
    lines = {termios.TIOCM_DTR: "DTR", termios.TIOCM_RTS: "RTS"}
    asked: list[tuple[int, str]] = []
    real = fcntl.ioctl

    def ioctl(descriptor: int, request: int, argument: Any = 0, *rest: Any) -> Any:
        if request not in (termios.TIOCMBIS, termios.TIOCMBIC):
            return real(descriptor, request, argument, *rest)
        asked.append((request, lines[struct.unpack("I", argument)[0]]))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    link = Link(board[1], baud=115_200, reset=reset)
    assert {name for request, name in asked if request == termios.TIOCMBIS} == raised
    assert {name for _, name in asked} == {"DTR", "RTS"}
    link.close()
