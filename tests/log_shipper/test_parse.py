from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_shipper.parse import Parser, iso_ms
from log_shipper.records import Attach

ARRIVAL = 1_700_000_000_000
NOON = int(datetime(2022, 4, 11, 11, 46, 28, tzinfo=UTC).timestamp() * 1000)
CONTEXT = "{scriptName=services.componentName.lifecycle.Run, serviceName=componentName, currentState=RUNNING}"


def parser(level: str = "TRACE") -> Parser:
    return Parser(level, None, rejoin_tracebacks=True)


def parsed(text: str, level: str = "TRACE") -> list[tuple[int, str]]:
    records = parser(level).parse(text, ARRIVAL)
    return list(zip(records.times, records.texts, strict=True))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"2022-04-11T11:46:28.597Z [INFO] (Copier) componentName: stdout. x. {CONTEXT}", NOON + 597),
        ("2022-04-11T11:46:28Z [ERROR] (main) a: no fraction", NOON),
        ("2022-04-11T11:46:28.5Z [INFO] (main) a: one digit", NOON + 500),
        ("2022-04-11T11:46:28.123456789Z [INFO] (main) a: nanoseconds", NOON + 123),
        ("2022-04-11 11:46:28,042 INFO root: Python's logging", NOON + 42),
        ("2022-04-11T13:46:28.042+02:00 offset", NOON + 42),
        ("[2022-04-11T11:46:28.042Z] in brackets", NOON + 42),
        ("2022-13-41T11:46:28.042Z no such day", ARRIVAL),
        ("plain text", ARRIVAL),
        ('{"level":"INFO","message":"x","timestamp":1649677588597,"cause":null}', 1649677588597),
        ('{"message": "\\"timestamp\\":1111111111111", "timestamp": 1649677588597}', 1649677588597),
        ('{"timestamp":null,"time":1649677588597}', 1649677588597),
        ('{"timestamp":{"$date":5},"@timestamp":"now","ts":1649677588.597}', 1649677588597),
        ('{"msg": "x", "time": "2022-04-11T11:46:28.042Z"}', NOON + 42),
        ('{"ts": 1649677588.5}', 1649677588500),
        ("{not json", ARRIVAL),
    ],
)
def test_time_is_taken_from_the_line_else_arrival(line: str, expected: int) -> None:
    assert parsed(f"{line}\n") == [(expected, line)]
    assert parsed(f"{line}\n{line}\n") == [(expected, line)] * 2


def test_cached_times_equal_parsed_ones_for_every_second_of_a_day_and_every_level() -> None:
    one = parser()
    for step in range(0, 86_400, 97):
        moment = datetime(2024, 2, 29, tzinfo=UTC) + timedelta(seconds=step, milliseconds=step % 1000)
        for level in ("INFO", "ERROR"):
            stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            for _ in range(2):
                records = one.parse(f"{stamp} [{level}] (main) a: b\n", ARRIVAL)
                assert records.times == [iso_ms(stamp)]


@given(st.lists(st.tuples(st.sampled_from(["INFO", "DEBUG", "more", ""]), st.integers(0, 2)), min_size=1))
def test_lines_known_and_new_kept_and_dropped_come_out_in_any_order(kinds: list[tuple[str, int]]) -> None:
    lines, expected = [], []
    dropped = False
    for number, (kind, second) in enumerate(kinds):
        stamped = kind in ("INFO", "DEBUG")
        lines.append(f"2022-04-11T11:46:2{second}.{number:03}Z [{kind}] x" if stamped else kind)
        dropped = kind == "DEBUG" if stamped else dropped
        if stamped and not dropped:
            expected.append((NOON - 8000 + second * 1000 + number, lines[-1], number))
        elif kind == "more" and expected and not dropped and expected[-1][0] != ARRIVAL:
            time, _, start = expected[-1]
            expected[-1] = time, "\n".join(lines[start:]), start
        elif kind == "more" and not dropped:
            expected.append((ARRIVAL, kind, number))
    one = parser("INFO")
    for _ in range(2):  # by parsing, then from the caches
        records = one.parse("\n".join(lines) + "\n", ARRIVAL)
        assert list(zip(records.times, records.texts, records.starts, strict=True)) == expected


