from pathlib import Path

import pytest

from serial_scraper.discovery import candidates


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """/dev and /sys of a machine with two boards of one kind, another one, and a port that is not USB."""
    dev, sys = tmp_path / "dev", tmp_path / "sys"
    (dev / "serial/by-id").mkdir(parents=True)
    (sys / "class/tty").mkdir(parents=True)
    boards = {
        "ttyACM0": ("2341", "0058", "A1"),
        "ttyACM1": ("2341", "0058", "B:2"),
        "ttyUSB0": ("10c4", "ea60", "C3"),
        "ttyS0": None,
    }
    for number, (name, identity) in enumerate(boards.items()):
        (dev / name).touch()
        interface = sys / f"devices/usb1/1-{number}/1-{number}:1.0/{name}"
        interface.mkdir(parents=True)
        (sys / "class/tty" / name).mkdir()
        (sys / "class/tty" / name / "device").symlink_to(interface)
        if identity:
            for file, value in zip(("idVendor", "idProduct", "serial"), identity, strict=True):
                (interface.parents[1] / file).write_text(f"{value}\n")
            (dev / f"serial/by-id/usb-{identity[0]}_{identity[2]}-if00").symlink_to(f"../../{name}")
    return tmp_path


@pytest.mark.parametrize(
    ("device", "usb", "expected"),
    [
        ("", "", ["ttyACM0", "ttyACM1", "ttyUSB0"]),
        ("{dev}/ttyS0", "", ["ttyS0"]),
        ("{dev}/serial/by-id/usb-10c4*", "", ["ttyUSB0"]),
        ("{dev}/serial/by-id/usb-2341*", "", ["ttyACM0", "ttyACM1"]),
        ("", "2341:0058", ["ttyACM0", "ttyACM1"]),
        ("", "10C4:EA60", ["ttyUSB0"]),
        ("", "2341:0058:B:2", ["ttyACM1"]),
        ("", "2341:0059", []),
        ("{dev}/ttyACM*", "2341:0058:A1", ["ttyACM0"]),
        ("{dev}/ttyACM9", "", []),
    ],
)
def test_ports_are_found_by_path_pattern_and_usb_identity(
    machine: Path, device: str, usb: str, expected: list[str]
) -> None:
    dev = machine / "dev"
    found = candidates(device.format(dev=dev), usb, dev, machine / "sys")
    assert [path.resolve().name for path in found] == expected


def test_a_device_that_was_unplugged_is_no_candidate(machine: Path) -> None:
    (machine / "dev/ttyACM0").unlink()
    found = candidates("", "2341:0058", machine / "dev", machine / "sys")
    assert [path.name for path in found] == ["ttyACM1"]
