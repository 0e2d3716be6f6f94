"""Whether the wall clock is to be believed, and what time it was when it was not yet.

A board without a battery-backed clock starts in 1970, or where it was last switched off, until a time server answers.
What happens before that is noted as a Moment, in both clocks; the one that counts from boot never jumps, so a moment
of this boot gets its true time as soon as the wall clock is right.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

EARLIEST = 1_735_689_600  # 2025-01-01, older than this software: a clock that shows less is wrong
LATEST = 4_102_444_800  # 2100-01-01
JUMP_S = 60.0  # a clock that is corrected by more was wrong; by less it drifted
WAIT_S = 600.0
UNSYNCHRONISED = "unsynchronised"

_STA_UNSYNC = 0x40  # adjtimex(2): nobody keeps the kernel's clock right
_TIMESYNC = Path("/run/systemd/timesync/synchronized")


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: `uptime` seconds after the start of `boot`, as `wall` Unix time on the clock then."""

    boot: str
    uptime: float
    wall: float
    believed: bool


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]  # enough to tell boots apart, in each item
    except OSError:
        return "unknown"


class Clock:
    """Both clocks of this machine. Thread-safe. Every source may be given by a test.

    `vouched` tells whether anybody keeps the wall clock right: a time service, or a clock with a battery.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        boot: Callable[[], str] = _boot_id,
        vouched: Callable[[], bool] = lambda: synchronised() or _has_battery(),
    ) -> None:
        self._wall, self._uptime, self._boot, self._vouch = wall, uptime, boot, vouched
        self._boot_id = ""
        self._vouched = False

    def now(self) -> Moment:
        if not self._boot_id:
            self._boot_id = self._boot()
        wall = self._wall()
        return Moment(self._boot_id, self._uptime(), wall, self._is_believed(wall))

    def unix(self) -> float:
        """Unix time as the wall clock shows it."""
        return self._wall()

    def believed(self) -> bool:
        """Whether the wall clock shows a possible time and somebody vouches for it."""
        return self._is_believed(self._wall())

    def hold_s(self, wait_s: float = WAIT_S) -> float:
        """Seconds that what carries a time should still wait for the right one; 0: it can go.

        The clock is given `wait_s` seconds from boot: a machine that no time server ever reaches is not slowed down
        after that.
        """
        return 0.0 if self.believed() else max(0.0, wait_s - self._uptime())

    def shift_s(self, moment: Moment) -> float:
        """Seconds to add to times that the wall clock gave at `moment`; 0 where it was right, or nobody can know."""
        now = self.now()
        if not now.believed or moment.boot != now.boot:
            return 0.0
        shift = (now.wall - moment.wall) - (now.uptime - moment.uptime)
        return shift if abs(shift) > JUMP_S else 0.0

    def is_certain(self, moment: Moment) -> bool:
        """Whether the time of `moment`, with `shift_s` added, can be relied on; else say that it cannot."""
        return moment.believed or (self.believed() and moment.boot == self.now().boot)

    def age_s(self, moment: Moment) -> float:
        """Seconds since `moment`, never negative; of another boot as far as its wall clock can be compared."""
        now = self.now()
        if moment.boot == now.boot:
            return max(0.0, now.uptime - moment.uptime)
        return max(0.0, now.wall - moment.wall)

    def _is_believed(self, wall: float) -> bool:
        # Once is enough: the kernel takes the mark back when the time server is away, and the clock stays right.
        self._vouched = self._vouched or self._vouch()
        return self._vouched and EARLIEST <= wall < LATEST


CLOCK = Clock()  # of this process


def restamped(
    payload: bytes, times: Mapping[str, int], shift_s: float, *, certain: bool, made: Moment | None = None
) -> bytes:
    """A JSON object with `shift_s` added to its times, and `"clock": "unsynchronised"` unless they are `certain`.

    Of a message that was `made` at some moment only times of the same boot, as the clock showed it then, are shifted.

    `times` names them, dotted, with their units per second: {"source.captured_at": 1, "lines.timestamp": 1000}; on
    the way through a list each element is meant. What is missing or no number stays; what is no object stays whole.
    """
    try:
        message = msgspec.json.decode(payload)
    except msgspec.MsgspecError:
        return payload
    if not isinstance(message, dict):
        return payload
    for path, per_second in times.items():
        low, high = (made.wall - made.uptime - JUMP_S, made.wall + JUMP_S) if made else (-math.inf, math.inf)
        _shift(message, path.split("."), shift_s * per_second, low * per_second, high * per_second)
    if not certain:
        message["clock"] = UNSYNCHRONISED
    return msgspec.json.encode(message)


def _shift(node: Any, steps: list[str], amount: float, low: float, high: float) -> None:
    if isinstance(node, list):
        for element in node:
            _shift(element, steps, amount, low, high)
    elif isinstance(node, dict) and steps[0] in node:
        value = node[steps[0]]
        if len(steps) > 1:
            _shift(value, steps[1:], amount, low, high)
        elif isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            node[steps[0]] = value + round(amount) if isinstance(value, int) else round(value + amount, 6)


def synchronised() -> bool:
    """Whether the kernel or systemd-timesyncd says that a time server has set the clock."""
    if _TIMESYNC.exists():
        return True
    import ctypes

    try:
        answer = (ctypes.c_int * 128)()  # struct timex with room to spare; all zero asks and changes nothing
        state = ctypes.CDLL(None).adjtimex(answer)
    except (OSError, AttributeError):
        return False
    status = answer[5 * ctypes.sizeof(ctypes.c_long) // 4]  # behind modes and four longs, aligned
    return state >= 0 and not status & _STA_UNSYNC


def _has_battery() -> bool:
    """Whether the kernel took the time from hardware: every PC has such a clock, boards say so in hctosys."""
    if os.uname().machine in ("x86_64", "i686", "i386"):
        return True
    try:
        return any(path.read_text().strip() == "1" for path in Path("/sys/class/rtc").glob("*/hctosys"))
    except OSError:
        return False
