"""What a scan finds of what changes: links, patterns, rotation, files that move, on real folders."""

import glob
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import pytest

from edgeml.health import Health
from files_support import a_source, scanner, seen_at
from log_shipper import disk, watch
from log_shipper.config import Options
from log_shipper.identity import Seen
from log_shipper.obstacles import Obstacles


def test_links_to_themselves_do_not_hold_a_scan_up(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.log").write_text("line\n")
    found = scanner(f"{tmp_path}/**/*.log")
    assert [seen.path for files in found.scan().values() for seen in files] == [f"{tmp_path}/deep/a.log"]


def test_a_pattern_over_too_many_folders_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "a.log").write_text("line\n")
    monkeypatch.setattr(watch, "MAX_FOLDERS", 5)
    found, health = scanner(f"{tmp_path}/**/*.log"), Health("x", "1")
    assert 1 <= sum(len(files) for files in found.scan().values()) <= 5
    Obstacles(health).report(found, [])
    (problem,) = health.report().problems
    assert (problem.code, problem.subject) == ("too_large", "app")
    assert "more than 5 folders" in problem.text


@pytest.mark.parametrize(
    "pattern",
    ["*.log", "a/*.log", "*/*.log", "**/*.log", "a/**/x.log", "**", "a/**", "*/**/[ab]*", "a/b/x.log", ".h/*", "**/.*"],
)
def test_a_pattern_finds_what_glob_finds(tmp_path: Path, pattern: str) -> None:
    for folder in ("", "a", "a/b", "a/b/c", ".h", "b", "b/.i"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("x.log", "a.txt", "bb", ".dot.log", "[q].log", "old.log.gz"):
            (tmp_path / folder / name).write_text(name)
    matches = glob.glob(f"{tmp_path}/{pattern}", recursive=True)  # noqa: PTH207  (what users know)
    expected = {path for path in matches if Path(path).is_file() and not path.endswith(".gz")}
    assert {seen.path for files in scanner(f"{tmp_path}/{pattern}").scan().values() for seen in files} == expected


@pytest.mark.parametrize("many", [watch.MANY, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_scan_that_looks_only_at_what_changed_finds_what_a_new_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, seed: int
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(watch, "MANY", many)
    pattern = f"{tmp_path}/*.log"
    found = scanner(pattern)
    for turn in range(120):
        here = sorted(tmp_path.iterdir())
        path = dice.choice(here) if here and dice.random() < 0.7 else tmp_path / f"{dice.randrange(30)}.log"
        way = dice.randrange(6)
        if way == 0 and path.exists():
            path.unlink()
        elif way == 1 and path.exists():
            path.replace(tmp_path / f"{dice.randrange(30)}.{dice.choice(['log', 'txt'])}")
        elif way == 2:
            fresh = tmp_path / "fresh"
            fresh.write_text(f"{turn}")
            fresh.replace(path)
        else:
            with path.open("a") as file:
                file.write(f"{turn}\n")
        expected = {seen for files in scanner(pattern).scan().values() for seen in files}
        looks = 1 if many > 30 else 1 + len(expected)  # with few looked up each time it may take a turn of all
        for _ in range(looks):
            known = found.scan()
        assert {seen for files in known.values() for seen in files} == expected
    assert found.scan() is found.scan()


def test_a_hundred_times_more_files_are_looked_up_no_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MANY", 50)
    for number in range(1_000):
        (tmp_path / f"{number}.log").touch()
        os.utime(tmp_path / f"{number}.log", (1.7e9, 1.7e9))
    monkeypatch.setattr(watch, "FRESH_NS", -(10**12))  # the folder counts as settled at once
    found = scanner(f"{tmp_path}/*.log")
    found.scan()
    calls = 0
    real = os.stat

    def counted(*arguments: object, **options: object) -> os.stat_result:
        nonlocal calls
        calls += 1
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", counted)
    assert found.scan() is found.scan()
    assert calls <= 2 * 50


def test_a_new_file_with_a_deleted_ones_inode_is_delivered_before_it_may_be_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    options = Options(delete_log_file_after_cloud_upload=True)

    def line(number: int) -> str:
        return f"2026-11-21T10:00:00Z [INFO] (main) a: a line that is long enough to be told from others {number}\n"

    def write(name: str, first: int, count: int) -> Seen:
        path = folder / name
        path.write_text("".join(line(number) for number in range(first, first + count)))
        os.utime(path, (1.7e9 + first, 1.7e9 + first))
        return seen_at(path)

    with a_source(tmp_path) as source:
        first = write("a_2026_11_21_05_0.log", 0, 50)
        source.look([first])
        assert len(source.next_batch(1000).texts) == 50
        assert not source.has_delivered(first)
        source.delivered()
        assert source.has_delivered(first)
        assert disk.tidy([first], options, source.has_delivered) == [first]
        again = write("a_2026_11_21_05_1.log", 50, 20)._replace(key=first.key)  # shorter, and the same inode
        assert not source.has_delivered(again)
        source.look([again])
        assert disk.tidy([again], options, source.has_delivered) == []
        assert not source.has_delivered(first._replace(path=again.path))
        assert not source.has_delivered(first._replace(mtime=again.mtime))
        source.deleted(first)
        real = seen_at(folder / "a_2026_11_21_05_1.log")
        source.look([real])
        assert [text.rpartition(" ")[2] for text in source.next_batch(1000).texts] == [str(n) for n in range(50, 70)]
        source.delivered()
        assert disk.tidy([real], options, source.has_delivered) == [real]


FOLDERS = {"tmpfs": Path("/dev/shm"), "disk": Path(tempfile.gettempdir())}


@pytest.mark.parametrize("where", FOLDERS)
@pytest.mark.parametrize(
    "options", [Options(delete_log_file_after_cloud_upload=True), Options(disk_space_limit=1)], ids=["delete", "limit"]
)
def test_rotation_every_few_milliseconds_with_deletion_loses_no_line(where: str, options: Options) -> None:
    if not FOLDERS[where].is_dir():
        pytest.skip(f"there is no {FOLDERS[where]}")
    with tempfile.TemporaryDirectory(dir=FOLDERS[where]) as folder, a_source(Path(folder)) as source:
        logs = Path(folder) / "logs"
        logs.mkdir()
        logs.chmod(0o755)
        written: list[str] = []
        done = threading.Event()

        def write() -> None:
            dice = random.Random(1)
            for rotation in range(250):
                with (logs / "a.log").open("a") as file:
                    for _ in range(dice.randrange(1, 40)):
                        written.append(f"line {len(written)} {'x' * dice.randrange(100)}.")
                        file.write(written[-1] + "\n")
                (logs / "a.log").rename(logs / f"a_2026_11_21_05_{rotation}.log")
                time.sleep(0.002)
            done.set()

        found = scanner(f"{logs}/*.log")
        arrived: list[str] = []
        deleted = 0
        writer = threading.Thread(target=write)
        writer.start()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ended = done.is_set() and len(arrived) >= len(written)
            for files in found.scan().values():
                source.look(files)
                arrived += source.next_batch(10_000).texts
                source.delivered()
                for item in disk.tidy(files, options, source.has_delivered):
                    deleted += 1
                    source.deleted(item)
            if ended:
                break
        writer.join()
        assert sorted(arrived) == sorted(written)
        assert source.tail.lost_bytes == 0
        assert deleted > 100


def test_a_file_that_moved_between_scan_and_opening_is_not_called_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_text("line 1\n")
    os.utime(path, (1.7e9, 1.7e9))
    before = seen_at(path)
    path.rename(tmp_path / "a.log.1")
    path.write_text("line 2\n")
    os.utime(path, (1.7e9, 1.7e9))
    with a_source(tmp_path) as source:
        source.look([before])
        assert source.next_batch(10).texts == []
        assert source.tail.unreadable == {}
        now = seen_at(path)

        def forbidden(path: str, key: object) -> int:
            raise PermissionError(13, "Permission denied", path)

        with monkeypatch.context() as patch:  # root may read everything, so it cannot be caused for real
            patch.setattr("log_shipper.logfile.open_file", forbidden)
            source.look([now])
            assert source.next_batch(10).texts == []
            assert source.tail.unreadable == {str(path): "Permission denied"}
        health = Health("x", "1")
        Obstacles(health).report(scanner("/nonexistent/*"), [source.tail])
        assert "setfacl" in health.report().problems[0].text
        assert source.look([now])  # tried again without any other news
        assert source.next_batch(10).texts == ["line 2"]
        assert source.tail.unreadable == {}
