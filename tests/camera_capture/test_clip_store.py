"""Clips on the disk: the oldest go, by bytes and by days, and nothing that is no clip."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from camera_capture.clip_store import ClipStore
from edgeml.errors import RefusedError, SourceError


def clip(folder: Path, days: float, size: int = 100) -> str:
    """One of so many days ago."""
    name = f"{datetime.fromtimestamp(time.time() - days * 86400, UTC):%Y%m%dT%H%M%S}.000Z-c~2000~{days}.mp4"
    path = folder / name.replace("0.5", "5")
    path.write_bytes(bytes(size))
    return path.name


@pytest.mark.parametrize(
    ("keep_bytes", "keep_days", "left"),
    [(0, 30, 0), (99, 30, 0), (100, 30, 1), (399, 30, 3), (400, 30, 4), (1000, 2.5, 3), (1000, 0.1, 0), (200, 1.5, 2)],
)
def test_the_oldest_go(tmp_path: Path, keep_bytes: int, keep_days: float, left: int) -> None:
    names = [clip(tmp_path, days) for days in (3, 2, 1, 0.5)]
    others = {"a.mp4", "20260101T000000.000Z-c~x.txt", "20260101T000000.000Z-c~x.mp4.part"}
    others |= {"20000101T000000.000Z-c-2~x.mp4", "20000101T000000.000Z-2~c~x.mp4"}  # of other cameras
    for other in others:
        (tmp_path / other).touch()
    ClipStore(tmp_path, "c", keep_bytes, keep_days).prune()
    assert {path.name for path in tmp_path.iterdir()} - others == set(names[len(names) - left :])


def test_the_newest_stays_and_is_whole(tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "clips", "c", 150, 30)
    paths = []
    for number in range(3):
        with store.begin(f"2026/11/{number}.mp4", 1) as part:
            part.write_bytes(bytes(100 + 100 * number))
            paths.append(store.keep(part))
    assert [path.exists() for path in paths] == [False, False, True]  # though it alone is too large
    assert [path.name for path in (tmp_path / "clips").iterdir()] == [paths[-1].name]
    assert paths[-1].name.endswith("Z-c~2026~11~2.mp4")
    assert (tmp_path / "clips").stat().st_mode & 0o077 == paths[-1].stat().st_mode & 0o077 == 0


def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, "c", 10, 30)
    with pytest.raises(SourceError, match="has no room for"), store.begin("a.mp4", 2**60):
        pass
    with (
        pytest.raises(RefusedError, match="at most 227 bytes below the prefix, found 254"),
        store.begin("a" * 250 + ".mp4", 1),
    ):
        pass
    with store.begin("a" * 223 + ".mp4", 1):
        pass
    assert list(tmp_path.iterdir()) == []
    store.prune()
    ClipStore(tmp_path / "none", "c", 10, 30).prune()


def test_clips_of_one_key_and_one_moment_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_capture.clip_store.time.time_ns", lambda: 10**18)
    stores = [ClipStore(tmp_path, camera, 1000, 10**4) for camera in ("c", "c", "c-2")]
    kept = []
    for store in stores:
        with store.begin("a.mp4", 1) as part, store.begin("a.mp4", 1) as other:
            kept += [store.keep(other), store.keep(part)]
    assert len(set(kept)) == 6
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_is_in_the_making_or_of_another_camera_is_not_what_was_left(tmp_path: Path) -> None:
    store, again, other = (ClipStore(tmp_path, camera, 1000, 30) for camera in ("c", "c", "c-2"))
    box = bytes((0, 0, 0, 8)) + b"mdat"
    left = tmp_path / "20260101T000000.000Z-c~2026~a.mp4.part"
    left.write_bytes(box)
    with store.begin("b.mp4", 1) as part:
        part.write_bytes(box + box[:4])
        assert other.left() == []
        assert again.left() == [(left, "2026/a.mp4")]
        assert part.stat().st_size == 12


@pytest.mark.parametrize("whose", ["everybody's", "another user's"])
def test_a_folder_of_others_gets_no_clips(tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if whose == "everybody's":
        tmp_path.chmod(0o1777)
    else:
        tmp_path.chmod(0o770)
        uid = tmp_path.stat().st_uid
        monkeypatch.setattr("os.geteuid", lambda: uid + 1)
        if uid == 0:
            os.chown(tmp_path, 12345, -1)
    target = tmp_path.parent / f"{tmp_path.name}-precious"
    target.write_text("precious")
    (tmp_path / "20260101T000000.000Z-c~a.mp4.part").symlink_to(target)
    store = ClipStore(tmp_path, "c", 10, 30)
    for use in (store.left, lambda: store.begin("a.mp4", 1).__enter__()):
        with pytest.raises(SourceError, match="other users could change clips there"):
            use()
    assert target.read_text() == "precious"
    target.unlink()
