"""What built-in components give to others: credentials and secrets."""

import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import NAME, Connect, printed
from localdev.core import LocalCore
from support import eventually


class TestServices:
    def test_credentials_for_whoever_has_a_token(self, tmp_path: Path, packages: Any) -> None:
        packages.add(
            NAME,
            {"run": "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI > uri; exec sleep 60"},
            depends={"aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0"}},
        )
        given = {"AccessKeyId": "AKIA", "SecretAccessKey": "s", "Token": "t"}
        with LocalCore(tmp_path / "core", credentials=given) as core:
            packages.deploy(core, NAME)
            file = core.root / "work" / NAME / "uri"
            uri = eventually(lambda: file.read_text().strip() if file.exists() else "", what="uri")
            match = re.fullmatch(r"http://(localhost:\d+)(/2016-11-01/credentialprovider/)", uri)
            assert match
            address, path = match.groups()
            token = {"Authorization": core.token(NAME)}
            status, body = _ask(address, "GET", path, token)
            credentials = json.loads(body)
            assert (status, {key: credentials[key] for key in given}) == (200, given)
            assert credentials["Expiration"].endswith("Z")
            assert _ask(address, "GET", path, {})[0] == 403
            assert _ask(address, "GET", path, {"Authorization": "WRONG"})[0] == 403
            assert _ask(address, "POST", path, token)[0] == 405
            assert _ask(address, "GET", "/latest", token)[0] == 404

    def test_lite_gives_the_credentials_address_to_direct_dependers_only(self, lite: LocalCore, packages: Any) -> None:
        show = {"run": "echo uri=$AWS_CONTAINER_CREDENTIALS_FULL_URI; exec sleep 60"}
        packages.add("test.With", show, depends={"aws.greengrass.TokenExchangeService": {"VersionRequirement": "*"}})
        packages.add("test.Without", show)
        packages.deploy(lite, "test.With", "test.Without")
        eventually(lambda: "uri=http://localhost" in lite.log("test.With"), what="address")
        printed(lite, "uri=", "test.Without")

    def test_secrets(self, tmp_path: Path, packages: Any, connect_to: Connect) -> None:
        secrets = {"token": "s3cret", "key": {"arn": "arn:aws:x:key", "secretBinary": "AAE="}}
        file = tmp_path / "secrets.json"
        file.write_text(json.dumps(secrets))
        policy = {"aws.greengrass.SecretManager": {"p": {"operations": ["*"], "resources": ["*:token-*", "*:absent"]}}}
        with LocalCore(tmp_path / "core", secrets=file) as core:
            client = connect_to(core, "test.Narrow", policy)
            with pytest.raises(model.ServiceError):
                client.get_secret_value(secret_id="token")  # the secret manager is not deployed
            core.deploy(merge={"aws.greengrass.SecretManager": "2.0.0"})
            answer = client.get_secret_value(secret_id="token")
            assert answer.secret_value.secret_string == "s3cret"
            assert answer.version_stage == ["AWSCURRENT"]
            assert client.get_secret_value(secret_id=answer.secret_id).secret_value.secret_string == "s3cret"
            with pytest.raises(model.UnauthorizedError):
                client.get_secret_value(secret_id="key")
            assert connect_to(core).get_secret_value(secret_id="key").secret_value.secret_binary == b"\0\1"
            for wrong in ({"secret_id": "x:absent"}, {"secret_id": "token", "version_stage": "AWSPREVIOUS"}):
                with pytest.raises(model.ResourceNotFoundError):
                    client.get_secret_value(**wrong)

    def test_a_secrets_file_that_is_unusable(self, tmp_path: Path) -> None:
        with (
            pytest.raises(ValueError, match="neither secretString nor secretBinary"),
            LocalCore(tmp_path, secrets={"a": {}}),
        ):
            pass


def _ask(address: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
