import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from botocore.exceptions import ClientError

from localdev.cloud import LocalCloud

ROWS = Path(onnxruntime.__file__).parent / "datasets" / "mul_1.onnx"  # float [3, 2], times 1..6


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.endpoints.serve("mul", ROWS)
        yield running


def invoke(cloud: LocalCloud, body: bytes, content_type: str = "text/csv", **options: str) -> bytes:
    runtime = cloud.aws.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="mul", Body=body, ContentType=content_type, **options)
    return bytes(answer["Body"].read())


def test_a_real_model_answers_csv(cloud: LocalCloud) -> None:
    assert invoke(cloud, b"1,1\n1,1\n1,1") == b"1.0,2.0\n3.0,4.0\n5.0,6.0"


def test_json_and_npy_are_taken_and_json_is_given(cloud: LocalCloud) -> None:
    instances = json.dumps({"instances": [[1, 1], [2, 2], [3, 3]]}).encode()
    answer = invoke(cloud, instances, "application/json", Accept="application/json")
    assert json.loads(answer) == {"predictions": [[1, 2], [6, 8], [15, 18]]}
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 2), np.float32))
    assert invoke(cloud, buffer.getvalue(), "application/x-npy").startswith(b"1.0,2.0")


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"1,2,3", "text/csv", 400), (b"x", "text/csv", 400), (b"", "text/csv", 400), (b"1", "image/jpeg", 415)],
)
def test_a_container_that_refuses_is_a_model_error(
    cloud: LocalCloud, body: bytes, content_type: str, status: int
) -> None:
    with pytest.raises(ClientError) as caught:
        invoke(cloud, body, content_type)
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == status


def test_an_unknown_endpoint_is_a_validation_error(cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match=r"ValidationError.*Endpoint nobody of account not found"):
        cloud.aws.client("sagemaker-runtime").invoke_endpoint(EndpointName="nobody", Body=b"1")


def test_a_body_above_25_mib_is_refused(cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match="26214401 bytes"):
        invoke(cloud, b"1" * (25 * 1024 * 1024 + 1))


def test_a_container_that_died_is_a_model_error(cloud: LocalCloud) -> None:
    cloud.endpoints.add("mul-dead", "http://127.0.0.1:1")
    with pytest.raises(ClientError, match="ModelError"):
        cloud.aws.client("sagemaker-runtime").invoke_endpoint(EndpointName="mul-dead", Body=b"1")
