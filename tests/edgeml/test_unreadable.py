"""Users of their own: which folder cannot be read and by whom, and sharing with the group."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import BundleError, FrameError, UnreadableError
from edgeml.files import unreadable
from edgeml.frames import FrameReader, FrameWriter
from forked import popen
from model_updater.store import share

NOBODY = 65534
GROUP = 54321  # of nobody's
MANIFEST = {
    "name": "Tiny",
    "version": "1.0.0",
    "task": "classification",
    "sha256": "0" * 64,
    "input": {"name": "x"},
    "output": {"decoder": "softmax"},
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def as_user(code: str, *arguments: object, gid: int = NOBODY) -> str:
    """What `code` prints as user nobody, in the group `gid` alone. Imports come before the user changes."""
    imports = "import sys, os, encodings.utf_8_sig\nfrom pathlib import Path\n"
    imports += "from edgeml import errors, files, frames, models\nb'x'.decode('utf-8-sig')"
    change = f"os.setgroups([]); os.setgid({gid}); os.setuid({NOBODY})"
    command = [sys.executable, "-c", f"{imports}\n{change}\n{code}", *map(str, arguments)]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return str(said).strip()


@pytest.fixture
def root() -> Iterator[Path]:
    """A kernel root that all may enter (pytest's folders are 0700), with a bundle in a work folder of 0700."""
    with tempfile.TemporaryDirectory(prefix="edgeml-users-") as folder:
        Path(folder).chmod(0o755)
        _install(Path(folder))
        yield Path(folder)


def _install(root: Path) -> None:
    bundle = root / "work/edgeml.ModelUpdater/models/Tiny/versions/1"
    bundle.mkdir(parents=True)
    (bundle / "model.json").write_text(json.dumps(MANIFEST))
    (bundle / "model.onnx").write_bytes(b"x")
    (bundle.parent.parent / "current").symlink_to("versions/1")
    (root / "work/edgeml.ModelUpdater").chmod(0o700)


FIND = """
try:
    print(models.find("Tiny", Path(sys.argv[1])))
except errors.UnreadableError as error:
    print(error)
watcher = models.Watcher("Tiny", Path(sys.argv[1]))
print(watcher.changed())
print(watcher.unreadable)
"""


@needs_root
def test_a_bundle_in_another_users_folder_is_named_with_the_folder_and_both_users(root: Path) -> None:
    found, changed, text = as_user(FIND, root).splitlines()
    folder = root / "work/edgeml.ModelUpdater"
    assert found == text == f"{folder} cannot be read by user nobody: it is root's, mode 0700"
    assert changed == "None"


@needs_root
def test_a_readable_bundle_is_taken_and_the_other_one_still_told(root: Path) -> None:
    other = root / "work/edgeml.model.Tiny/current"
    other.mkdir(parents=True)
    (other / "model.json").write_text(json.dumps(MANIFEST))
    found, changed, text = as_user(FIND, root).splitlines()
    assert found == changed == str(other)
    assert "edgeml.ModelUpdater cannot be read by user nobody" in text


@needs_root
def test_shared_with_the_group_it_is_found_by_the_group_alone(root: Path) -> None:
    work = root / "work/edgeml.ModelUpdater"
    for path in [work, *work.rglob("*")]:
        os.chown(path, 0, GROUP, follow_symlinks=False)
    share(work)
    share(work)
    bundle = work / "models/Tiny/versions/1"
    folders = [path for path in [work, *work.rglob("*")] if path.is_dir() and not path.is_symlink()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o750}
    assert as_user(FIND, root, gid=GROUP).splitlines() == [str(bundle), str(bundle)]
    assert "cannot be read by user nobody" in as_user(FIND, root)


@needs_root
def test_links_are_followed_to_the_folder_that_is_closed(root: Path) -> None:
    link = root / "link"
    link.symlink_to("work/edgeml.ModelUpdater/models")
    text = as_user("print(files.unreadable(Path(sys.argv[1])))", link / "Tiny/current/model.json")
    assert text.startswith(f"{root / 'work/edgeml.ModelUpdater'} cannot be read by user nobody")
    closed = root / "closed"
    closed.write_text("x")
    closed.chmod(0o600)
    assert as_user("print(files.unreadable(Path(sys.argv[1])))", closed).startswith(f"{closed} cannot be read")


def test_what_is_readable_or_not_there_is_no_reason(root: Path) -> None:
    loop = root / "loop"
    loop.symlink_to("loop")
    for path in (root, root / "absent/x", loop / "x", root / "work/edgeml.ModelUpdater/models/Tiny/current"):
        assert unreadable(path) == ""
    with pytest.raises(UnreadableError):
        raise UnreadableError("it is a BundleError")
    assert issubclass(UnreadableError, BundleError)


READ = """
from edgeml.errors import FrameError
try:
    frame = frames.FrameReader("front", directory=Path(sys.argv[1])).read(timeout=5)
    print(frame.frame_id if frame else None)
except FrameError as error:
    print(error)
"""


@needs_root
@pytest.mark.parametrize(
    ("shared", "gid", "mode"), [(True, GROUP, 0o640), (True, NOBODY, 0o640), (False, GROUP, 0o600)]
)
def test_a_ring_is_read_by_the_group_when_it_is_shared(
    root: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, gid: int, mode: int
) -> None:
    directory = root / "shm"
    directory.mkdir()
    directory.chmod(0o1777)
    with FrameWriter("front", width=8, height=8, directory=directory, share_with_group=shared) as writer:
        assert stat.S_IMODE(writer.path.stat().st_mode) == mode
        os.chown(writer.path, -1, GROUP)
        writer.write(np.zeros((8, 8, 3), np.uint8))
        writer.resize(width=4, height=4)
        assert stat.S_IMODE(writer.path.stat().st_mode) == mode
        os.chown(writer.path, -1, GROUP)
        writer.write(np.zeros((4, 4, 3), np.uint8))
        answer = as_user(READ, directory, gid=gid)
    assert (answer == "2") == (shared and gid == GROUP), answer


@needs_root
def test_a_file_that_others_may_read_is_no_shared_ring(root: Path) -> None:
    directory = root / "shm"
    directory.mkdir()
    with FrameWriter("front", width=8, height=8, directory=directory, share_with_group=True) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
        os.chown(writer.path, -1, GROUP)
        for mode in (0o644, 0o660, 0o642):
            writer.path.chmod(mode)
            assert "is not a frame ring" in as_user(READ, directory, gid=GROUP)
    assert FrameReader("front", directory=directory).read(timeout=0) is None
    assert issubclass(FrameError, Exception)
