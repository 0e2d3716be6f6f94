"""The component as a process: what it asks, and what it says of the answers."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from inferencer_support import picture
from sample_requester.component import copy_changed
from support import Standalone

TOPIC, REPLY = "local/inference", "local/result"
NOBODY = 65534


def test_pictures_are_asked_for_in_turn_and_answers_logged(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG"):
        cv2.imwrite(str(tmp_path / name), picture())
    (tmp_path / "notes.txt").touch()
    config = {"image_dir": str(tmp_path), "interval_s": "0.1"}
    with Standalone("sample_requester", config, tmp_path / "work") as running:
        asked = [running.message(TOPIC, count=number) for number in (1, 2, 3)]
        assert [request["fname"] for request in asked] == ["a.JPG", "b.png", "a.JPG"]
        assert asked[0] == {"image_dir": str(tmp_path), "fname": "a.JPG", "request_id": "sample-1"}
        running.send(REPLY, {"label": "cat", "score": 0.7, "request_id": "sample-1"})
        running.logged("answer request_id=sample-1 label=cat score=0.7")
        running.send(REPLY, {"results": [{"label": "dog", "score": 0.5}], "request_id": "sample-2", "pipeline": "p"})
        running.logged("label=dog")
        running.send(REPLY, {"label": "", "error": "no such file"})
        running.logged('error="no such file"')
        running.send(REPLY, [1])
        running.logged("answer not understood")
        assert running.stop() == 0


def test_without_pictures_it_says_so_and_lives_on(tmp_path: Path) -> None:
    with Standalone("sample_requester", {"image_dir": str(tmp_path / "absent")}, tmp_path / "work") as running:
        running.logged("No such file or directory")
        cv2.imwrite(str(tmp_path / "a.png"), picture())
        running.configure({"image_dir": str(tmp_path)})
        assert running.message(TOPIC)["fname"] == "a.png"
        assert running.stop() == 0


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder of a user to whom modes apply, who this process is meanwhile."""
    folder = Path(tempfile.mkdtemp())
    before = os.geteuid()
    if before == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(before)
    shutil.rmtree(folder)


def test_read_only_artifacts_are_copied_as_often_as_they_change(others_folder: Path) -> None:
    """As Greengrass unpacks them: files 0440, and folders that may be read-only, too."""
    source, target = others_folder / "artifact", others_folder / "pictures"
    source.mkdir()

    def ships(name: str, content: bytes) -> None:
        source.chmod(0o755)
        (source / name).unlink(missing_ok=True)
        (source / name).write_bytes(content)
        (source / name).chmod(0o440)
        source.chmod(0o555)

    ships("a.png", b"one")
    shutil.copytree(source, target)  # what version 1.0 left: read-only files in a read-only folder
    (target / "a.png").chmod(0o440)
    copy_changed(source, target)
    unchanged = (target / "a.png").stat().st_mtime_ns
    ships("b.png", b"two")
    for content in (b"changed", b"CHANGED", b""):
        ships("b.png", content)
        copy_changed(source, target)
        assert (target / "b.png").read_bytes() == content
    assert (target / "a.png").stat().st_mtime_ns == unchanged
    (target / "own.png").write_bytes(b"mine")
    (target / "a.png").unlink()
    (target / "a.png").symlink_to(source / "b.png")
    (target / "b.png").chmod(0)
    copy_changed(source, target)
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png", "own.png"]
    assert (target / "a.png").read_bytes() == b"one"
    assert not (target / "a.png").is_symlink()
    assert (target / "a.png").stat().st_mode & stat.S_IWUSR
