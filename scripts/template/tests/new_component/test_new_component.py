"""The component as a process: what it says, how often, and that it ends."""

from pathlib import Path

from support import Standalone


def test_it_says_something_as_often_as_configured(tmp_path: Path) -> None:
    with Standalone("new_component", {"topic": "t/one", "interval_s": 3600}, tmp_path / "work") as running:
        assert running.message("t/one") == {"number": 1}
        running.config_file.write_text('{"topic": "t/two", "interval_s": "0.01"}')
        assert [running.message("t/two", count=count)["number"] for count in (1, 2)] == [2, 3]
        assert running.stop() == 0


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    with Standalone("new_component", {"interval_s": 0}, tmp_path / "work") as running:
        assert running.ended() == 78
        assert "configuration interval_s" in running.log
