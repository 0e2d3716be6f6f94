"""Log lines and files as the nucleus writes them."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localdev.core import LocalCore
from localdev.core.logs import Logs, Record, RotatingFile, format_json, format_text
from support import eventually

AT = datetime(2022, 4, 11, 11, 46, 28, 597_999, tzinfo=UTC)
CONTEXTS = {
    "scriptName": "services.componentName.lifecycle.Run",
    "serviceName": "componentName",
    "currentState": "RUNNING",
}


def test_text_is_the_real_nucleus_line() -> None:
    record = Record("INFO", "Copier", "componentName", "stdout", "Successfully subscribed to topic: event", CONTEXTS)
    assert format_text(record, AT) == (
        "2022-04-11T11:46:28.597Z [INFO] (Copier) componentName: stdout. Successfully subscribed to topic: event. "
        "{scriptName=services.componentName.lifecycle.Run, serviceName=componentName, currentState=RUNNING}"
    )


@pytest.mark.parametrize(
    ("event", "message", "contexts", "end"),
    [
        ("stdout", "", {"a": "1"}, "c: stdout. {a=1}"),
        ("", "Run script exited", {"exitCode": "0"}, "c: Run script exited. {exitCode=0}"),
        ("event", "", {}, "c: event"),
        ("stderr", "ends with dot.", {"a": "1"}, "c: stderr. ends with dot.. {a=1}"),
    ],
)
def test_empty_parts_are_left_out(event: str, message: str, contexts: dict[str, str], end: str) -> None:
    assert format_text(Record("WARN", "t", "c", event, message, contexts), AT).endswith(end)


def test_a_whole_second_has_no_fraction() -> None:
    record = Record("INFO", "t", "c", "e", "m", {})
    assert format_text(record, AT.replace(microsecond=999)).startswith("2022-04-11T11:46:28Z [INFO]")
    assert format_text(record, AT.replace(microsecond=1000)).startswith("2022-04-11T11:46:28.001Z [INFO]")


def test_json_has_the_fields_of_the_nucleus_in_their_order() -> None:
    record = Record("INFO", "Copier", "com.example.A", "stdout", 'h"é', {"serviceName": "com.example.A"})
    assert format_json(record, AT) == (
        '{"thread":"Copier","level":"INFO","eventType":"stdout","message":"h\\"é",'
        '"contexts":{"serviceName":"com.example.A"},"loggerName":"com.example.A",'
        '"timestamp":1649677588597,"cause":null}'
    )


@pytest.mark.parametrize("log_format", ["TEXT", "JSON"])
def test_output_is_trimmed_and_split_as_the_nucleus_does(tmp_path: Path, packages: Any, log_format: Any) -> None:
    script = r"printf '  indented  \r\nafter\rcarriage\n\nlast without end'; printf 'err\n' >&2; exec sleep 60"
    packages.add("test.C", {"Run": {"Script": script}})
    with LocalCore(tmp_path / "core", log_format=log_format) as core:
        packages.deploy(core, "test.C")
        eventually(lambda: core.log("test.C").count("Copier") == 5, what="output")
        core.stop_component("test.C")
        text = core.log("test.C")
    if log_format == "JSON":
        records = [json.loads(line) for line in text.splitlines()]
        assert {tuple(record) for record in records} == {
            ("thread", "level", "eventType", "message", "contexts", "loggerName", "timestamp", "cause")
        }
        copied = [record for record in records if record["thread"] == "Copier"]
        messages = [record["message"] for record in copied if record["eventType"] == "stdout"]
        assert [r["level"] for r in copied if r["eventType"] == "stderr"] == ["WARN"]
        assert copied[0]["contexts"] == {
            "scriptName": "services.test.C.lifecycle.Run.Script",
            "serviceName": "test.C",
            "currentState": "RUNNING",
        }
    else:
        messages = re.findall(r"\[INFO\] \(Copier\) test\.C: stdout\. (?:(.*)\. )?\{scriptName=services\.test", text)
        assert len(re.findall(r"\[WARN\] \(Copier\) test\.C: stderr\. err\. \{", text)) == 1
    assert messages == ["indented", "after", "carriage", "", "last without end"]


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2021, 9, 14, 15, 59, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def local(hour: datetime) -> str:
    return hour.astimezone().strftime("%Y_%m_%d_%H")


def test_a_full_file_is_renamed_with_hour_and_index(tmp_path: Path) -> None:
    clock = Clock()
    file = RotatingFile(tmp_path / "greengrass.log", 100, 10_000, clock)
    for number in range(3):
        file.write(f"{number}" * 60)
    file.close()
    hour = local(clock.now)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "greengrass.log",
        f"greengrass_{hour}_0.log",
        f"greengrass_{hour}_1.log",
    ]
    assert (tmp_path / "greengrass.log").read_text() == "2" * 60 + "\n"
    assert (tmp_path / f"greengrass_{hour}_0.log").read_text() == "0" * 60 + "\n"


def test_the_next_hour_begins_a_new_file_when_something_is_written(tmp_path: Path) -> None:
    clock = Clock()
    file = RotatingFile(tmp_path / "com.example.A.log", 1000, 10_000, clock)
    file.write("before")
    before = local(clock.now)
    clock.now += timedelta(seconds=1)
    assert len(list(tmp_path.iterdir())) == 1
    file.write("after")
    file.close()
    assert (tmp_path / f"com.example.A_{before}_0.log").read_text() == "before\n"
    assert (tmp_path / "com.example.A.log").read_text() == "after\n"


def test_the_oldest_files_are_deleted_above_the_cap(tmp_path: Path) -> None:
    clock = Clock()
    other = tmp_path / "A_B.log"
    other.write_text("another component's")
    file = RotatingFile(tmp_path / "A.log", 100, 350, clock)
    for _ in range(6):
        file.write("x" * 99)
        clock.now += timedelta(hours=1)
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    start = datetime(2021, 9, 14, 15, 59, 59, tzinfo=UTC)
    kept = [f"A_{local(start + timedelta(hours=hours))}_0.log" for hours in (3, 4)]
    assert names == sorted(["A.log", "A_B.log", *kept])


def test_a_core_that_starts_again_appends(tmp_path: Path) -> None:
    for _ in range(2):
        logs = Logs(tmp_path)
        logs.system("INFO", "event")
        logs.close()
    assert (tmp_path / "greengrass.log").read_text().count("event") == 2
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_file_size_of_a_core_is_configurable(tmp_path: Path, packages: Any) -> None:
    packages.add("test.C", {"run": "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; exec sleep 60"})
    with LocalCore(tmp_path / "core", log_file_bytes=600) as core:
        packages.deploy(core, "test.C")
        eventually(lambda: "line 9" in core.log("test.C"), what="last line")
        rotated = list((core.root / "logs").glob("test.C_*_*.log"))
    assert len(rotated) >= 2
    assert all(path.stat().st_size <= 600 for path in rotated)
