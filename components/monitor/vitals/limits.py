"""From which values on something is wrong: `vitals` of the Monitor's configuration."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CheckName = Literal["clock", "core", "disk", "memory", "network", "packages", "temperature", "voltage", "wear"]


class Limits(msgspec.Struct, frozen=True):
    interval_s: Annotated[float, Meta(ge=1, le=3600, description="Seconds from one look at the device to the next")] = (
        30.0
    )
    skip: Annotated[tuple[CheckName, ...], Meta(description="Checks that are not made")] = ()
    cpu_celsius: Annotated[float, Meta(ge=0, le=150, description="The CPU is too hot from this temperature on")] = 85.0
    memory_free_percent: Annotated[
        float, Meta(ge=0, le=100, description="Memory is low when no more than this can be had")
    ] = 5.0
    memory_stall_percent: Annotated[
        float, Meta(gt=0, le=100, description="And when for this part of a minute nothing ran, waiting for memory")
    ] = 10.0
    disk_free_percent: Annotated[
        float, Meta(ge=0, le=100, description="Disk space, or room for files, is low when no more than this is left")
    ] = 5.0
    disk_writes_per_day: Annotated[
        float, Meta(gt=0, le=1000, description="Times its own size that may be written to a disk in a day")
    ] = 0.3
    disk_life_used_percent: Annotated[
        float, Meta(gt=0, le=110, description="An eMMC is worn when it says that this part of its life is over")
    ] = 80.0
    packages_gb: Annotated[
        float, Meta(gt=0, le=10000, description="Python packages of all components together are large from here on")
    ] = 6.0
