"""The checks of this device, and what each of them needs."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.component import Context
from edgeml.errors import IpcError, NotFoundError, RefusedError
from edgeml.place import Place
from monitor.vitals import clock, core, disk, memory, network, packages, temperature, voltage, wear
from monitor.vitals.asked import Asked
from monitor.vitals.check import Check

NUCLEI = ("aws.greengrass.Nucleus", "aws.greengrass.NucleusLite")
CORE_S, LOOKUP_S = 10.0, 10.0  # to answer
LOOKUP_EVERY_S = 60.0
PACKAGES_FIRST_S, PACKAGES_EVERY_S, PACKAGES_S = 120.0, 6 * 3600.0, 3600.0


def checks(context: Context, place: Place | None = None) -> list[Check]:
    place = place or Place()
    asked = _core(context)
    return [
        Check("temperature", lambda: temperature.read(place), temperature.judge),
        Check("voltage", lambda: voltage.read(place), voltage.judge),
        Check("memory", lambda: memory.read(place), memory.judge),
        Check("disk", lambda: disk.read([place.root, context.work]), disk.judge),
        Check("wear", _wear(place), wear.judge),
        Check("clock", clock.read, clock.judge),
        Check("network", _network(context, place, asked), network.judge),
        Check("core", _answers(asked), core.judge),
        Check("packages", _packages(context), packages.judge),
    ]


def _wear(place: Place) -> Callable[[], list[wear.Disk] | None]:
    known = wear.Wear(place)
    return lambda: known.read(time.clock_gettime(time.CLOCK_BOOTTIME))


def _asked(context: Context, name: str, question: Callable[[], Any], **how: Any) -> Asked[Any]:
    return Asked(question, lambda work: context.spawn(f"vitals.{name}", work, again=False), **how)


def _core(context: Context) -> Asked[dict[str, Any] | None]:
    """The configuration of the core itself; None without a core."""
    names = list(NUCLEI)

    def question() -> dict[str, Any] | None:
        for name in list(names):
            try:
                answer = context.ipc.configuration(name)
            except NotFoundError:
                continue
            except RefusedError:  # an answer all the same
                return {}
            names[:] = [name]
            return answer
        return None

    return _asked(context, "core", question, timeout_s=CORE_S, expected=(IpcError,))


def _answers(asked: Asked[dict[str, Any] | None]) -> Callable[[], core.Core | None]:
    version = os.environ.get("GGC_VERSION", "")[:30]

    def read() -> core.Core | None:
        asked.look()
        if asked.took_s is not None and asked.answer is None:  # there is no core
            return None
        return core.Core(version, asked.failures, asked.took_s)

    return read


def _network(
    context: Context, place: Place, asked: Asked[dict[str, Any] | None]
) -> Callable[[], network.Network | None]:
    def host() -> str:
        name = (asked.answer or {}).get("iotDataEndpoint")
        return name if isinstance(name, str) and network.HOST.fullmatch(name) else ""

    lookup = _asked(
        context,
        "lookup",
        lambda: network.resolve(host()),
        timeout_s=LOOKUP_S,
        every_s=LOOKUP_EVERY_S,
        expected=(OSError, UnicodeError),
    )

    def read() -> network.Network | None:
        ways = network.ways(place)
        if ways is None:
            return None
        name = host()
        if name and any(ways.values()):
            lookup.look()
        return network.Network(ways, name, lookup.failures, lookup.took_s)

    return read


def _packages(context: Context) -> Callable[[], dict[str, int] | None]:
    walk = _asked(
        context,
        "packages",
        lambda: packages.sizes(Path(context.root), context.stopping.wait),
        timeout_s=PACKAGES_S,
        first_s=PACKAGES_FIRST_S,
        every_s=PACKAGES_EVERY_S,
    )

    def read() -> dict[str, int] | None:
        walk.look()
        return walk.answer or None

    return read
