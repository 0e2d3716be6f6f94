"""Configuration of edgeml.SerialScraper: ports, and the `Parameters` of Edge Impulse's own component."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.edge_impulse.device import DEFAULT_PREFIX
from edgeml.edge_impulse.parameters import Parameters
from edgeml.fields import ClockWait, TopicOrNone
from serial_scraper.records import Type

Mode = Literal["run", "run_continuous", "listen"]
FormatName = Literal["edge_impulse", "jsonl", "csv", "regex"]


class IotCore(msgspec.Struct, frozen=True):
    """Records to IoT Core; the results of Edge Impulse firmware have topics and a backoff of their own."""

    topic: Annotated[TopicOrNone, Meta(description="IoT Core topic of the records; empty: none are sent")] = ""
    every: Annotated[int, Meta(ge=1, description="Send each Nth record")] = 1
    max_per_s: Annotated[float, Meta(gt=0, le=1000, description="At most so many; what is above is dropped")] = 10.0


class Port(msgspec.Struct, frozen=True):
    """One microcontroller. Without `device` and `usb` it is the first of /dev/ttyACM* and /dev/ttyUSB*."""

    device: Annotated[str, Meta(description="Path or pattern, as /dev/serial/by-id/usb-Arduino*")] = ""
    usb: Annotated[
        str,
        Meta(
            description="VID:PID or VID:PID:SERIAL of a USB device, hexadecimal, as 2341:0058",
            pattern=r"^([0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:.+)?)?$",
        ),
    ] = ""
    baud: Annotated[int, Meta(ge=50, le=12_000_000, description="Bits per second")] = 115_200
    reset: Annotated[
        bool, Meta(description="Opening raises DTR and RTS, which resets many boards; false: both stay low")
    ] = True
    format: Annotated[FormatName, Meta(description="What the lines are")] = "edge_impulse"
    mode: Annotated[
        Mode, Meta(description="Edge Impulse firmware: start inference over AT commands, or only listen")
    ] = "run"
    columns: Annotated[dict[str, Type], Meta(description="csv: names and types in order; regex: types of groups")] = {}
    delimiter: Annotated[str, Meta(min_length=1, max_length=8, description="Between the values of csv")] = ","
    pattern: Annotated[str, Meta(description="Regular expression with named groups, for regex")] = ""
    device_name: Annotated[str, Meta(description="Instead of Parameters.device_name, for this port")] = ""
    idle_gap_ms: Annotated[
        int, Meta(ge=10, le=60_000, description="Silence after which a block of results is complete")
    ] = 250
    silence_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Start the firmware anew when it was silent for so long; 0: never")
    ] = 0.0
    max_line_bytes: Annotated[int, Meta(ge=64, le=1 << 20, description="Longer lines are dropped")] = 16_384
    max_records_per_s: Annotated[
        float, Meta(gt=0, le=100_000, description="On the local topic; what is above is dropped")
    ] = 400.0
    iot_core: Annotated[IotCore, Meta(description="Records to IoT Core")] = IotCore()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    parameters: Annotated[Parameters, Meta(description="As Edge Impulse's own component takes them")] = msgspec.field(
        name="Parameters", default_factory=Parameters
    )
    ports: Annotated[
        dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Port],
        Meta(description="By name, which is the port's name in topics; none: one port `mcu` with the defaults below"),
    ] = {}
    topic_prefix: Annotated[TopicOrNone, Meta(description="IoT Core topics are <prefix>/<device>/...")] = DEFAULT_PREFIX
    spool_bytes: Annotated[
        int, Meta(ge=65536, le=1 << 40, description="Messages kept on disk while IoT Core cannot be reached")
    ] = 16 << 20
    clock_wait_s: ClockWait = 600.0
