from typing import Any

import pytest

from edgeml.errors import ConfigError
from serial_scraper import records


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
