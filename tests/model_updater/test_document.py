from typing import Any

import pytest

from edgeml.errors import ConfigError, EdgemlError
from model_updater.document import check_signature, key_bytes, parse
from ota_support import Signer, document

GOOD = document(b"artifact", "1.2.0", "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=0")


def test_a_good_document_is_read_and_fields_of_later_versions_are_passed_over() -> None:
    job = parse({**GOOD, "version": "1.7.0", "colour": "blue", "size": str(GOOD["size"])})
    assert (job.model_name, job.model_version, job.size) == ("Tiny", "1.2.0", 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operation": "reboot"}, "unknown operation 'reboot'"),
        ({"operation": None}, "unknown operation"),
        ({"version": "2.0"}, "unknown document version '2.0'"),
        ({"version": None}, "unknown document version"),
        ({"model_name": "../../etc"}, "model_name"),
        ({"model_version": "newest"}, "neither a number nor semantic"),
        ({"model_version": "1.0/../../x"}, "neither a number nor semantic"),
        ({"sha256": "ABC"}, "sha256"),
        ({"size": 0}, "size"),
        ({"size": "many"}, "size"),
        ({"deployment_artifact_path": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}"}, "not filled in"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(change: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgemlError, match=words):
        parse({**GOOD, **change})


@pytest.mark.parametrize("raw", [None, [], "text", 7])
def test_a_document_that_is_no_object_is_refused(raw: Any) -> None:
    with pytest.raises(EdgemlError, match="no object"):
        parse(raw)


def test_a_signature_by_the_configured_key_is_accepted() -> None:
    signer = Signer()
    check_signature(parse(signer.signed(GOOD)), signer.public)


@pytest.mark.parametrize(
    "change",
    [{"model_version": "9.9.9"}, {"model_name": "Other"}, {"sha256": "0" * 64}, {"size": 9}, {"signature": "AAAA"}],
)
def test_a_signature_covers_content_name_and_version(change: dict[str, Any]) -> None:
    signer = Signer()
    with pytest.raises(EdgemlError, match="signature does not fit"):
        check_signature(parse({**signer.signed(GOOD), **change}), signer.public)


def test_another_key_and_no_signature_are_refused() -> None:
    with pytest.raises(EdgemlError, match="signature does not fit"):
        check_signature(parse(Signer().signed(GOOD)), Signer().public)
    with pytest.raises(EdgemlError, match="not signed"):
        check_signature(parse(GOOD), Signer().public)


@pytest.mark.parametrize(("key", "words"), [("no base64!", "base64"), ("AAAA", "32 bytes")])
def test_a_key_that_is_none_is_a_configuration_error(key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        key_bytes(key)
