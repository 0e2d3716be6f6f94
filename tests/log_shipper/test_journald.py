"""journalctl as a child: what it does not take, and what it prints that nobody can read."""

import os
import sys
from pathlib import Path

import pytest

from log_shipper import journald
from log_shipper.checkpoint import Checkpoint
from log_shipper.journald import JournalSource
from support import eventually

REFUSING = """#!{python}
# A stand-in for a journalctl that does not know a cursor, not the real one.
import sys, time
if any(word.startswith("--after-cursor") for word in sys.argv):
    sys.exit("Failed to seek to cursor: Invalid argument")
print('{{"MESSAGE":"' + sys.argv[-1] + '"}}')
print("this is no entry")
print('{{"MESSAGE":' + "[" * 3000)
sys.stdout.flush()
time.sleep(20)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    made = Checkpoint(tmp_path / "db")
    made.open()
    return made


def test_a_cursor_that_is_not_taken_any_more_does_not_stop_its_unit_for_ever(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "journalctl"
    tool.write_text(REFUSING.format(python=sys.executable))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(journald, "RETRY_S", 0.0)
    checkpoint.save_cursor("log", "s=1;i=2;b=3;m=4;t=5f5e100000000;x=6")
    source = JournalSource("log", "a.service", "INFO", checkpoint)
    texts: list[str] = []

    def read() -> bool:
        texts.extend(source.next_batch(100).texts)
        return len(texts) == 3

    eventually(read, what="all that was printed")
    source.close()
    checkpoint.close()
    assert texts[0] == f"--since=@{0x5F5E100000000 // 10**6}"
    assert texts[1] == "this is no entry"
    assert texts[2].startswith('{"MESSAGE":[[[')
