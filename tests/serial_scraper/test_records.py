from typing import Any

import pytest

from edgeml.errors import ConfigError
from serial_scraper import lines, records


def collected(make: Any, *arguments: Any) -> tuple[records.Format, list[str]]:
    unknown: list[str] = []
    return make(*arguments, unknown.append), unknown


def test_jsonl_takes_objects_and_tells_of_everything_else() -> None:
    form, unknown = collected(records.jsonl)
    deep = '{"a": ' + "[" * 100_000
    assert form.feed(['{"a": 1, "b": [2]}', "[1]", "boot ok", '{"a": ', deep, '{"a": null}']) == [
        {"a": 1, "b": [2]},
        {"a": None},
    ]
    assert unknown == ["[1]", "boot ok", '{"a": ', deep]
    assert form.flush() == []


def test_csv_names_and_converts_values() -> None:
    form, unknown = collected(records.csv, {"t": "int", "x": "float", "on": "bool", "name": "str"}, ";")
    assert form.feed(["5; 0.25;TRUE; a b ", "1;2;no;", "1;2;3;4", "1;2;yes", "1;x;yes;z", "1;2;yes;z;more"]) == [
        {"t": 5, "x": 0.25, "on": True, "name": "a b"},
        {"t": 1, "x": 2.0, "on": False, "name": ""},
    ]
    assert unknown == ["1;2;3;4", "1;2;yes", "1;x;yes;z", "1;2;yes;z;more"]


def test_regex_takes_named_groups_wherever_they_stand() -> None:
    pattern = r"T=(?P<temperature>[-\d.]+)(?: H=(?P<humidity>\d+))? (?P<unit>\w)"
    form, unknown = collected(records.regex, pattern, {"temperature": "float", "humidity": "int"})
    assert form.feed(["[12] T=-4.5 H=40 C", "T=1 C", "T=1.2.3 C", "nothing"]) == [
        {"temperature": -4.5, "humidity": 40, "unit": "C"},
        {"temperature": 1.0, "unit": "C"},
    ]
    assert unknown == ["T=1.2.3 C", "nothing"]


@pytest.mark.parametrize(
    ("make", "arguments", "path"),
    [
        (records.csv, ({}, ","), "columns"),
        (records.regex, ("(", {}), "pattern"),
        (records.regex, (r"\d+", {}), "pattern"),
        (records.regex, (r"(?P<a>\d)", {"b": "int"}), "columns"),
    ],
)
def test_a_format_that_cannot_work_is_a_configuration_error(make: Any, arguments: tuple[Any, ...], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(*arguments, print)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "text", ["1_000", "\uff11\uff12", "\u0661", "nan", "inf", "1e999", "0x10", "\u00b2", "9" * 5000]
)
@pytest.mark.parametrize("kind", ["int", "float"])
def test_what_only_python_takes_for_a_number_is_none(text: str, kind: str) -> None:
    form, unknown = collected(records.csv, {"x": kind}, ",")
    assert form.feed([text, "12.0"]) == [{"x": 12}]
    assert unknown == [text]


@pytest.mark.parametrize(
    "line",
    ['{"a": 1e999}', '{"a": "\ud800"}', '{"a": ' + "[" * 100 + "]" * 100 + "}", '{"a": ' + "9" * 5000 + "}", "{}x"],
)
def test_json_that_cannot_be_told_again_is_no_record(line: str) -> None:
    form, unknown = collected(records.jsonl)
    assert form.feed([line, '{"a": "\u2028"}']) == [{"a": "\u2028"}]
    assert unknown == [line]


DIRT = [b"\0", b"\0\0\0", b"\xef\xbb\xbf", b"\xff", b"\x11", b"\x02", b"\xfe\xff\0", b"\x1b[0m"]


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
@pytest.mark.parametrize("dirt", DIRT, ids=lambda dirt: dirt.hex())
@pytest.mark.parametrize(
    ("form", "line", "expected"),
    [
        (records.jsonl, b'{"a":%s1}', {"a": 1}),
        (lambda noise: records.csv({"a": "int"}, ",", noise), b"%s1", {"a": 1}),
        (lambda noise: records.regex(r"^a=(?P<a>[0-9])$", {"a": "int"}, noise), b"a=%s1", {"a": 1}),
    ],
    ids=["jsonl", "csv", "regex"],
)
def test_bytes_of_the_line_driver_cost_no_record(
    form: Any, line: bytes, expected: Any, dirt: bytes, newline: bytes
) -> None:
    unknown: list[str] = []
    inside = b"\0" if b"\0" in dirt else b""
    said = [dirt + line % b"", line % inside, line % b"" + dirt]
    splitter = lines.LineSplitter(4096)
    decoded = [lines.text(found)[0] for found in splitter.feed(newline.join(said) + newline)]
    assert form(unknown.append).feed(decoded) == [expected] * 3
    assert unknown == []


def test_a_pattern_sees_no_line_beyond_its_bound() -> None:
    form, unknown = collected(records.regex, r"(?P<a>x)", {})
    long = "x" * (records.MAX_SEARCHED + 1)
    assert form.feed(["x", long]) == [{"a": "x"}]
    assert unknown == [long]
