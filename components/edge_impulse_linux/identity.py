"""Who this device is in Studio."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from edgeml.edge_impulse.device import default_mac, device_name
from edgeml.files import write_atomic

DEVICE_TYPE = "EDGE_IMPULSE_LINUX"


@dataclass(frozen=True)
class Identity:
    id: str
    name: str


def identity(configured_id: str, configured_name: str, work: Path) -> Identity:
    """The id is the MAC address of the default route; a device without one makes up its own, once. Raises OSError."""
    mac = default_mac()
    return Identity(configured_id or mac or _made_up(work / "device-id"), device_name(configured_name, mac))


def _made_up(path: Path) -> str:
    if not path.exists():
        # Bit 1 of the first byte marks an address that no manufacturer gave.
        address = bytes([0x02, *secrets.token_bytes(5)])
        write_atomic(path, address.hex(":"))
    return path.read_text().strip()
