import hashlib
import hmac
import json
from collections.abc import Iterator

import pytest

from edge_impulse_linux.identity import Identity
from edge_impulse_linux.ingestion import Ingestion, Target, signed
from edgeml.edge_impulse.studio import endpoints
from edgeml.errors import StudioError
from localdev.simulators.studio import FakeStudio

JPEG = b"\xff\xd8\r\n--\x00\xff\xd9"


@pytest.fixture
def studio() -> Iterator[FakeStudio]:
    with FakeStudio() as running:
        yield running


def ingestion(studio: FakeStudio, key: str = "ei_test") -> Ingestion:
    return Ingestion(endpoints(studio.host).ingestion, key, Identity("02:00:00:00:00:01", "door"))


def test_the_signature_is_over_the_document_with_a_signature_of_zeros() -> None:
    document = signed({"values": [[1, 2.5]]}, "key", at=1_700_000_000.9)
    parsed = json.loads(document)
    assert parsed["protected"] == {"ver": "v1", "alg": "HS256", "iat": 1_700_000_000}
    unsigned = json.dumps({**parsed, "signature": "0" * 64}, separators=(",", ":")).encode()
    assert parsed["signature"] == hmac.new(b"key", unsigned, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("label", ["face", "no face", "a/b: c?", 'quo"te', "x\r\nx-evil: 1", "\u00fcmlaut \u2603"])
def test_any_label_arrives_as_it_is_and_cannot_change_the_request(studio: FakeStudio, label: str) -> None:
    ingestion(studio).image(Target("/api/training/data", label), JPEG, {"camera": "front"})
    ingestion(studio).values(Target("/api/training/data", label), studio.hmac_key, 10, [], [])
    image, values = studio.uploads
    assert (image.label, image.file_name, image.content) == (label, f"{label}.jpg", JPEG)
    assert (values.label, values.file_name) == (label, f"{label}.json")
    assert "x-evil" not in image.headers


def test_values_signed_with_another_key_are_refused(studio: FakeStudio) -> None:
    with pytest.raises(StudioError, match="signature is wrong"):
        ingestion(studio).values(Target("/api/training/data", "x"), "another", 10, [], [])


def test_a_wrong_api_key_is_an_error_that_does_not_show_it(studio: FakeStudio) -> None:
    with pytest.raises(StudioError, match="401") as caught:
        ingestion(studio, "ei_secret").image(Target("/api/training/data", "x"), JPEG, {})
    assert "ei_secret" not in str(caught.value)
    assert "ei_secret" not in repr(ingestion(studio, "ei_secret"))


def test_a_refused_file_is_an_error_with_its_reason(studio: FakeStudio) -> None:
    studio.upload_error = "duplicate"
    with pytest.raises(StudioError, match="duplicate"):
        ingestion(studio).image(Target("/api/training/data", "x"), JPEG, {})


def test_a_service_out_of_reach_is_an_error() -> None:
    unreachable = Ingestion("http://127.0.0.1:9", "k", Identity("a", "b"))
    with pytest.raises(StudioError, match="upload to"):
        unreachable.image(Target("/api/training/data", "x"), JPEG, {})
