"""Whose files are read and deleted, on real folders."""

import os
import pwd
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.health import Health
from files_support import NOBODY, OTHER, a_source, as_root, names, scanner, seen_at
from log_shipper import disk, folders
from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Options
from log_shipper.obstacles import Obstacles


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


STRANGE: dict[str, Callable[[Path], object]] = {
    "it is a link": lambda path: path.symlink_to("/etc/passwd"),
    "it is no regular file": os.mkfifo,
    "it has 2 names": lambda path: os.link(path.with_name("good.log"), path),
    "no regular file": a_socket,
}


@pytest.mark.parametrize("reason", STRANGE)
def test_what_is_no_regular_file_of_one_name_is_refused_and_named_until_it_is_gone(tmp_path: Path, reason: str) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "good.log").write_text("good\n")
    (folder / "fine.log").write_text("fine\n")
    (folder / "folder.log").mkdir()
    strange = folder / "x.log"
    STRANGE[reason](strange)
    found, health = scanner(f"{folder}/*.log"), Health("x", "1")
    obstacles = Obstacles(health)
    assert "fine.log" in names(found)
    assert "x.log" not in names(found)
    obstacles.report(found, [])
    assert reason in found.files_refused()[str(strange)]
    report = health.report()
    assert report.gauges["files_refused"] == len(report.problems) >= 1
    assert {problem.code for problem in report.problems} == {"file_refused"}
    strange.unlink()
    assert names(found) == {"good.log", "fine.log"}
    obstacles.report(found, [])
    assert health.report().problems == ()


