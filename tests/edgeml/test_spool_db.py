"""How a spool's database is opened."""

from pathlib import Path

from edgeml._spool_db import connect


def test_commits_are_synced_to_disk(tmp_path: Path) -> None:
    # No test can cut the power: this guards the settings that make SQLite sync each commit.
    db = connect(tmp_path / "s")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()
