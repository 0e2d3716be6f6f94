"""Configuration of edgeml.ModelUpdater."""

from typing import Annotated

import msgspec
from msgspec import Meta

MIB = 2**20


class Config(msgspec.Struct, frozen=True):
    public_key: Annotated[
        str,
        Meta(
            max_length=64,
            description="Ed25519 public key, 32 bytes in base64. With a key set, an unsigned model is refused",
        ),
    ] = ""
    require_signature: Annotated[
        int,
        Meta(
            ge=1,
            le=2,
            description="With a key set: 1 takes a job with `signature` or `signature_v2`, 2 only with `signature_v2`, "
            "which covers thing group and downgrades, too",
        ),
    ] = 1
    thing_group: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9:_-]{0,128}$(?!\n)",
            description="Thing group of this device: jobs made for another one are refused; empty compares nothing",
        ),
    ] = ""
    allow_downgrade: Annotated[
        bool,
        Meta(
            description="Also install a version older than or equal to the active one, whatever the job says; off: "
            "only where the signed job says `allow_downgrade`"
        ),
    ] = False
    require_confirmation: Annotated[
        bool,
        Meta(description="Put the old model back when nobody who uses the model answers; off: silence is consent"),
    ] = True
    confirmation_timeout_s: Annotated[
        float, Meta(ge=1, le=600, description="How long users of the model have to load the new version and answer")
    ] = 60.0
    keep_versions: Annotated[
        int, Meta(ge=0, le=100, description="Versions kept beside the active one, to go back to without a download")
    ] = 2
    allow_http: Annotated[bool, Meta(description="Also download by http:// (a local cloud); https:// always works")] = (
        False
    )
    max_download_bytes: Annotated[int, Meta(ge=1024, le=2**40, description="Largest artifact accepted")] = 512 * MIB
    max_unpacked_bytes: Annotated[int, Meta(ge=1024, le=2**40, description="Largest bundle accepted, unpacked")] = (
        1024 * MIB
    )
    min_free_bytes: Annotated[int, Meta(ge=0, le=2**40, description="Disk space an installation leaves free")] = (
        64 * MIB
    )
    download_timeout_s: Annotated[
        float, Meta(ge=1, le=86400, description="Time for the whole download, interruptions included")
    ] = 3600.0
    stall_timeout_s: Annotated[
        float, Meta(ge=1, le=600, description="A connection that gives nothing for so long is made anew")
    ] = 30.0
    probe_timeout_s: Annotated[
        float, Meta(ge=1, le=600, description="Time for loading the model and running it once")
    ] = 60.0
    probe_memory_bytes: Annotated[
        int, Meta(ge=256 * MIB, le=2**40, description="Address space of the process that tries the model")
    ] = 4096 * MIB
    poll_interval_s: Annotated[
        float, Meta(ge=1, le=86400, description="Asks for jobs this often, should a notification have been lost")
    ] = 600.0
    share_with_group: Annotated[
        bool,
        Meta(description="Let other users of the component's group read the models"),
    ] = False
