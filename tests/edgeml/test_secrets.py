from collections.abc import Iterator

import boto3
import pytest

from edgeml.asking import secret_text
from edgeml.errors import DisconnectedError, IpcError, SecretError
from edgeml.secrets import secret_value
from ipc_support import FakeIpc
from localdev.cloud.aws import LocalAws


class Core(FakeIpc):
    """A core that answers or refuses GetSecretValue; the rest of Ipc is not asked."""

    def __init__(self, answer: str | IpcError) -> None:
        self._answer = answer

    def secret(self, secret_id: str) -> str:
        if isinstance(self._answer, IpcError):
            raise self._answer
        return self._answer


# Nucleus Lite's answer to an operation it does not have.
LITE = Core(IpcError("secret EI_API_KEY: Unhandled operation (ServiceError)"))


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with LocalAws() as cloud:
        yield cloud.url


@pytest.fixture
def secrets_manager(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def test_the_core_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody is there
    assert secret_value(Core('{"ei_api_key": "ei_123", "other": "x"}'), "EI_API_KEY", "ei_api_key") == "ei_123"


def test_a_secret_that_is_no_object_is_the_key_itself() -> None:
    assert secret_value(Core(" ei_123\n"), "EI_API_KEY", "ei_api_key") == "ei_123"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SecretError, match="EI_API_KEY: it has no key 'ei_api_key'"):
        secret_value(Core('{"api_key": "ei_123"}'), "EI_API_KEY", "ei_api_key")


EMPTY = {
    "nothing": (None, None),
    "empty text": ("", None),
    "empty bytes": (None, b""),
    "both empty": ("", b""),
    "bytes that are no text": (None, b"\xff\xfe"),
    "a number": (None, 5),
}


@pytest.mark.parametrize(("string", "binary"), EMPTY.values(), ids=EMPTY.keys())
def test_an_answer_without_a_secret_is_not_found_in_words(string: str | None, binary: bytes | None) -> None:
    with pytest.raises(SecretError, match="secret EI_API_KEY: "):
        secret_text("EI_API_KEY", string, binary)


def test_a_secret_in_bytes_is_read() -> None:
    assert secret_text("EI_API_KEY", None, b"ei_1") == secret_text("EI_API_KEY", "ei_1", b"other") == "ei_1"


@pytest.mark.parametrize("text", ['{"ei_api_key": null}', '{"ei_api_key": ""}', '{"ei_api_key": {"a": 1}}', " \n"])
def test_a_key_that_holds_no_text_is_not_found(text: str) -> None:
    with pytest.raises(SecretError, match="'ei_api_key'"):
        secret_value(Core(text), "EI_API_KEY", "ei_api_key")


@pytest.mark.parametrize("reply", [None, {}, {"SecretString": None, "SecretBinary": None}, {"SecretString": ""}])
def test_an_empty_reply_of_the_core_or_secrets_manager(
    reply: object, secrets_manager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Empty:
        def get_secret_value(self, **arguments: object) -> object:
            return reply

    monkeypatch.setattr("edgeml.credentials.AwsClient.get", lambda self: Empty())
    with pytest.raises(SecretError, match="EI_API_KEY"):
        secret_value(LITE, "EI_API_KEY", "ei_api_key")


def test_where_the_core_has_no_secrets_secrets_manager_has(secrets_manager: None) -> None:
    boto3.client("secretsmanager").create_secret(Name="EI_API_KEY", SecretString='{"ei_api_key": "ei_456"}')
    assert secret_value(LITE, "EI_API_KEY", "ei_api_key") == "ei_456"


def test_a_secret_that_nobody_has(secrets_manager: None) -> None:
    with pytest.raises(SecretError, match=r"ABSENT.*Unhandled operation"):
        secret_value(LITE, "ABSENT", "ei_api_key")


def test_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch, secrets_manager: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SecretError, match=r"EI_API_KEY: .*Unhandled operation"):
        secret_value(LITE, "EI_API_KEY", "ei_api_key")


def test_a_lost_connection_is_not_hidden_by_a_second_try() -> None:
    with pytest.raises(DisconnectedError):
        secret_value(Core(DisconnectedError("gone")), "EI_API_KEY", "ei_api_key")
