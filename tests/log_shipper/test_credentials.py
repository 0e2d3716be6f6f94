import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from log_shipper.credentials import Signer
from log_shipper.errors import DeliveryError


@pytest.fixture
def expired() -> Iterator[str]:
    """Address of a token exchange service that only has credentials of the past."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fields = {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2020-01-01T00:00:00Z"}
            data = json.dumps(fields).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_credentials_that_have_expired_when_they_come_are_a_reason_to_wait(
    expired: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", expired)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(DeliveryError, match="expired"):
        Signer("eu-west-1").sign("http://127.0.0.1:9/", {}, b"")


def signed_by_botocore(url: str, headers: dict[str, str], body: bytes, token: str | None) -> dict[str, str]:
    request = AWSRequest(method="POST", url=url, headers=headers, data=body)
    SigV4Auth(Credentials("AKID", "se/cr+et", token), "logs", "eu-west-1").add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize("token", [None, "to/ken=="], ids=["no token", "token"])
@pytest.mark.parametrize("url", ["https://logs.eu-west-1.amazonaws.com/", "http://127.0.0.1:4566/a b~c/ü%20/"])
@pytest.mark.parametrize("body", [b"{}", b"", "ü\0".encode() * 1000], ids=["object", "empty", "long"])
def test_a_signature_is_the_one_that_botocore_makes(
    token: str | None, url: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "se/cr+et")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    else:
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs.Put", "Host": "a:1", "Host-A": "b"}
    for _ in range(10):  # until both are of the same second
        ours = Signer("eu-west-1").sign(url, headers, body)
        theirs = signed_by_botocore(url, headers, body, token)
        if ours["X-Amz-Date"] == theirs["X-Amz-Date"]:
            break
    assert ours == theirs
