"""Scans, files as a scan saw them, and a source that reads them, for tests of the log shipper."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Config, Files
from log_shipper.files import FileSource
from log_shipper.identity import Seen
from log_shipper.parse import Parser
from log_shipper.scan import Scanner

NOBODY, OTHER = 65534, 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def scanner(path: str) -> Scanner:
    return Scanner(Config(components=[], files={"app": Files(path=path)}), Path("/nonexistent"))


def names(found: Scanner) -> set[str]:
    return {Path(seen.path).name for files in found.scan().values() for seen in files}


def seen_at(path: Path) -> Seen:
    status = path.stat()
    return Seen((status.st_dev, status.st_ino), str(path), status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def a_source(work: Path) -> Iterator[FileSource]:
    checkpoint = Checkpoint(work / "checkpoint.db")
    checkpoint.open()
    source = FileSource("log", Parser("TRACE", None, rejoin_tracebacks=True), checkpoint)
    try:
        yield source
    finally:
        source.close()
        checkpoint.close()
