"""Configuration of edgeml.LogShipper. What aws.greengrass.LogManager knows is spelled as it spells it.

A LogManager deployment works unchanged; the default interval is 1 s instead of 300.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.fields import Topic

Level = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
Unit = Literal["KB", "MB", "GB"]
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.05, 86400.0
UNIT_BYTES: dict[str, int] = {"KB": 2**10, "MB": 2**20, "GB": 2**30}

Regex = Annotated[str, Meta(max_length=500)]
Region = Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9-]*$(?!\n)")]  # part of the host that hears everything
TimeZone = Annotated[str, Meta(max_length=64, pattern=r"^([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}|[+-]\d\d:?\d\d)?$")]


class Options(msgspec.Struct, frozen=True, rename="camel"):
    """What can be said of any kind of log."""

    minimum_log_level: Annotated[Level, Meta(description="Records below this level are not sent")] = "INFO"
    disk_space_limit: Annotated[
        float,
        Meta(ge=0, description="Size of all files of this log above which delivered rotated ones are deleted; 0: off"),
    ] = 0
    disk_space_limit_unit: Annotated[Unit, Meta(description="Unit of diskSpaceLimit")] = "KB"
    delete_log_file_after_cloud_upload: Annotated[
        bool, Meta(description="Delete a rotated file once all of it has been delivered")
    ] = False
    multi_line_start_pattern: Annotated[
        Regex, Meta(description="Regular expression that the first line of each record matches; empty: a date")
    ] = ""
    time_zone: Annotated[
        TimeZone, Meta(description="Zone of times that name none, such as Asia/Tokyo; empty: that of the component")
    ] = ""

    @property
    def limit_bytes(self) -> int:
        return int(self.disk_space_limit * UNIT_BYTES[self.disk_space_limit_unit])


class SystemLogs(Options, frozen=True, rename="camel"):
    upload_to_cloud_watch: Annotated[bool, Meta(description="Send greengrass.log, the nucleus' own log")] = False


class ComponentLogs(Options, frozen=True, rename="camel"):
    log_file_directory_path: Annotated[str, Meta(description="Folder of the files; empty: the logs folder")] = ""
    log_file_regex: Annotated[
        Regex, Meta(description="Regular expression that file names match; empty: the component's own log files")
    ] = ""


class ListedComponent(ComponentLogs, frozen=True, rename="camel"):
    component_name: Annotated[str, Meta(min_length=1, description="Component whose logs these are")] = "unnamed"


class Files(Options, frozen=True, rename="camel"):
    path: Annotated[str, Meta(min_length=1, description="Path with wildcards, ** crosses folders")] = "/var/log/*.log"


class LogsUploader(msgspec.Struct, frozen=True, rename="camel"):
    system_logs_configuration: Annotated[SystemLogs, Meta(description="The nucleus' own log")] = SystemLogs()
    component_logs_configuration_map: Annotated[
        dict[str, ComponentLogs], Meta(description="Logs of components, by component name")
    ] = {}
    component_logs_configuration: Annotated[
        list[ListedComponent], Meta(description="The same as a list, LogManager's older form")
    ] = []


class Journald(msgspec.Struct, frozen=True, rename="camel"):
    enabled: Annotated[
        Literal["auto", "on", "off"], Meta(description="auto: on Nucleus Lite, which writes no log files")
    ] = "auto"
    units: Annotated[list[str], Meta(description="systemd units, with wildcards; each is a log of its own")] = (
        msgspec.field(default_factory=lambda: ["ggl.*"])
    )
    minimum_log_level: Annotated[Level, Meta(description="Entries below this level are not sent")] = "INFO"


class IotCore(msgspec.Struct, frozen=True, rename="camel"):
    topic: Annotated[Topic, Meta(description="Topic; {thingName} and {componentName} are replaced")] = (
        "device/{thingName}/logs"
    )
    content: Annotated[
        Literal["lines", "records"],
        Meta(description="lines as they are, or records with time, level, thread, logger and message apart"),
    ] = "lines"
    spool_bytes: Annotated[
        int,
        Meta(
            ge=4 * 2**20,
            le=2**40,
            description="Disk space for waiting messages; at half of it lines wait in files",
        ),
    ] = 16 * 2**20


class HealthMetrics(msgspec.Struct, frozen=True, rename="camel"):
    enabled: Annotated[bool, Meta(description="Turn edgeml/health messages into CloudWatch metrics (EMF)")] = False
    namespace: Annotated[str, Meta(min_length=1, max_length=255, description="CloudWatch namespace")] = "EdgeML"


Sink = Literal["cloudwatch", "iot_core"]


class Config(msgspec.Struct, frozen=True, rename="camel"):
    components: Annotated[
        Literal["auto"] | list[str],
        Meta(
            description="Components whose logs are sent, with wildcards, without naming them one by one; auto: "
            "edgeml.*, or none but those that logsUploaderConfiguration names, if it names any"
        ),
    ] = "auto"
    logs_uploader_configuration: Annotated[
        LogsUploader, Meta(description="Logs one by one, as aws.greengrass.LogManager has it")
    ] = LogsUploader()
    periodic_upload_interval_sec: Annotated[
        float,
        Meta(gt=0, description="Longest time between a line and its being sent; 0.05 to 86400 are what is kept"),
    ] = 1.0
    max_retry_delay_sec: Annotated[
        float, Meta(ge=0.05, le=3600, description="Longest pause of a log that cannot be delivered; pauses double")
    ] = 60.0
    update_to_tlog_interval_sec: Annotated[
        float, Meta(ge=0, description="Accepted and not used: progress is kept with every delivery")
    ] = 0
    time_zone: Annotated[
        TimeZone, Meta(description="Zone of times in lines that name none, such as Asia/Tokyo; empty: the machine's")
    ] = ""
    clock_wait_sec: Annotated[
        float, Meta(ge=0, le=86400, description="Longest time from boot that lines wait for a clock that is not set")
    ] = 600.0
    logs_directory: Annotated[str, Meta(description="Folder of the core's log files; empty: <root>/logs")] = ""
    files: Annotated[dict[str, Files], Meta(description="Other log files, by a name of your choice")] = {}
    journald: Annotated[Journald, Meta(description="The journal, read by journalctl")] = Journald()
    rejoin_tracebacks: Annotated[
        bool, Meta(description="Make one record of a Python traceback that the core logged line by line")
    ] = True
    sinks: Annotated[list[Sink], Meta(min_length=1, max_length=2, description="Where lines go")] = msgspec.field(
        default_factory=lambda: ["cloudwatch"]
    )
    region: Annotated[Region, Meta(description="AWS region; empty: AWS_REGION")] = ""
    log_group: Annotated[
        str, Meta(min_length=1, description="{componentType}, {region}, {componentName}, {thingName} are replaced")
    ] = "/aws/greengrass/{componentType}/{region}/{componentName}"
    log_stream: Annotated[
        str, Meta(min_length=1, description="{date} (UTC), {thingName}, {componentName} are replaced")
    ] = "/{date}/thing/{thingName}"
    retention_days: Annotated[
        Literal[
            0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
        ],
        Meta(description="Retention of log groups made here; 0: for ever"),
    ] = 0
    iot_core: Annotated[IotCore, Meta(description="The sink iot_core")] = IotCore()
    health_metrics: Annotated[HealthMetrics, Meta(description="Health of the components as metrics")] = HealthMetrics()

    @property
    def interval_s(self) -> float:
        """LogManager takes any interval above 0, so a configuration of it must not be refused for one."""
        return min(max(self.periodic_upload_interval_sec, MIN_INTERVAL_S), MAX_INTERVAL_S)

    @property
    def component_patterns(self) -> list[str]:
        """What `components` comes to."""
        if isinstance(self.components, list):
            return self.components
        uploader = self.logs_uploader_configuration
        named = uploader.component_logs_configuration_map or uploader.component_logs_configuration
        return [] if named else ["edgeml.*"]
