"""Where a port is now: by path, by pattern, or by the USB device behind it."""

import glob
from pathlib import Path

_ANY = ("ttyACM*", "ttyUSB*")


def candidates(device: str, usb: str, dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> list[Path]:
    """Device files that may be meant, most likely first; empty when nothing is plugged in.

    With both given, a file must fit both. `usb` is `VID:PID` or `VID:PID:SERIAL` in hexadecimal, any case.
    """
    if device:
        found = [Path(path) for path in sorted(glob.glob(device))]  # noqa: PTH207  (an absolute pattern)
    elif usb:
        found = [dev / tty.name for tty in sorted((sys / "class/tty").glob("*")) if (dev / tty.name).exists()]
    else:
        found = [path for pattern in _ANY for path in sorted(dev.glob(pattern))]
    if usb:
        found = [path for path in found if _fits(_identity(sys / "class/tty" / path.resolve().name), usb)]
    return found


def _identity(tty: Path) -> tuple[str, str, str]:
    """Vendor, product and serial number of the USB device that a tty belongs to; empty when it has none."""
    for folder in (tty / "device").resolve().parents:
        if (folder / "idVendor").is_file():
            return _text(folder / "idVendor"), _text(folder / "idProduct"), _text(folder / "serial")
    return "", "", ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()  # whatever a device says its serial number is
    except OSError:
        return ""  # unplugged meanwhile, or a device without a serial number


def _fits(identity: tuple[str, str, str], usb: str) -> bool:
    vendor, product, *serial = usb.split(":", 2)
    if (vendor.lower(), product.lower()) != (identity[0].lower(), identity[1].lower()):
        return False
    return not serial or serial[0] == identity[2]
