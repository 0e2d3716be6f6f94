from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from edge_impulse_runner.s3_cache import S3Cache
from edgeml.health import Health
from support import eventually

A = "8dca8b36-8d04-42bc-8bbd-f7cf34725d60"
B = "0b27a8b6-e274-4742-bdbb-d3b1ce58539a"
C = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(aws: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3")
    client.create_bucket(Bucket="kept")
    for item in client.list_objects_v2(Bucket="kept").get("Contents", []):
        client.delete_object(Bucket="kept", Key=item["Key"])
    return client


Make = Callable[..., S3Cache]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[S3Cache] = []

    def new(max_items: int = 100) -> S3Cache:
        bounds = {"max_items": max_items, "max_bytes": 1 << 20, "spool_bytes": 1 << 20}
        made.append(S3Cache("kept", lambda: "Cars_v7/", tmp_path, Health("test", "1"), **bounds))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def keys(s3: Any) -> list[str]:
    return sorted(item["Key"] for item in s3.list_objects_v2(Bucket="kept").get("Contents", []))


def both(*uuids: str) -> list[str]:
    return sorted(f"Cars_v7/{uuid}{suffix}" for uuid in uuids for suffix in (".img", ".json"))


def test_image_and_payload_arrive_under_the_models_prefix(s3: Any, make: Make) -> None:
    make().put(A, b'{"id":1}', b"\xff\xd8jpeg")
    eventually(lambda: keys(s3) == both(A), what="objects in S3")
    image = s3.get_object(Bucket="kept", Key=f"Cars_v7/{A}.img")
    assert (image["Body"].read(), image["ContentType"]) == (b"\xff\xd8jpeg", "image/jpeg")
    assert s3.get_object(Bucket="kept", Key=f"Cars_v7/{A}.json")["Body"].read() == b'{"id":1}'


def test_the_oldest_go_first_and_clearing_spares_what_others_wrote(s3: Any, make: Make) -> None:
    s3.put_object(Bucket="kept", Key="Cars_v7/theirs.img", Body=b"x")
    cache = make(max_items=2)
    for uuid in (A, B, C):
        cache.put(uuid, b"{}", b"jpeg")
    eventually(lambda: keys(s3) == sorted([*both(B, C), "Cars_v7/theirs.img"]), what="the two newest")
    assert cache.clear_one(B)
    assert not cache.clear_one(B)
    assert not cache.clear_one("../" + C)
    eventually(lambda: keys(s3) == sorted([*both(C), "Cars_v7/theirs.img"]), what="one cleared")
    cache.close()
    assert make().clear()  # by the next process, from the ledger
    eventually(lambda: keys(s3) == ["Cars_v7/theirs.img"], what="all of ours cleared")


def test_an_outage_delays_uploads_and_loses_none(
    s3: Any, make: Make, monkeypatch: pytest.MonkeyPatch, aws: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    cache = make()
    cache.put(A, b"{}", b"jpeg")
    cache.put(B, b"{}", b"jpeg")
    cache.clear_one(A)
    cache.close()
    assert keys(s3) == []
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    make()
    eventually(lambda: keys(s3) == both(B), what="uploads after the outage")
