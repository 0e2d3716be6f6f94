"""Which files may be deleted."""

import os
import subprocess
from pathlib import Path

from log_shipper import disk
from log_shipper.config import Options
from log_shipper.identity import Seen

OPTIONS = Options(delete_log_file_after_cloud_upload=True)


def test_a_quiet_file_is_kept_as_long_as_another_process_holds_it_open(tmp_path: Path) -> None:
    def seen(name: str, mtime: float) -> Seen:
        path = tmp_path / name
        path.write_text("x\n")
        os.utime(path, (mtime, mtime))
        status = path.stat()
        return Seen((status.st_dev, status.st_ino), str(path), status.st_size, status.st_mtime_ns)

    quiet, left, newest = seen("a.log", 1.7e9), seen("b.log", 1.7e9 + 1), seen("c.log", 1.7e9 + 2)
    with (tmp_path / "a.log").open("a") as file:
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    try:
        assert disk.tidy([quiet, left, newest], OPTIONS, lambda item: True) == [left]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "c.log"]
    finally:
        writer.communicate()
    assert disk.tidy([quiet, newest], OPTIONS, lambda item: True) == [quiet]
    assert [path.name for path in tmp_path.iterdir()] == ["c.log"]