@as_root
@pytest.mark.parametrize(
    ("folder", "file", "is_read"),
    [
        pytest.param((0, 0, 0o755), 0, True, id="root's in root's"),
        pytest.param((0, 0, 0o755), NOBODY, True, id="anybody's in root's"),
        pytest.param((0, NOBODY, 0o775), NOBODY, True, id="as /var/log/syslog"),
        pytest.param((0, NOBODY, 0o775), 0, True, id="root's beside syslog"),
        pytest.param((0, NOBODY, 0o1775), NOBODY, True, id="as /var/log/postgresql"),
        pytest.param((NOBODY, 4, 0o755), NOBODY, True, id="as /var/log/nginx"),
        pytest.param((0, NOBODY, 0o775), OTHER, False, id="another's where a group can write"),
        pytest.param((NOBODY, 0, 0o755), 0, False, id="root's where another can write"),
        pytest.param((NOBODY, 0, 0o700), OTHER, False, id="a third one's where another can write"),
        pytest.param((0, 0, 0o777), 0, False, id="where everybody can write"),
        pytest.param((0, 0, 0o1777), OTHER, False, id="in a folder like /tmp"),
        pytest.param((NOBODY, 0, 0o555), 0, False, id="root's where the owner has put his own right away"),
        pytest.param((0, 0, 0o555), OTHER, True, id="where nobody can write"),
    ],
)
def test_the_owner_matters_only_where_another_could_have_put_the_file(
    tmp_path: Path, folder: tuple[int, int, int], file: int, is_read: bool
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_text("line\n")
    os.chown(logs / "a.log", file, file)
    os.chown(logs, folder[0], folder[1])
    logs.chmod(folder[2])
    found = scanner(f"{logs}/*.log")
    assert (names(found) == {"a.log"}) is is_read
    assert bool(found.files_refused()) is not is_read
    seen = seen_at(logs / "a.log")
    if is_read:
        os.close(folders.open_file(seen.path, seen.key))
    else:
        with pytest.raises(folders.ForgedError):
            folders.open_file(seen.path, seen.key)
        assert disk.tidy([seen], Options(disk_space_limit=1), lambda item: True) == []


@as_root
@pytest.mark.parametrize(
    ("owners", "modes", "is_read"),
    [
        pytest.param((0, 0), (0o700, 0o600), False, id="root's private folder"),
        pytest.param((0, 0), (0o755, 0o600), False, id="root's private file"),
        pytest.param((0, 0), (0o700, 0o644), False, id="a file that all could read, in root's private folder"),
        pytest.param((0, 0), (0o755, 0o644), True, id="what all may read"),
        pytest.param((NOBODY, NOBODY), (0o700, 0o600), True, id="his own"),
        pytest.param((0, NOBODY), (0o755, 0o600), True, id="his own in root's"),
        pytest.param((OTHER, OTHER), (0o750, 0o640), False, id="a third one's"),
    ],
)
def test_whoever_owns_a_folder_above_shows_only_what_is_his_or_everybodys(
    tmp_path: Path, owners: tuple[int, int], modes: tuple[int, int], is_read: bool
) -> None:
    home, logs = tmp_path / "home", tmp_path / "home" / "logs"
    logs.mkdir(parents=True)
    (logs / "a.log").write_text("line\n")
    for path, owner, mode in (
        (home, NOBODY, 0o755),
        (logs, owners[0], modes[0]),
        (logs / "a.log", owners[1], modes[1]),
    ):
        os.chown(path, owner, owner)
        path.chmod(mode)
    found = scanner(f"{logs}/*.log")
    assert (names(found) == {"a.log"}) is is_read
    assert bool(found.files_refused()) is not is_read
    seen = seen_at(logs / "a.log")
    if is_read:
        os.close(folders.open_file(seen.path, seen.key))
    else:
        with pytest.raises(folders.ForgedError, match="could have put it there"):
            folders.open_file(seen.path, seen.key)


@as_root
@pytest.mark.parametrize(("right", "is_read"), [(0o7, False), (0o5, True)])
@pytest.mark.parametrize("tag", [0x02, 0x08])
def test_whom_an_acl_lets_write_could_have_put_the_file(tmp_path: Path, tag: int, right: int, is_read: bool) -> None:
    (tmp_path / "a.log").write_text("line\n")
    os.chown(tmp_path / "a.log", OTHER, OTHER)
    group = pwd.getpwuid(NOBODY).pw_gid
    nobody, none = group if tag == 0x08 else NOBODY, 0xFFFFFFFF
    entries = [(0x01, 7, none), (tag, right, nobody), (0x04, 5, none), (0x10, 7, none), (0x20, 5, none)]
    entries.sort()
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    found = scanner(f"{tmp_path}/*.log")
    assert (names(found) == {"a.log"}) is is_read
    assert bool(found.files_refused()) is not is_read


def test_a_file_whose_name_is_as_long_as_a_name_may_be_is_deleted(tmp_path: Path) -> None:
    kept, left = tmp_path / "b.log", tmp_path / ("日" * 77 + "_2020_01_01_00_1.log")
    for path in (left, kept):
        path.write_text("line\n")
    items = [seen_at(left), seen_at(kept)]
    options = Options(delete_log_file_after_cloud_upload=True)
    assert disk.tidy(items, options, lambda item: item.path == str(left)) == items[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["b.log"]


@as_root
def test_links_to_folders_are_followed_only_where_root_made_them(tmp_path: Path) -> None:
    real, theirs = tmp_path / "real", tmp_path / "theirs"
    real.mkdir()
    theirs.mkdir()
    (real / "a.log").write_text("line\n")
    (tmp_path / "link").symlink_to("real")
    (theirs / "link").symlink_to(real)
    os.chown(theirs, NOBODY, NOBODY)
    os.chown(theirs / "link", NOBODY, NOBODY, follow_symlinks=False)
    (tmp_path / "moved").symlink_to(real)
    os.chown(tmp_path / "moved", NOBODY, NOBODY, follow_symlinks=False)
    (tmp_path / "loop").symlink_to("loop")
    assert names(scanner(f"{tmp_path}/link/*.log")) == {"a.log"}
    for path in (theirs / "link", tmp_path / "moved"):
        found = scanner(f"{path}/*.log")
        assert names(found) == set()
        assert "is a link of user nobody" in found.files_refused()[str(path)]
    assert names(scanner(f"{tmp_path}/loop/*.log")) == set()


def test_a_file_that_is_exchanged_for_a_link_all_the_time_never_shows_what_that_leads_to(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "logs"
    secret.write_text("secret\n" * 50)
    folder.mkdir()
    path, stopping = folder / "a.log", threading.Event()

    def exchange() -> None:
        turn = 0
        fresh = folder / "fresh"
        while not stopping.is_set():
            turn += 1
            if turn % 2:
                fresh.symlink_to(secret)
            else:
                fresh.write_text(f"line {turn} of something that is long enough to be told from others\n")
                os.utime(fresh, (1.7e9, 1.7e9))
            fresh.replace(path)

    texts: list[str] = []
    options = Options(delete_log_file_after_cloud_upload=True)
    with a_source(tmp_path) as source:
        found = scanner(f"{folder}/*.log")
        thread = threading.Thread(target=exchange)
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while len(texts) < 20 and time.monotonic() < deadline:
                for files in found.scan().values():
                    source.look(files)
                    texts += source.next_batch(1000).texts
                    source.delivered()
                    disk.tidy(files, options, source.has_delivered)
        finally:
            stopping.set()
            thread.join()
    assert len(texts) >= 20
    assert not [text for text in texts if not text.startswith("line ")]
    assert secret.exists()


def test_a_link_is_not_opened_whoever_asks_for_what_it_leads_to(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "a.log").symlink_to(secret)
    with pytest.raises(OSError, match="another file by now"):
        folders.open_file(str(tmp_path / "a.log"), seen_at(secret).key)


def test_pipes_and_devices_are_never_opened_for_reading(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.log")
    status = (tmp_path / "a.log").lstat()
    with pytest.raises(folders.ForgedError):
        folders.open_file(str(tmp_path / "a.log"), (status.st_dev, status.st_ino))
    with pytest.raises(OSError, match="No such device"):  # ENXIO: nobody has it open
        os.open(tmp_path / "a.log", os.O_WRONLY | os.O_NONBLOCK)


CLOSED = """
import os, sys
from log_shipper.obstacles import journal_obstacle
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(journal_obstacle((sys.argv[1],)))
"""


@as_root
def test_a_journal_that_is_closed_is_named_with_what_opens_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "machine" / "system.journal"
        journal.parent.mkdir()
        Path(folder).chmod(0o755)
        journal.write_text("")
        for mode, expected in (
            (0o640, f"nobody cannot read {journal}: `usermod -aG systemd-journal nobody`"),
            (0o644, ""),
        ):
            journal.chmod(mode)
            command = [sys.executable, "-P", "-c", CLOSED, folder]
            done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=20, cwd="/")
            assert done.stdout.strip().startswith(expected), done.stderr
            assert bool(done.stdout.strip()) is bool(expected)


@pytest.mark.parametrize("name", ["checkpoint.db", "checkpoint.db-wal", "checkpoint.db-shm"])
def test_the_checkpoint_never_follows_a_link(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_text("of somebody else")
    (tmp_path / name).symlink_to(target)
    checkpoint = Checkpoint(tmp_path / "checkpoint.db")
    checkpoint.open()
    checkpoint.save_cursor("log", "x")
    assert checkpoint.cursor("log") == "x"
    checkpoint.close()
    assert target.read_text() == "of somebody else"
