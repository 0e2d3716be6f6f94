"""The steps of an installation, with the real download, archive and store; the outside is a file server."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgeml import models
from edgeml.errors import EdgemlError
from edgeml.messages import ModelActivate
from model_updater.config import Config
from model_updater.document import parse
from model_updater.installation import Installation, Tools
from model_updater.journal import Journal
from model_updater.store import Store, entry_name
from ota_support import MODEL, FileServer, Signer, bundle_files, document, tarred, tiny_model, zipped

CONFIG = Config(allow_http=True, min_free_bytes=0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


class Device:
    """Installs one job after the other, as the updater does; `probes` costs a process each time."""

    def __init__(self, root: Path, server: FileServer) -> None:
        self.root, self.server = root, server
        self.work = root / "work" / "edgeml.ModelUpdater"
        self.work.mkdir(parents=True)
        self.answer = ""
        self.on_confirm: Callable[[], None] = lambda: None
        self.on_done: Callable[[str], None] = lambda step: None
        self.probes = False
        self.asked: list[ModelActivate] = []

    def offer(self, version: str, content: bytes | None = None, **changes: Any) -> dict[str, Any]:
        content = zipped(bundle_files(version)) if content is None else content
        return document(content, version, self.server.add(content), **changes)

    def install(self, job: dict[str, Any], config: Config = CONFIG) -> None:
        """Raises the reason of a failure, after it was undone."""
        installation = self.installation(job, config)
        try:
            for name, step in installation.steps():
                if name != "probe" or self.probes:
                    step()
                self.journal.done = name
                self.on_done(name)
        except (EdgemlError, OSError):
            installation.undo()
            raise
        finally:
            installation.clean()

    def installation(self, job: dict[str, Any], config: Config = CONFIG) -> Installation:
        offered = parse(job)
        self.journal = Journal(job_id="j", execution_number=1, document=offered)

        def confirm(activation: ModelActivate) -> str:
            self.asked.append(activation)
            self.on_confirm()
            return self.answer

        tools = Tools(lambda renew: offered.deployment_artifact_path, confirm, lambda done: None, threading.Event())
        return Installation(self.journal, config, self.work, self.root, tools)

    @property
    def active(self) -> str:
        place = models.updater_folder(self.root, MODEL)
        return models.load(place).manifest.version if place.is_symlink() else ""

    @property
    def versions(self) -> set[str]:
        return {path.name.rpartition("-")[0] for path in (self.work / "models" / MODEL / "versions").glob("*")}


@pytest.fixture
def device(tmp_path: Path, server: FileServer) -> Device:
    return Device(tmp_path, server)


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


def unpacked(device: Device, job: dict[str, Any], config: Config) -> None:
    """The steps to `unpack`, all but that one with room enough."""
    for config_of, name in ((CONFIG, "admit"), (CONFIG, "download"), (config, "unpack")):
        dict(device.installation(job, config_of).steps())[name]()


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


def test_what_gets_a_name_is_on_the_disk_before_and_the_name_is_after(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(device.offer("1.0.0"))
    changes = Changes(device.work, monkeypatch)
    device.install(device.offer("2.0.0", tarred(files := bundle_files("2.0.0"))))
    (new,) = (path for path in changes.renamed.values() if path.name.startswith("2.0.0-"))

    placed = changes.index("rename", device.work / "job" / "unpacked")
    for name, content in files.items():
        assert changes.index(f"sync {len(content)}", device.work / "job" / "unpacked" / name) < placed
    assert changes.index("sync", device.work / "job" / "unpacked") < placed
    turned = changes.index("rename", device.work / "models" / MODEL / ".current")
    assert placed < changes.index("sync", new.parent) < turned
    assert turned < changes.index("sync", device.work / "models" / MODEL, last=True)


def test_what_the_journal_says_is_done_is_on_the_disk(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(device.work, monkeypatch)
    device.on_done = lambda step: changes.order.append(("done", Path(step)))
    device.install(device.offer("1.0.0"))
    downloaded, unpacked = (changes.index("done", Path(step)) for step in ("download", "unpack"))
    assert changes.index("sync", device.work) < downloaded
    assert changes.index("sync", device.work / "job") < downloaded
    assert ("sync", device.work / "job") in changes.order[downloaded:unpacked]


def test_the_folders_of_a_first_version_are_on_the_disk_before_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Changes(device.work, monkeypatch)
    device.install(device.offer("1.0.0"))
    placed = changes.index("rename", device.work / "job" / "unpacked")
    for folder in (device.work, device.work / "models", device.work / "models" / MODEL):
        assert changes.index("sync", folder, last=folder == device.work) < placed


class Changes:
    """What is made durable and what is renamed below `folder`, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[tuple[str, Path]] = []
        self.renamed: dict[Path, Path] = {}
        sync, rename, replace = os.fsync, os.rename, os.replace

        def synced(descriptor: int) -> None:
            sync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.order.append(("sync" if path.is_dir() else f"sync {path.stat().st_size}", path))

        def renamed(act: Callable[..., None]) -> Callable[..., None]:
            def call(source: Path, target: Path) -> None:
                act(source, target)
                self.order.append(("rename", Path(source)))
                self.renamed[Path(source)] = Path(target)

            return call

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", renamed(rename))
        monkeypatch.setattr(os, "replace", renamed(replace))

    def index(self, change: str, path: Path, *, last: bool = False) -> int:
        places = [place for place, seen in enumerate(self.order) if seen == (change, path)]
        assert places, f"{change} {path} is not among {self.order}"
        return places[-1 if last else 0]


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


def test_a_part_that_a_power_cut_has_spoilt_is_fetched_anew(device: Device) -> None:
    content = zipped(bundle_files("1.0.0"))
    job = device.offer("1.0.0", content)
    (device.work / "job").mkdir()
    (device.work / "job" / "artifact").write_bytes(content[:300] + b"\0" * 200)
    device.install(job)
    assert [wanted for _, wanted in device.server.requests] == ["bytes=500-", ""]
    assert device.active == "1.0.0"


def test_readers_never_find_the_link_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entries = [entry_name(version, "0" * 64) for version in ("1", "2")]
    for number, entry in enumerate(entries):
        (tmp_path / f"new{number}").mkdir()
        store.place(tmp_path / f"new{number}", entry)
    store.activate(entries[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(str((tmp_path / "current").readlink()))  # raises when there is none

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        for entry in entries:
            store.activate(entry)
    stop.set()
    reader.join()
    assert seen <= {f"versions/{entry}" for entry in entries}


@pytest.mark.parametrize("verdict", ["accept", "refuse"])
def test_a_power_cut_at_any_change_of_the_disk_leaves_a_whole_version(
    device: Device, tmp_path_factory: pytest.TempPathFactory, verdict: str
) -> None:
    device.install(device.offer("1.0.0"))
    template, scratch = tmp_path_factory.mktemp("template"), tmp_path_factory.mktemp("scratch")
    shutil.copytree(device.root, template, symlinks=True, dirs_exist_ok=True)
    ran = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("power_cut.py")),
            str(template),
            str(scratch),
            json.dumps(device.offer("2.0.0")),
            verdict,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 30, "the cuts are meant to fall into every step"