@pytest.mark.parametrize("level", ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"])
def test_minimum_level_holds_for_text_and_json_and_takes_continuations_along(level: str) -> None:
    levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
    text = "".join(f"2022-04-11T11:46:28.597Z [{name}] (main) a: b\n\tat c\n" for name in levels * 2)
    json = "".join(f'{{"level":"{name}","message":"x","timestamp":1649677588597}}\n' for name in levels * 2)
    kept = levels[levels.index(level) :] * 2
    assert [line.partition("[")[2].partition("]")[0] for _, line in parsed(text, level)] == kept
    assert all(line.endswith("\n\tat c") for _, line in parsed(text, level))
    assert len(parsed(json, level)) == len(kept)


def test_lines_without_a_date_join_a_dated_record_and_stand_alone_otherwise() -> None:
    assert [text for _, text in parsed("one\ntwo\n2022-04-11T11:46:28Z [INFO] (m) a: b\n at c\n\n at d\n\n")] == [
        "one",
        "two",
        "2022-04-11T11:46:28Z [INFO] (m) a: b\n at c\n\n at d",
    ]


def test_a_pattern_of_the_users_own_decides_alone() -> None:
    import re

    one = Parser("TRACE", re.compile("^BEGIN"), rejoin_tracebacks=True)
    records = one.parse("BEGIN a\nb\n2022-04-11T11:46:28Z c\nBEGIN d\n", ARRIVAL)
    assert records.texts == ["BEGIN a\nb\n2022-04-11T11:46:28Z c", "BEGIN d"]
    assert records.attach is Attach.RECORD


def copier(body: str, stream: str = "stderr") -> str:
    separator = ". " if body else ""
    return f"2022-04-11T11:46:28.597Z [WARN] (Copier) componentName: {stream}. {body}{separator}{CONTEXT}"


TRACEBACK = [
    "Traceback (most recent call last):",
    'File "/a/b.py", line 3, in main',
    "run()",
    "^^^^^",
    'File "<string>", line 1, in <module>',
    "KeyError: 'a'",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    'File "/a/b.py", line 9, in main',
    "[Previous line repeated 3 more times]",
    "ValueError: bad",
]


def test_a_traceback_logged_line_by_line_becomes_one_record() -> None:
    text = "\n".join([copier("before"), *map(copier, TRACEBACK), copier("after"), copier("")]) + "\n"
    assert [line for _, line in parsed(text)] == [
        copier("before"),
        copier("\n".join(TRACEBACK)),
        copier("after"),
        copier(""),
    ]


def test_a_traceback_in_the_json_format_becomes_one_record() -> None:
    import json

    lines = [
        {"thread": "Copier", "level": "WARN", "message": body, "timestamp": 1649677588597}
        for body in [*TRACEBACK, "after"]
    ]
    found = parsed("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines))
    assert [json.loads(text)["message"] for _, text in found] == ["\n".join(TRACEBACK), "after"]


def test_embedded_metrics_become_the_document_alone_whatever_wraps_them_and_whatever_the_level() -> None:
    import json

    document = '{"_aws":{"Timestamp":1649677588000,"CloudWatchMetrics":[]},"fps":12.5,"text":"a. {scriptName=b"}'
    wrapped = json.dumps(
        {"thread": "Copier", "level": "INFO", "message": document, "timestamp": 5}, separators=(",", ":")
    )
    for line in (document, copier(document, "stdout"), wrapped):
        assert parsed(f"{line}\n", "ERROR") == [(1649677588000, document)]
    ordinary = copier('about "_aws" and "CloudWatchMetrics"')
    assert [text for _, text in parsed(f"{ordinary}\n")] == [ordinary]
