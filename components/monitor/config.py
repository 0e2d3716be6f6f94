"""Configuration of edgeml.Monitor."""

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import ConfigError
from monitor.vitals.limits import Limits

Host = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$(?!\n)")]


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
    vitals: Annotated[Limits, Meta(description="How the device itself does, and from when on something is wrong")] = (
        Limits()
    )

    report_s: Annotated[
        float,
        Meta(ge=0, le=86400, description="Seconds from a report to AWS IoT Core to the next; 0 sends none"),
    ] = 300.0

    def check(self) -> None:
        """Raises ConfigError for what can never be served."""
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError as error:
            raise ConfigError("address", f"expected an IP address, found {self.address!r}") from error
        if not loopback and self.auth == "off":
            raise ConfigError("auth", f"expected password, found off, while address is {self.address}, not loopback")
        if bool(self.certificate) != bool(self.key):
            missing, there = ("key", "certificate") if self.certificate else ("certificate", "key")
            raise ConfigError(missing, f"expected a PEM file, found nothing, while {there} is given")
