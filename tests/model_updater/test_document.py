from typing import Any

import pytest

from edgeml.errors import ConfigError, EdgemlError
from model_updater.document import check_group, check_signature, key_bytes, may_downgrade, parse
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


V2_FIELDS: list[dict[str, Any]] = [
    {"model_version": "9.9.9"},
    {"model_name": "Other"},
    {"sha256": "0" * 64},
    {"size": 9},
    {"thing_group": "other"},
    {"thing_group": ""},
    {"allow_downgrade": True},
    {"signature_v2": "AAAA"},
]


@pytest.mark.parametrize("change", V2_FIELDS, ids=lambda change: next(iter(change)))
def test_the_second_signature_covers_every_field_that_decides(change: dict[str, Any]) -> None:
    signer = Signer()
    job = signer.signed_v2(GOOD, thing_group="turbines")
    check_signature(parse(job), signer.public)
    check_signature(parse(job), signer.public, 2)
    with pytest.raises(EdgemlError, match="signature does not fit"):
        check_signature(parse({**job, **change}), signer.public)


def test_a_good_first_signature_does_not_excuse_a_bad_second_one() -> None:
    signer = Signer()
    with pytest.raises(EdgemlError, match="signature does not fit"):
        check_signature(
            parse({**signer.signed(GOOD), "signature_v2": Signer().signed(GOOD)["signature"]}), signer.public
        )


def test_where_the_second_signature_is_demanded_the_first_is_not_enough() -> None:
    signer = Signer()
    with pytest.raises(EdgemlError, match="has no signature_v2"):
        check_signature(parse(signer.signed(GOOD)), signer.public, 2)
    with pytest.raises(EdgemlError, match="is not signed"):
        check_signature(parse(GOOD), signer.public, 2)


def test_a_downgrade_counts_only_where_a_signature_covers_it() -> None:
    signer = Signer()
    unsigned = parse({**GOOD, "allow_downgrade": True})
    assert may_downgrade(unsigned, "")
    assert not may_downgrade(unsigned, signer.public)
    assert not may_downgrade(parse({**signer.signed(GOOD), "allow_downgrade": True}), signer.public)
    assert may_downgrade(parse(signer.signed_v2(GOOD, allow_downgrade=True)), signer.public)
    assert not may_downgrade(parse(signer.signed_v2(GOOD)), signer.public)


@pytest.mark.parametrize(
    ("job", "device", "meant"),
    [("", "", True), ("", "a", True), ("a", "", True), ("a", "a", True), ("a", "b", False), ("a", "A", False)],
)
def test_a_job_is_for_the_thing_group_that_it_names(job: str, device: str, meant: bool) -> None:
    document = parse({**GOOD, "thing_group": job})
    if meant:
        check_group(document, device)
    else:
        with pytest.raises(EdgemlError, match=f"for thing group {job}, this device is in {device}"):
            check_group(document, device)


@pytest.mark.parametrize("field", ["model_name", "thing_group", "sha256"])
def test_no_field_of_the_signed_text_can_end_in_a_line_feed(field: str) -> None:
    value = {**GOOD, "thing_group": "a"}[field]
    with pytest.raises(EdgemlError, match=field):
        parse({**GOOD, field: f"{value}\n"})
