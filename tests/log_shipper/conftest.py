from collections.abc import Iterator

import pytest

from benchmarks.log_rig import FaultySink


@pytest.fixture
def sink() -> Iterator[FaultySink]:
    made = FaultySink()
    yield made
    made.close()
