"""Whether there is a way out of the device, and whether names are resolved: nobody else is asked for that.

The name is that of the AWS IoT endpoint that the core uses anyway.
"""

import re
import socket
from dataclasses import dataclass

from edgeml.place import Place
from monitor.vitals.check import Finding, Seen, Standing, Vital
from monitor.vitals.limits import Limits

UP, REJECT = 0x1, 0x200  # of route.h
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
FAILURES = 2  # in a row: one lost packet is no fault


@dataclass(frozen=True)
class Network:
    """`ways` are the interfaces of default routes and whether they have a carrier; `failures` of `host`, in a row."""

    ways: dict[str, bool]
    host: str = ""
    failures: int = 0
    took_s: float | None = None


def ways(place: Place) -> dict[str, bool] | None:
    """None where the kernel does not tell of routes."""
    four, six = place.text("proc/net/route"), place.text("proc/net/ipv6_route")
    if not four and not six:
        return None
    names = [
        row[0] for row in map(str.split, four.splitlines()[1:]) if len(row) > 7 and _default(row[1], row[7], row[3])
    ]
    names += [row[9] for row in map(str.split, six.splitlines()) if len(row) == 10 and _default(row[0], row[1], row[8])]
    return {name: place.text(f"sys/class/net/{name}/carrier") != "0" for name in names if "/" not in name}


def _default(target: str, size: str, flags: str) -> bool:
    """Whether a row of a table of routes, all in hexadecimal, is a default one; a mask of 0 is a size of 0."""
    try:
        return not int(target, 16) and not int(size, 16) and int(flags, 16) & (UP | REJECT) == UP
    except ValueError:
        return False


def resolve(host: str) -> None:
    """Raises OSError if `host` has no address."""
    socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)


def judge(found: Network, limits: Limits, standing: Standing) -> Seen:
    working = [name for name, carrier in found.ways.items() if carrier]
    text = ", ".join(working)[:60] if working else "no carrier" if found.ways else "no route"
    vitals = {"network_up": Vital(float(bool(working)), "Network", text=text, problem=not working)}
    if not working:
        why = f"{', '.join(found.ways)[:60]}: no carrier" if found.ways else "there is no default route"
        return Seen(vitals, (Finding("no_network", "network", why),))
    if not found.host or (found.took_s is None and not found.failures):
        return Seen(vitals)
    if found.failures < FAILURES:
        vitals["name_lookup"] = Vital(found.took_s or 0.0, unit="seconds")
        return Seen(vitals)
    vitals["name_lookup"] = Vital(found.took_s or 0.0, "Names", "seconds", "not resolved", problem=True)
    return Seen(vitals, (Finding("no_names", found.host, f"{found.host} is not resolved"),))
