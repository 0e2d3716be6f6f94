import json
import uuid
from typing import Any

import pytest

from cloud_support import Faults, error, sample
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Response
from localdev.cloud.lambdas import FunctionError


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


def test_more_than_a_batch_holds_is_sent_in_several(cloud: LocalCloud, faults: Faults) -> None:
    assert invoke(cloud, event(*["x"] * 501)) == {"samples": 501}
    assert [len(batch) for batch in batches(faults)] == [500, 1]
    faults.clear()
    assert invoke(cloud, event(*["y" * 900_000] * 5)) == {"samples": 5}
    assert [len(batch) for batch in batches(faults)] == [4, 1]


def test_a_message_that_firehose_cannot_take_is_refused_before_anything_is_sent(
    cloud: LocalCloud, faults: Faults
) -> None:
    with pytest.raises(FunctionError, match="a sample has 1024001 bytes"):
        invoke(cloud, event("small", "x" * 1_024_000))
    assert batches(faults) == []


def test_a_stream_that_is_gone_is_an_error(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("firehose", "PutRecordBatch", error("ResourceNotFoundException"))
    with pytest.raises(FunctionError, match="ResourceNotFoundException"):
        invoke(cloud, event("lost"))
