import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import requests

from localdev.cloud.aws import LocalAws, Request, Response


@pytest.fixture
def aws() -> Iterator[LocalAws]:
    with LocalAws() as running:
        yield running


def test_another_process_reaches_it_by_environment_alone(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="crops")
    code = "import boto3; boto3.client('s3').put_object(Bucket='crops', Key='faces/a b.jpg', Body=b'jpeg')"
    environment = {"PATH": os.environ["PATH"], **aws.environment()}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert aws.client("s3").get_object(Bucket="crops", Key="faces/a b.jpg")["Body"].read() == b"jpeg"


def test_observers_see_successful_calls_only(aws: LocalAws) -> None:
    seen: list[tuple[str, str, str, bytes]] = []
    aws.observers.append(lambda request, _: seen.append((request.service, request.method, request.path, request.body)))
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="crops")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket="absent", Key="k", Body=b"x")
    s3.put_object(Bucket="crops", Key="faces/ä+1.jpg", Body=b"x")
    assert [call[:3] for call in seen] == [("s3", "PUT", "/crops"), ("s3", "PUT", "/crops/faces/ä+1.jpg")]


def test_a_stand_in_answers_before_moto_and_may_decline(aws: LocalAws) -> None:
    def rekognition(request: Request) -> Response | None:
        if request.service != "rekognition":
            return None
        assert request.operation == "DetectFaces"
        return Response(json.dumps({"FaceDetails": []}).encode())

    aws.stand_ins.append(rekognition)
    answer = aws.client("rekognition").detect_faces(Image={"Bytes": b"jpeg"}, Attributes=["ALL"])
    assert answer["FaceDetails"] == []
    assert aws.client("sns").list_topics()["Topics"] == []


def test_presigned_urls_work_without_credentials(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="m.onnx", Body=b"0123456789")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "m.onnx"})
    answer = requests.get(url, headers={"Range": "bytes=4-"}, timeout=10)
    assert (answer.status_code, answer.content) == (206, b"456789")


def test_everything_is_forgotten_on_exit() -> None:
    with LocalAws() as first:
        first.client("s3").create_bucket(Bucket="crops")
    with LocalAws() as second:
        assert second.client("s3").list_buckets()["Buckets"] == []
    assert not [thread for thread in threading.enumerate() if thread.name == "local-aws"]


def test_a_missing_object_is_404_for_head_and_get(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="crops")
    assert requests.get(f"{aws.url}/crops/absent", timeout=10).status_code == 404
    with pytest.raises(aws.client("s3").exceptions.ClientError, match="404"):
        aws.client("s3").head_object(Bucket="crops", Key="absent")
