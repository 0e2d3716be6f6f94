import json
import uuid
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_support import Faults, error, failed_events, sample
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Response
from localdev.cloud.lambdas import FunctionError
from ota_support import load_handler


def event(*messages: str) -> dict[str, Any]:
    made = sample("sns_sample")
    (record,) = made["Records"]
    made["Records"] = [
        record | {"Sns": record["Sns"] | {"Message": message, "MessageId": str(uuid.uuid4())}} for message in messages
    ]
    return made


def invoke(cloud: LocalCloud, made: dict[str, Any]) -> Any:
    return cloud.function("CollectSample").invoke(made)


def samples(cloud: LocalCloud) -> str:
    assert cloud.stack is not None
    s3, bucket = cloud.aws.client("s3"), cloud.stack.outputs["DataBucketName"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="samples/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return "".join(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys)


def batches(faults: Faults) -> list[list[dict[str, str]]]:
    return [json.loads(c.body)["Records"] for c in faults.calls if c.operation == "PutRecordBatch"]


def test_every_message_becomes_one_line(cloud: LocalCloud) -> None:
    mark = str(uuid.uuid4())
    made = event(json.dumps({"id": mark, "n": 1}, indent=2), f"{mark} text", f"{mark}\ntwo lines", f'"{mark} ü"')
    assert invoke(cloud, made) == {"samples": 4}
    lines = [line for line in samples(cloud).splitlines() if mark in line]
    assert lines == [f'{{"id":"{mark}","n":1}}', f"{mark} text", f'"{mark}\\ntwo lines"', f'"{mark} ü"']


def test_a_repeated_delivery_is_written_once(cloud: LocalCloud, faults: Faults) -> None:
    made = event("once")
    assert invoke(cloud, made) == invoke(cloud, made) == {"samples": 1}
    assert len(batches(faults)) == 1


def test_only_the_records_that_firehose_refused_are_sent_again(cloud: LocalCloud, faults: Faults) -> None:
    refused = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "slow down"}
    partial = {"FailedPutCount": 1, "RequestResponses": [{"RecordId": "a"}, refused, {"RecordId": "c"}]}
    faults.answer("firehose", "PutRecordBatch", Response(json.dumps(partial).encode()))
    assert invoke(cloud, event("a", "b", "c")) == {"samples": 3}
    first, second = batches(faults)
    assert second == [first[1]]


def test_records_refused_for_good_are_an_error_and_the_retry_writes_them(cloud: LocalCloud, faults: Faults) -> None:
    refused = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "slow down"}
    answer = Response(json.dumps({"FailedPutCount": 1, "RequestResponses": [refused]}).encode())
    faults.answer("firehose", "PutRecordBatch", *[answer] * 3)
    made = event("late")
    with pytest.raises(FunctionError, match="Firehose refused 1 records 3 times"):
        invoke(cloud, made)
    assert invoke(cloud, made) == {"samples": 1}


@pytest.mark.parametrize(
    ("count", "size", "sent"),
    [
        (499, 1, [499]),
        (500, 1, [500]),
        (501, 1, [500, 1]),
        (4, 4 * 1024 * 1024 // 4 - 30_000, [4]),
        (5, 900_000, [4, 1]),
    ],
)
def test_more_than_a_batch_holds_is_sent_in_several(
    cloud: LocalCloud, faults: Faults, count: int, size: int, sent: list[int]
) -> None:
    assert invoke(cloud, event(*["x" * size] * count)) == {"samples": count}
    assert [len(batch) for batch in batches(faults)] == sent


def test_a_message_that_firehose_cannot_take_is_set_aside_and_the_others_are_sent(
    cloud: LocalCloud, faults: Faults
) -> None:
    failed_events(cloud)
    for length in (1_023_998, 1_023_999):  # and the end of the line
        assert invoke(cloud, event("x" * length)) == {"samples": 1}
    faults.clear()
    assert invoke(cloud, event("small", "x" * 1_024_000)) == {"samples": 1}
    assert len(batches(faults)) == 1
    (failed,) = failed_events(cloud)
    assert failed["requestPayload"].startswith("xxx")
    assert "a sample has 1024001 bytes, Firehose takes 1024000" in failed["responsePayload"]["errorMessage"]


def test_a_stream_that_is_gone_is_an_error(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("firehose", "PutRecordBatch", error("ResourceNotFoundException"))
    with pytest.raises(FunctionError, match="ResourceNotFoundException"):
        invoke(cloud, event("lost"))


@pytest.fixture(scope="module")
def app() -> ModuleType:
    region = {"AWS_DEFAULT_REGION": "eu-west-1", "FAILED_QUEUE_URL": "http://127.0.0.1:1/q"}
    return load_handler("collect_sample", {"DELIVERY_STREAM": "s", "IDEMPOTENCY_TABLE": "t", **region})


@pytest.mark.parametrize(
    ("publisher", "own"),
    [
        ("press-4", True),
        ("press-4#2", True),
        ("press-5", False),
        ("press-4#", False),
        ("press-4#2x", False),
        ("", False),
    ],
)
def test_a_device_speaks_for_itself(app: ModuleType, publisher: str, own: bool) -> None:
    message = json.dumps({"thing": "press-4", "publisher": publisher})
    if own:
        assert json.loads(app.line(message))["thing"] == "press-4"
    else:
        with pytest.raises(app.Refused, match="speaks for 'press-4'"):
            app.line(message)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('{"a": "cut \\ud83d"}', '{"a":"cut \\ud83d"}'),
        ('{"\\ude00": 1}', '{"\\ude00":1}'),
        ("cut \ud83d", '"cut \\ud83d"'),
        ("NaN", "NaN"),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
        ("two\u2028lines", '"two\\u2028lines"'),
    ],
    ids=["value", "key", "text", "nan", "infinity", "deep", "digits", "separator"],
)
def test_no_text_is_too_strange_for_a_line(app: ModuleType, message: str, line: str) -> None:
    assert app.line(message).decode() in (f"{line}\n", line.replace("\\u2028", "\u2028") + "\n")


TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT | JSON.map(lambda value: json.dumps(value, indent=1)))
def test_every_message_is_one_line_from_which_it_comes_back(app: ModuleType, message: str) -> None:
    line = app.line(message).decode()
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    try:
        value = json.loads(message)
    except ValueError:
        value = None
    read = line[:-1] if line[:-1] == message else json.loads(line)
    assert read in (message, value)
