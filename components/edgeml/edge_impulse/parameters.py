"""The `Parameters` of Edge Impulse's Greengrass components, and what their values mean.

Deployments in the field were never checked by anyone, so nothing in here is refused: a value that cannot be used
gets the meaning it always had, and `Settings.notes` says so in words for the log.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from edgeml.numbers import number

UNSET = "__none__"
DEFAULT_THRESHOLD = 0.7
DEFAULT_METRICS_INTERVAL_MS = 60_000

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")

Criterion = Literal["gt", "ge", "eq", "le", "lt"]
Number = str | float  # deployments quote numbers at will
YesNo = str | bool

NOT_NEEDED = {
    "node_version": "no Node is used",
    "vips_version": "no libvips is used",
    "lock_filename": "no lock file is used",
    "sleep_time_sec": "no lock file is polled",
    "ei_bindir": "no Edge Impulse tools are used",
    "install_kvssink": "nothing is built on the device",
    "eiparams": "no Edge Impulse tools are used",
    "launch": "each component is one program",
    "ei_ggc_user_groups": "add the component's user to `video`, `audio` or `dialout` when you set up the device",
    "ei_poll_sleeptime_ms": "commands arrive by subscription",
    "gst_args": "cameras belong to edgeml.CameraCapture: give one a `gstreamer` source and name it in `input.camera`",
}

_Unused = Annotated[str | float | bool, msgspec.Meta(description="Accepted and not needed.")]


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """As deployed. `__none__` and the empty string mean unset; scalars may be strings."""

    device_name: Annotated[
        str, msgspec.Meta(description="Device part of the topics; the MAC address of the default route is appended.")
    ] = "MyEdgeImpulseDevice"
    iotcore_backoff: Annotated[Number, msgspec.Meta(description="Publish each Nth non-empty result; 0: every one.")] = 5
    iotcore_qos: Annotated[Number, msgspec.Meta(description="MQTT quality of service, 0 or 1.")] = 1
    ei_sm_secret_id: Annotated[str, msgspec.Meta(description="Secret that holds the Edge Impulse API key.")] = (
        "EI_API_KEY"  # noqa: S105  (the secret's name)
    )
    ei_sm_secret_name: Annotated[str, msgspec.Meta(description="JSON key of the API key within the secret.")] = (
        "ei_api_key"  # noqa: S105
    )
    ei_local_model_file: Annotated[
        str, msgspec.Meta(description="An .eim file, or the socket of one that runs already; no Studio login then.")
    ] = UNSET
    ei_shutdown_behavior: Annotated[
        str, msgspec.Meta(description="`wait_on_restart`: when the input ends, wait for the `restart` command.")
    ] = UNSET
    publish_inference_base64_image: Annotated[
        YesNo, msgspec.Meta(description="`yes`: add the model's input image as base64 JPEG.")
    ] = "no"
    enable_cache_to_file: Annotated[
        YesNo, msgspec.Meta(description="`yes`: keep image and payload of published results as files.")
    ] = "no"
    cache_file_directory: Annotated[str, msgspec.Meta(description="Folder of these files.")] = UNSET
    enable_threshold_limit: Annotated[
        YesNo, msgspec.Meta(description="`yes`: publish only results whose mean confidence meets the threshold.")
    ] = "no"
    default_threshold: Annotated[
        Number, msgspec.Meta(description="Threshold of the confidence, as a fraction (0, 1] or in percent (1, 100].")
    ] = 50.0
    threshold_criteria: Annotated[str, msgspec.Meta(description="gt, ge, eq, le or lt.")] = "ge"
    metrics_sleeptime_ms: Annotated[
        Number, msgspec.Meta(description="Milliseconds between metrics messages; 100 and less mean 60000.")
    ] = 30_000
    enable_cache_to_s3: Annotated[YesNo, msgspec.Meta(description="`yes`: keep them in S3.")] = "no"
    s3_bucket: Annotated[str, msgspec.Meta(description="Existing bucket for them.")] = UNSET
    gst_args: _Unused = ""
    ei_poll_sleeptime_ms: _Unused = ""
    node_version: _Unused = ""
    vips_version: _Unused = ""
    lock_filename: _Unused = ""
    sleep_time_sec: _Unused = ""
    ei_bindir: _Unused = ""
    install_kvssink: _Unused = ""
    eiparams: _Unused = ""
    launch: _Unused = ""
    ei_ggc_user_groups: _Unused = ""


@dataclass(frozen=True)
class Settings:
    """What the parameters mean. `every`: publish each Nth non-empty result. `notes`: sentences for the log."""

    device_name: str
    every: int
    qos: int
    secret_id: str
    secret_key: str
    model_file: Path | None
    wait_on_restart: bool
    include_image: bool
    cache_folder: Path | None
    s3_bucket: str
    threshold_enabled: bool
    threshold: float
    criterion: Criterion
    metrics_interval_s: float
    notes: tuple[str, ...] = field(default=(), compare=False)


def interpret(parameters: Parameters) -> Settings:
    """The settings that `parameters` stand for. Never raises: odd values are explained in `notes`."""
    notes = [
        f"{name} is not needed: {reason}"
        for name, reason in NOT_NEEDED.items()
        if getattr(parameters, name) not in ("", UNSET)
    ]
    cache_folder = _text(parameters.cache_file_directory)
    if _yes(parameters.enable_cache_to_file) and not cache_folder:
        notes.append("enable_cache_to_file is on but cache_file_directory is not set: no files are kept")
    bucket = _text(parameters.s3_bucket)
    if _yes(parameters.enable_cache_to_s3) and not bucket:
        notes.append("enable_cache_to_s3 is on but s3_bucket is not set: nothing goes to S3")
    elif _yes(parameters.enable_cache_to_s3) and not _BUCKET.match(bucket):
        notes.append(f"s3_bucket {bucket[:80]!r} can never be the name of a bucket: nothing goes to S3")
        bucket = ""
    model_file = _text(parameters.ei_local_model_file)
    return Settings(
        device_name=parameters.device_name,
        every=_every(parameters.iotcore_backoff),
        qos=_qos(parameters.iotcore_qos, notes),
        secret_id=_text(parameters.ei_sm_secret_id),
        secret_key=_text(parameters.ei_sm_secret_name),
        model_file=Path(model_file) if model_file else None,
        wait_on_restart=parameters.ei_shutdown_behavior == "wait_on_restart",
        include_image=_yes(parameters.publish_inference_base64_image),
        cache_folder=Path(cache_folder) if cache_folder and _yes(parameters.enable_cache_to_file) else None,
        s3_bucket=bucket if _yes(parameters.enable_cache_to_s3) else "",
        threshold_enabled=_yes(parameters.enable_threshold_limit),
        threshold=_threshold(parameters.default_threshold, notes),
        criterion=_criterion(parameters.threshold_criteria, notes),
        metrics_interval_s=_metrics_interval_s(parameters.metrics_sleeptime_ms, notes),
        notes=tuple(notes),
    )


def criterion(text: object) -> Criterion | None:
    """`text` as a criterion, in any case of letters; None when it is none."""
    lowered = str(text).strip().lower()
    return next((known for known in get_args(Criterion) if known == lowered), None)


def _criterion(text: str, notes: list[str]) -> Criterion:
    found = criterion(text)
    if found is None:
        notes.append(f"threshold_criteria {text!r} is none of {', '.join(get_args(Criterion))}: ge is used")
    return found or "ge"


def _threshold(value: Number, notes: list[str]) -> float:
    number = _number(value)
    if 0 < number <= 1:
        notes.append(f"default_threshold {value} is read as the fraction {number:g}")
        return number
    if 1 < number <= 100:
        notes.append(f"default_threshold {value} is read as percent: {number / 100:g}")
        return number / 100
    notes.append(f"default_threshold {value} is neither in (0, 1] nor in (1, 100]: {DEFAULT_THRESHOLD} is used")
    return DEFAULT_THRESHOLD


def _every(value: Number) -> int:
    number = _number(value)
    return math.ceil(number) if 1 < number < math.inf else 1


def _qos(value: Number, notes: list[str]) -> int:
    number = _number(value)
    if number not in (0, 1):
        used = 1 if number in (2, 3) else 0
        notes.append(f"iotcore_qos {value}: AWS IoT Core knows 0 and 1, {used} is used")
        return used
    return int(number)


def _metrics_interval_s(value: Number, notes: list[str]) -> float:
    number = _number(value)
    if 100 < number < math.inf:
        return number / 1000
    notes.append(f"metrics_sleeptime_ms {value} is not more than 100: {DEFAULT_METRICS_INTERVAL_MS} is used")
    return DEFAULT_METRICS_INTERVAL_MS / 1000


def _number(value: Number) -> float:
    """NaN, which compares false with everything, when `value` is no number."""
    try:
        return number(value.strip()) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return math.nan


def _yes(value: YesNo) -> bool:
    return str(value).strip().lower() in ("yes", "true", "1", "on")


def _text(value: str) -> str:
    return "" if value.strip() in ("", UNSET) else value.strip()
