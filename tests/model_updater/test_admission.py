"""What may be installed: signatures, thing groups, newer versions, and the room for it."""

import shutil
from types import SimpleNamespace

import msgspec
import pytest

from edgeml import models
from edgeml.errors import EdgemlError
from installation_support import CONFIG, Device, unpacked
from model_updater.config import Config
from ota_support import MODEL, Signer, bundle_files, tarred, tiny_model, zipped


@pytest.mark.parametrize(
    ("active", "offered", "newer"),
    [
        ("1.0.0", "1.0.1", True),
        ("1.9.0", "1.10.0", True),
        ("9", "10", True),
        ("1.0.0-rc.1", "1.0.0", True),
        ("1.0.0", "1.0.0", False),
        ("1.10.0", "1.9.9", False),
        ("10", "9", False),
        ("2", "1.9.9", False),
    ],
)
def test_only_newer_versions_unless_configured(device: Device, active: str, offered: str, newer: bool) -> None:
    device.install(device.offer(active))
    job = device.offer(offered, zipped(bundle_files(offered, license="other content")))
    if newer:
        device.install(job)
    else:
        with pytest.raises(EdgemlError, match=f"version {offered} is not newer than {active}"):
            device.install(job)
        assert device.active == active
        device.install(job, Config(allow_http=True, min_free_bytes=0, allow_downgrade=True))
    assert device.active == offered


def test_a_model_component_counts_as_the_active_version(device: Device) -> None:
    folder = models.component_folder(device.root, MODEL)
    folder.mkdir(parents=True)
    for name, content in bundle_files("3.0.0").items():
        (folder / name).write_bytes(content)
    with pytest.raises(EdgemlError, match=r"not newer than 3\.0\.0"):
        device.install(device.offer("2.0.0"))
    device.install(device.offer("4.0.0"))
    assert models.find(MODEL, device.root) == models.updater_folder(device.root, MODEL).resolve()
    downgrade = Config(allow_http=True, min_free_bytes=0, allow_downgrade=True)
    device.install(device.offer("3.0.0"), downgrade)
    with pytest.raises(EdgemlError, match=rf"component edgeml\.model\.{MODEL} has 3\.0\.0, which wins"):
        device.install(device.offer("2.0.0"), downgrade)
    assert device.active == "3.0.0"


def test_an_older_version_comes_back_only_where_the_signed_job_says_so(device: Device) -> None:
    signer = Signer()
    config = msgspec.structs.replace(CONFIG, public_key=signer.public)
    old, new = device.offer("1.0.0"), device.offer("2.0.0")
    device.install(signer.signed_v2(old), config)
    device.install(signer.signed_v2(new), config)
    for replayed in (signer.signed(old), signer.signed_v2(old), {**signer.signed(old), "allow_downgrade": True}):
        with pytest.raises(EdgemlError, match="does not say allow_downgrade"):
            device.install(replayed, config)
        assert device.active == "2.0.0"
    device.install(signer.signed_v2(old, allow_downgrade=True), config)
    assert device.active == "1.0.0"


def test_a_job_for_another_thing_group_is_refused(device: Device) -> None:
    config = msgspec.structs.replace(CONFIG, thing_group="turbines")
    with pytest.raises(EdgemlError, match="for thing group cameras"):
        device.install(device.offer("1.0.0", thing_group="cameras"), config)
    device.install(device.offer("1.0.0", thing_group="turbines"), config)
    assert device.active == "1.0.0"


def test_the_signature_is_checked_again_before_the_switch(device: Device) -> None:
    signer = Signer()
    config = msgspec.structs.replace(CONFIG, public_key=signer.public)
    installation = device.installation(signer.signed(device.offer("1.0.0")), config)
    for name, step in installation.steps():
        if name == "switch":
            document = device.journal.document
            assert document is not None
            installation = device.installation({**msgspec.to_builtins(document), "model_version": "1.0.1"}, config)
            with pytest.raises(EdgemlError, match="signature does not fit"):
                dict(installation.steps())["switch"]()
            break
        if name != "probe":
            step()
    assert device.active == ""


def test_signatures_are_demanded_when_a_key_is_set(device: Device) -> None:
    signer = Signer()
    config = Config(allow_http=True, min_free_bytes=0, public_key=signer.public)
    with pytest.raises(EdgemlError, match="not signed"):
        device.install(device.offer("1.0.0"), config)
    with pytest.raises(EdgemlError, match="signature does not fit"):
        device.install(Signer().signed(device.offer("1.0.0")), config)
    assert device.server.requests == [], "nothing is fetched for a document that is refused"
    device.install(signer.signed(device.offer("1.0.0")), config)
    assert device.active == "1.0.0"


def test_limits_and_free_space_are_checked_before_the_download(device: Device) -> None:
    job = device.offer("1.0.0")
    with pytest.raises(EdgemlError, match="are allowed"):
        device.install({**job, "size": 2**31})
    with pytest.raises(EdgemlError, match="bytes of disk are free"):
        device.install(job, Config(allow_http=True, min_free_bytes=2**40))
    with pytest.raises(EdgemlError, match="only https"):
        device.install(job, Config(min_free_bytes=0))
    assert device.server.requests == []


def test_a_disk_that_filled_up_meanwhile_is_named_with_what_is_needed(device: Device) -> None:
    job = device.offer("1.0.0")
    with pytest.raises(EdgemlError, match=rf"\d+ bytes of disk are free, {job['size'] + 2**40} are needed"):
        unpacked(device, job, Config(allow_http=True, min_free_bytes=2**40))


@pytest.mark.parametrize(("allowed", "free"), [(50_000, 2**30), (2**30, 50_000)])
def test_neither_more_than_is_allowed_nor_more_than_is_free_is_unpacked(
    device: Device, monkeypatch: pytest.MonkeyPatch, allowed: int, free: int
) -> None:
    model = tiny_model().ljust(100_000, b"\0")  # packs well
    job = device.offer("1.0.0", tarred(bundle_files("1.0.0", model)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free + 1000))
    with pytest.raises(EdgemlError, match="unpacks to more than 50000 bytes, allowed or free"):
        unpacked(device, job, Config(allow_http=True, min_free_bytes=1000, max_unpacked_bytes=allowed))
