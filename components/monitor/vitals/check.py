"""What a check is and what it says: values, and what is wrong with them."""

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from monitor.vitals.limits import CheckName, Limits

Standing = Set[tuple[str, str]]  # code and subject of what is wrong since an earlier round


class Vital(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value of the device.

    `unit` is celsius, bytes, bytes_per_day, ratio or seconds, empty for yes (1) and no (0); `text` says it to a person.
    One without a `label` is of no interest at a glance. `whole` is what it is a part of, `subject` the disk, folder or
    component that it is of.
    """

    value: float
    label: str = ""
    unit: str = ""
    text: str = ""
    subject: str = ""
    whole: float = 0.0
    problem: bool = False


class Finding(NamedTuple):
    """Something that is wrong, as edgeml.problems has it. `text` stays as it is while it lasts: changes are logged."""

    code: str
    subject: str
    text: str


@dataclass(frozen=True)
class Seen:
    """What one check found in one round. `vitals` are by name, or by `name:subject`."""

    vitals: dict[str, Vital] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Check:
    """`read` gives what `judge` takes, None where the device has no such sensor; `judge` reads nothing."""

    name: CheckName
    read: Callable[[], Any]
    judge: Callable[[Any, Limits, Standing], Seen]


def over(value: float, limit: float, margin: float, *, stands: bool) -> bool:
    """Whether `value` has reached `limit`; what `stands` does so until the value is `margin` below it again."""
    return value > limit - margin if stands else value >= limit


def under(value: float, limit: float, margin: float, *, stands: bool) -> bool:
    """As `over`, for what must not be little."""
    return over(-value, -limit, margin, stands=stands)
