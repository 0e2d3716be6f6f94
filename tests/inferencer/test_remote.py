"""Models elsewhere: what they are asked, and what their answers mean."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from certificates import certificate
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import BackendError, ConfigError
from edgeml.messages import Classification, Detection, Regression
from inferencer.assembly import check
from inferencer.backends.remote import Breaker
from inferencer.config import Config
from inferencer_support import (
    Answer,
    Endpoint,
    Recorder,
    endpoint,
    make_context,
    picture,
    sample,
)
from remote_support import FACES, http, sagemaker


def test_boxes_of_the_built_in_object_detection_in_source_pixels(server: Endpoint, context: Context) -> None:
    server.behave = lambda body: Answer(body=FACES)
    outcome = sagemaker(context, answer="object_detection").infer(sample(picture(size=(100, 200))))
    assert outcome is not None
    assert outcome.results == [
        Detection("face", 0.9, (50.0, 50.0, 100.0, 50.0)),
        Detection("mask", 0.6, (0.0, 0.0, 100.0, 50.0)),
    ]
    assert outcome.backend == "sagemaker"
    path, headers, body = server.requests[0]
    assert (path, headers["Content-Type"]) == ("/endpoints/faces/invocations", "image/jpeg")
    assert body[:2] == b"\xff\xd8"


def test_a_certificate_is_trusted_as_botocore_would(
    server: Endpoint, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    with endpoint(pem) as secure:
        secure.behave = lambda _: Answer(body=FACES)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", secure.url)
        with pytest.raises(BackendError, match="certificate"):
            sagemaker(context, answer="object_detection").infer(sample(picture()))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
        for url in (secure.url, secure.url.replace("https", "HTTPS")):
            monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
            assert sagemaker(context, answer="object_detection").infer(sample(picture())) is not None


@pytest.mark.parametrize("body", [b"[0.1, 0.7, 0.2]", b'{"predictions": [[0.1, 0.7, 0.2]]}'])
def test_probabilities_of_the_built_in_image_classification(server: Endpoint, context: Context, body: bytes) -> None:
    server.behave = lambda _: Answer(body=body)
    outcome = sagemaker(context, "classification", answer="image_classification").infer(sample(picture()))
    assert outcome is not None
    assert outcome.results == [Classification("mask", 0.7)]


def test_results_of_our_own_container(server: Endpoint, context: Context) -> None:
    found = [{"label": "face", "score": 0.9, "box": [1, 2, 3, 4], "landmarks": [[1, 2]]}]
    server.behave = lambda _: Answer(body=json.dumps({"results": found}).encode())
    outcome = sagemaker(context).infer(sample(picture()))
    assert outcome is not None
    assert outcome.results == [Detection("face", 0.9, (1, 2, 3, 4), [(1, 2)])]


def test_an_answer_of_very_many_boxes_is_bounded_and_the_best(server: Endpoint, context: Context) -> None:
    found = [{"label": "face", "score": 0.4 + each / 5000, "box": [1, 2, 3, 4]} for each in range(2500)]
    server.behave = lambda _: Answer(body=json.dumps({"results": found}).encode())
    outcome = sagemaker(context).infer(sample(picture()))
    assert outcome is not None
    scores = [one.score for one in outcome.results]
    assert (len(scores), scores[0], scores[-1]) == (1000, found[-1]["score"], found[1500]["score"])


@pytest.mark.parametrize("box", [[1e308, 2, 3, 4], [1, 2, -1e300, 4]])
def test_a_box_beyond_all_pictures_is_no_answer(server: Endpoint, context: Context, box: list[float]) -> None:
    answer = {"results": [{"label": "face", "score": 0.9, "box": box}]}
    server.behave = lambda _: Answer(body=json.dumps(answer).encode())
    with pytest.raises(BackendError, match="expected a box in pixels, found"):
        sagemaker(context).infer(sample(picture()))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/csv", b"1.0,2.5,3.0"), ("application/json", b'{"instances": [[1.0, 2.5, 3.0]]}')],
)
def test_numbers_as_text(server: Endpoint, context: Context, content_type: str, body: bytes) -> None:
    server.behave = lambda _: Answer(body=b"12.5\n")
    model = sagemaker(context, "regression", answer="value", content_type=content_type)
    outcome = model.infer(sample(["1", 2.5, 3]))
    assert outcome is not None
    assert outcome.results == Regression(12.5)
    assert server.requests[0][2] == body


def test_arrays_as_npy(server: Endpoint, context: Context) -> None:
    server.behave = lambda _: Answer(body=b'{"predictions": [[4.0]]}')
    model = sagemaker(context, "regression", answer="value", content_type="application/x-npy")
    model.infer(sample([1, 2, 3]))
    np.testing.assert_array_equal(np.load(io.BytesIO(server.requests[0][2])), [[1, 2, 3]])


def test_a_large_input_is_refused_before_it_is_sent(server: Endpoint, context: Context) -> None:
    model = sagemaker(context, max_payload_bytes=100)
    with pytest.raises(BackendError, match="100 are allowed"):
        model.infer(sample(picture(size=(64, 64))))
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    ["http://h/a b", "http://h/\n", "http://h/\t", "http://h\x00/", "http://h:99999/", "http://h:x/", "http:///a", "h"],
)
def test_a_url_that_can_never_work_is_refused_as_configuration(url: str) -> None:
    backend = {"type": "http", "url": url, "task": "regression"}
    with pytest.raises(ConfigError, match=r"pipelines\.p\.(backend|fallback)\.url"):
        source = {"type": "topic", "topic": "t"}
        check(load(Config, {"pipelines": {"p": {"source": source, "backend": backend}}}).pipelines, "thing")


def test_letters_of_an_address_are_asked_for_as_bytes_and_its_query_stays(server: Endpoint, context: Context) -> None:
    server.behave = lambda _: Answer(body=b"1")
    http(context, f"{server.url}/größe?v=2").infer(sample([1]))
    assert server.requests[0][0] == "/gr%C3%B6%C3%9Fe?v=2&features=1.0"


def test_what_cannot_be_sent_is_the_inputs_fault_and_not_the_servers(server: Endpoint, context: Context) -> None:
    model = sagemaker(context, breaker=Breaker(failures=1))
    for image in (np.zeros((4, 4, 3), np.complex64), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BackendError, match="cannot be sent"):
            model.infer(sample(image))
    server.behave = lambda _: Answer(body=FACES)
    assert sagemaker(context, answer="object_detection").infer(sample(picture())) is not None


def test_the_features_and_the_key_of_the_live_inference_api(server: Endpoint, tmp_path: Path) -> None:
    ipc = Recorder(secrets={"keys": '{"api_key": "k1"}'})
    server.behave = lambda _: Answer(body=b"[[31.5]]", headers={"x-model-name": "Duration"})
    outcome = http(make_context(tmp_path, ipc), f"{server.url}/liveinference", api_key_secret="keys").infer(
        sample({"a": 1, "b": 2.5})
    )
    assert outcome is not None
    assert (outcome.results, outcome.model.name) == (Regression(31.5), "Duration")
    path, headers, _ = server.requests[0]
    assert path == "/liveinference?features=1.0%2C2.5"
    assert headers["x-api-key"] == "k1"
