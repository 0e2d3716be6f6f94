"""Configuration of edgeml.Monitor."""

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import ConfigError, HttpError
from edgeml.fields import BucketOrNone
from edgeml.http import check_url, shown
from monitor.vitals.limits import Limits

Host = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$(?!\n)")]


class Otlp(msgspec.Struct, frozen=True):
    endpoint: Annotated[
        str,
        Meta(
            max_length=2048,
            pattern=r"^(https?://[!-~]+)?$(?!\n)",
            description="URL of a collector that takes OTLP over HTTP; `/v1/metrics` is added; empty: none",
        ),
    ] = ""
    headers_secret: Annotated[
        str,
        Meta(
            max_length=512,
            description="Secret with the headers to send, a JSON object, or `headers` of one; with https alone, "
            "or to this device",
        ),
    ] = ""
    every_s: Annotated[float, Meta(ge=5, le=3600, description="Seconds from one message to the next")] = 60.0

    def check(self) -> None:
        """Raises ConfigError for what can never be sent."""
        if not self.endpoint:
            return
        try:
            parts = check_url(self.endpoint)
        except HttpError as error:
            raise ConfigError("otlp.endpoint", str(error)) from error
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError("otlp.endpoint", f"expected {shown(self.endpoint)} alone: secrets go to headers_secret")
        if self.headers_secret and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ConfigError("otlp.endpoint", f"expected https for headers_secret, found {shown(self.endpoint)}")


class Config(msgspec.Struct, frozen=True):
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of the page; 0 takes a free one, which the log tells")
    ] = 8484
    address: Annotated[
        str,
        Meta(
            max_length=45,
            description="IP address that the page listens on; any but loopback means TLS and a password; "
            "0.0.0.0 and :: are all addresses",
        ),
    ] = "127.0.0.1"
    auth: Annotated[
        Literal["password", "off"],
        Meta(description="Ask for the password; off, on loopback alone, lets every local user look"),
    ] = "password"
    password_secret: Annotated[
        str,
        Meta(
            max_length=512,
            description="Secret with the password, as plain text or as `password` of a JSON object; "
            "without one it is in the work folder's file `password`",
        ),
    ] = ""
    certificate: Annotated[
        str,
        Meta(max_length=4096, description="PEM file with the certificate for TLS; without one the Monitor makes one"),
    ] = ""
    key: Annotated[str, Meta(max_length=4096, description="PEM file with the certificate's key")] = ""
    hosts: Annotated[
        list[Host],
        Meta(max_length=16, description="Further names and addresses by which browsers may call the device"),
    ] = []
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, as CameraCapture has it")] = "/dev/shm"  # noqa: S108
    fps: Annotated[
        float, Meta(gt=0, le=60, description="Pictures a second of a camera at most, while somebody watches")
    ] = 10.0
    max_width: Annotated[int, Meta(ge=160, le=3840, description="Pixels across a picture at most")] = 960
    request_dirs: Annotated[
        list[Annotated[str, Meta(max_length=4096, pattern=r"^/")]],
        Meta(
            max_length=16,
            description="Folders below which pictures that requests named are shown, links resolved; none by default",
        ),
    ] = []
    vitals: Annotated[Limits, Meta(description="How the device itself does, and from when on something is wrong")] = (
        Limits()
    )
    report_s: Annotated[
        float,
        Meta(ge=0, le=86400, description="Seconds from a report to AWS IoT Core to the next; 0 sends none"),
    ] = 300.0
    look: Annotated[
        Literal["off", "state", "pictures"],
        Meta(description="What is answered to who asks through AWS IoT Core: nothing, the state, pictures as well"),
    ] = "state"
    look_bucket: Annotated[
        BucketOrNone,
        Meta(description="S3 bucket for answers that are larger than a message, and pictures; empty: none"),
    ] = ""

    otlp: Annotated[Otlp, Meta(description="A collector that is sent what `/metrics` tells")] = Otlp()

    def check(self) -> None:
        """Raises ConfigError for what can never be served or sent."""
        self.otlp.check()
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError as error:
            raise ConfigError("address", f"expected an IP address, found {self.address!r}") from error
        if not loopback and self.auth == "off":
            raise ConfigError("auth", f"expected password, found off, while address is {self.address}, not loopback")
        if bool(self.certificate) != bool(self.key):
            missing, there = ("key", "certificate") if self.certificate else ("certificate", "key")
            raise ConfigError(missing, f"expected a PEM file, found nothing, while {there} is given")


def is_loopback(host: str) -> bool:
    """Whether a URL's host can be no other machine than this one."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
