import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import requests
from onnx import TensorProto, helper, numpy_helper

from cloud_support import Faults, sample
from localdev.cloud import LocalCloud
from localdev.cloud.api import KEY
from localdev.cloud.aws import Request, Response
from localdev.cloud.lambdas import Function

ENDPOINT = "edgeml-duration"


def linear_model(path: Path) -> Path:
    """y = x @ [1, 2, 3] + 0.5, as a real ONNX file."""
    weights = [
        numpy_helper.from_array(np.array([[1], [2], [3]], np.float32), "w"),
        numpy_helper.from_array(np.array([0.5], np.float32), "b"),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def url(running_cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running_cloud.endpoints.serve(ENDPOINT, linear_model(tmp_path_factory.mktemp("model") / "linear.onnx"))
    assert running_cloud.api is not None
    yield f"{running_cloud.api.url}/live/liveinference"


def get(url: str, features: str | None, **headers: str) -> requests.Response:
    query = {} if features is None else {"features": features}
    return requests.get(url, query, headers={"x-api-key": KEY} | headers, timeout=30)


def test_the_models_answer_comes_back_as_it_is(url: str) -> None:
    answer = get(url, "1, 2.5,-3e0")
    assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (200, "-2.5", "text/csv")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "features is missing"),
        ("", "features is missing"),
        (" ", "features is missing"),
        ("1,two,3", "feature 2 is not a finite number: 'two'"),
        ("1,,3", "feature 2 is not a finite number: ''"),
        ("1,nan,3", "feature 2 is not a finite number: 'nan'"),
        ("inf,2,3", "feature 1 is not a finite number: 'inf'"),
        ("1_000,2,3", "feature 1 is not a finite number: '1_000'"),
        ("1,\uff12,3", "feature 2 is not a finite number: '\uff12'"),
        ("1,2,1e999", "feature 3 is not a finite number: '1e999'"),
    ],
    ids=["absent", "empty", "blank", "word", "gap", "nan", "inf", "underscore", "wide", "huge"],
)
def test_features_that_are_no_numbers_are_a_400(url: str, features: str | None, message: str) -> None:
    answer = get(url, features)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (",".join(["1"] * 999), "the model endpoint failed"),  # which takes three
        (",".join(["1"] * 1000), "the model endpoint failed"),
        (",".join(["1"] * 1001), "features has 1001 numbers, 1000 are allowed"),
        ("1,2,3" + " " * 6994, ""),
        ("1,2,3" + " " * 6995, ""),
        ("1,2,3" + " " * 6996, "features has 7001 characters, 7000 are allowed"),
    ],
    ids=["999", "1000", "1001", "6999 characters", "7000 characters", "7001 characters"],
)
def test_as_many_features_as_fit_are_taken(url: str, features: str, message: str) -> None:
    answer = get(url, features)
    if message:
        assert answer.json()["message"].startswith(message)
    else:
        assert (answer.status_code, answer.text) == (200, "14.5")


def test_a_model_that_refuses_the_row_is_a_502(url: str) -> None:
    answer = get(url, "1,2")
    assert (answer.status_code, answer.json()["message"]) == (502, "the model endpoint failed: ModelError")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ValidationError"), (503, "ServiceUnavailable"), (400, "AccessDeniedException")]
)
def test_an_endpoint_that_fails_is_a_502(url: str, faults: Faults, status: int, code: str) -> None:
    body = json.dumps({"Message": "no"}).encode()
    faults.answer("sagemaker", "/endpoints/", Response(body, status, {"x-amzn-ErrorType": code}))
    answer = get(url, "1,2,3")
    assert (answer.status_code, answer.json()["message"]) == (502, f"the model endpoint failed: {code}")


def test_an_endpoint_that_hangs_is_a_504(cloud: LocalCloud, tmp_path: Path) -> None:
    released = threading.Event()

    def hang(request: Request) -> Response | None:
        return Response(b"late") if request.path.startswith("/endpoints/") and released.wait(10) else None

    setting = cloud.function("LiveInference").setting
    impatient = replace(setting, environment=setting.environment | {"ENDPOINT_TIMEOUT_S": "0.2"})
    function = Function(impatient, cloud.aws, tmp_path / "log", concurrency=1, retry_delay_s=0)
    cloud.aws.stand_ins.insert(0, hang)
    try:
        answer = function.invoke(sample("api_liveinference"))
    finally:
        released.set()
        cloud.aws.stand_ins.remove(hang)
        function.stop()
    assert (answer["statusCode"], json.loads(answer["body"])["message"]) == (504, "the model did not answer in time")


def test_an_answer_that_is_not_text_is_a_502(url: str, faults: Faults) -> None:
    faults.answer("sagemaker", "/endpoints/", Response(b"\xff\xfe\x00", 200, {"Content-Type": "text/csv"}))
    assert get(url, "1,2,3").status_code == 502


def test_without_the_key_nobody_gets_in(url: str, faults: Faults) -> None:
    for answer in (requests.get(url, timeout=10), get(url, "1,2,3", **{"x-api-key": "guess"})):
        assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})
    assert not [call for call in faults.calls if call.service == "sagemaker"]


def test_browsers_may_ask_first(url: str) -> None:
    answer = requests.options(url, headers={"Origin": "https://example.org"}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "x-api-key" in answer.headers["Access-Control-Allow-Headers"]
    assert get(url, "1,2,3", Origin="https://example.org").headers["Access-Control-Allow-Origin"] == "*"


def test_the_sample_event_is_answered(cloud: LocalCloud, url: str) -> None:
    answer: dict[str, Any] = cloud.function("LiveInference").invoke(sample("api_liveinference"))
    assert (answer["statusCode"], answer["body"]) == (200, "11.4")
