"""What is on the disk at every moment: a whole version, whenever the power goes."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from installation_support import Device
from model_updater.store import Store, entry_name
from ota_support import MODEL, bundle_files, tarred, zipped


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
