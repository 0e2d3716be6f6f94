"""One job installed after the other: found, put back where it is refused, and pruned."""

import shutil
from typing import Any

import pytest

from edgeml import models
from edgeml.errors import EdgemlError
from installation_support import Device
from model_updater.config import Config
from ota_support import MODEL, bundle_files, tarred, zipped


def test_a_version_is_installed_and_found_and_nothing_else_is_left(device: Device) -> None:
    device.probes = True
    device.install(device.offer("1.0.0"))
    folder = models.find(MODEL, device.root)
    assert folder is not None
    assert models.load(folder).manifest.version == device.active == "1.0.0"
    assert [path.name for path in device.work.iterdir()] == ["models"]
    (asked,) = device.asked
    assert (asked.model, asked.version, asked.path) == (MODEL, "1.0.0", str(folder))
    link = models.updater_folder(device.root, MODEL).readlink()
    assert not link.is_absolute(), "the work folder may be moved"


def test_a_tar_is_as_good_as_a_zip(device: Device) -> None:
    device.install(device.offer("1.0.0", tarred(bundle_files("1.0.0"))))
    assert device.active == "1.0.0"


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (zipped(bundle_files("2.0.0")), {"sha256": "0" * 64}, "sha256 of the artifact"),
        (zipped(bundle_files("2.0.0")), {"size": 99}, "the object has"),
        (b"no archive at all", {}, "neither a zip"),
        (zipped({"../../evil": b"x"}), {}, "plain file names"),
        (zipped({"model.onnx": b"x"}), {}, "model.json"),
        (zipped({**bundle_files("2.0.0"), "model.onnx": b"changed"}), {}, "sha256"),
        (zipped(bundle_files("2.0.1")), {}, "is Tiny 2.0.1, not what the job says"),
        (zipped(bundle_files("2.0.0", name="Other")), {}, "is Other 2.0.0"),
        (zipped(bundle_files("2.0.0", b"garbage")), {}, "cannot load it.*made with ONNX Runtime 1.23.0"),
    ],
)
def test_whatever_is_wrong_the_old_version_stays(
    device: Device, content: bytes, changes: dict[str, Any], words: str
) -> None:
    device.install(device.offer("1.0.0"))
    device.probes = True
    with pytest.raises(EdgemlError, match=words):
        device.install(device.offer("2.0.0", content, **changes))
    assert device.active == "1.0.0"
    assert device.versions == {"1.0.0"}
    assert [path.name for path in device.work.iterdir()] == ["models"]
    device.probes = False
    device.install(device.offer("2.0.0"))
    assert device.active == "2.0.0", "a failure must not stand in the way of the next job"


def test_a_first_version_that_is_refused_leaves_no_link(device: Device) -> None:
    device.answer = "does not fit"
    with pytest.raises(EdgemlError, match="does not fit"):
        device.install(device.offer("1.0.0"))
    assert device.active == ""
    assert device.versions == set()


def test_a_refused_version_gives_way_to_the_one_before(device: Device) -> None:
    device.install(device.offer("1.0.0"))
    device.answer = "no such decoder"
    with pytest.raises(EdgemlError, match="no such decoder"):
        device.install(device.offer("2.0.0"))
    assert (device.active, device.versions) == ("1.0.0", {"1.0.0"})


def remove(device: Device, version: str) -> None:
    (folder,) = (device.work / "models" / MODEL / "versions").glob(f"{version}-*")
    shutil.rmtree(folder)


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_a_version_that_is_refused_where_the_link_dangled_leaves_no_link(device: Device, version: str) -> None:
    device.install(device.offer("1.0.0"))
    remove(device, "1.0.0")
    device.answer = "no such decoder"
    with pytest.raises(EdgemlError, match="no such decoder"):
        device.install(device.offer(version))
    assert not models.updater_folder(device.root, MODEL).is_symlink()
    assert device.versions == set()
    device.answer = ""
    device.install(device.offer("1.0.0"))
    assert device.active == "1.0.0"


def test_a_version_that_is_refused_when_the_one_before_was_deleted_leaves_no_link(device: Device) -> None:
    device.install(device.offer("1.0.0"))
    device.answer, device.on_confirm = "no such decoder", lambda: remove(device, "1.0.0")
    with pytest.raises(EdgemlError, match="no such decoder"):
        device.install(device.offer("2.0.0"))
    assert (device.active, device.versions) == ("", set())


def test_old_versions_are_kept_for_going_back_and_then_pruned(device: Device) -> None:
    config = Config(allow_http=True, min_free_bytes=0, keep_versions=2, allow_downgrade=True)
    for version in ("1", "2", "3", "4"):
        device.install(device.offer(version), config)
    assert device.versions == {"2", "3", "4"}
    device.server.requests.clear()
    device.install(device.offer("2"), config)
    assert device.active == "2"
    assert device.server.requests == [], "a version that was kept is not fetched again"
    device.install(device.offer("5"), config)
    assert device.versions == {"2", "4", "5"}, "those that were active last are kept"


def test_a_kept_version_that_has_rotted_is_refused_and_fetched_the_next_time(device: Device) -> None:
    config = Config(allow_http=True, min_free_bytes=0, allow_downgrade=True)
    device.install(device.offer("1"), config)
    device.install(device.offer("2"), config)
    (rotten,) = (device.work / "models" / MODEL / "versions").glob("1-*")
    (rotten / "model.onnx").write_bytes(b"rot")
    with pytest.raises(EdgemlError, match="sha256"):
        device.install(device.offer("1"), config)
    assert device.active == "2"
    device.install(device.offer("1"), config)
    assert device.active == "1"


def test_a_download_goes_on_where_it_was_cut(device: Device) -> None:
    content = zipped(bundle_files("1.0.0"))
    job = device.offer("1.0.0", content)
    (device.work / "job").mkdir()
    (device.work / "job" / "artifact").write_bytes(content[:500])
    device.install(job)
    assert [wanted for _, wanted in device.server.requests] == ["bytes=500-"]
    assert device.active == "1.0.0"
