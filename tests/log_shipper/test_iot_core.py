import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from edgeml.spool import Spool
from ipc_support import FakeIpc
from log_shipper.batch import Batch
from log_shipper.config import Config, IotCore, Sink
from log_shipper.errors import BatchRefused, DeliveryError
from log_shipper.records import Records
from log_shipper.scan import Log
from log_shipper.sinks import KINDS
from log_shipper.sinks.iot_core import IotCoreSink


class Silent(FakeIpc):
    """A core that sends nothing: what is put stays in the spool."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.ended = threading.Event()

    def _wait(self, call: str, topic: str) -> None:
        self.ended.wait(10)


def batch_of(count: int, text: str) -> Batch:
    batch = Batch(max_events=10_000)
    batch.add(Records([1_795_255_200_000] * count, [text] * count, list(range(count))))
    return batch


@contextmanager
def opened(path: Path) -> Iterator[IotCoreSink]:
    ipc = Silent()
    sink = IotCoreSink(IotCore(), ipc, "thing", path)
    try:
        yield sink
    finally:
        ipc.ended.set()
        sink.close()


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    Spool(path, max_bytes=2**24).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON items WHEN (SELECT COUNT(*) FROM items) >= 2 "
        "BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    db.close()
    with opened(path) as sink:
        for _ in range(2):
            with pytest.raises(DeliveryError):
                sink.put(Log("a"), batch_of(400, "x" * 1000))
            assert sink.spool.depth == 0


def test_a_batch_that_would_push_older_lines_out_is_to_be_made_smaller(tmp_path: Path) -> None:
    with opened(tmp_path / "spool.db") as sink:
        with pytest.raises(BatchRefused):
            sink.put(Log("a"), batch_of(1000, "\1" * 1500))
        sink.put(Log("a"), batch_of(400, "x" * 1000))
        assert sink.spool.depth >= 3


def test_a_topic_that_a_components_name_makes_too_long_is_refused(tmp_path: Path) -> None:
    sink = IotCoreSink(IotCore(topic="{componentName}/x"), Silent(), "thing", tmp_path / "spool.db")
    with pytest.raises(BatchRefused, match="256 bytes"):
        sink.put(Log("a" * 300), batch_of(1, "x"))
    sink.close()


def test_what_is_no_destination_is_refused_and_what_is_one_has_its_module() -> None:
    assert set(KINDS) == set(get_args(Sink))
    with pytest.raises(msgspec.ValidationError, match="sinks"):
        msgspec.convert({"sinks": ["cloudwatch", "iotcore"]}, Config)
