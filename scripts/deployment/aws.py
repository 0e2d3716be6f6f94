"""AWS as scripts/deploy and scripts/look use it: clients that give up in time, and errors in words."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from deployment import DeployError, UsageError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 4

# How the services call credentials that are wrong or too old.
BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedException"}


class Aws:
    """One account in one region. Raises UsageError when the configuration names no region."""

    def __init__(self, region: str | None) -> None:
        import boto3  # takes a third of a second, which --help need not
        from botocore.config import Config

        # AWS_REGION is what other SDKs and AWS's own shells set, and boto3 passes over.
        self._session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
        if not self._session.region_name:
            raise UsageError(
                "no AWS region: name --region, set AWS_REGION or AWS_DEFAULT_REGION, or put it into the AWS profile"
            )
        self.region = str(self._session.region_name)
        self._clients: dict[str, Any] = {}
        self._config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=self._config)
        return self._clients[service]

    def credentials(self) -> Any:
        """What botocore found, as it is now. Raises UsageError where there are none."""
        found = self._session.get_credentials()
        if found is None:
            raise UsageError("the AWS configuration: no credentials")
        return found.get_frozen_credentials()

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Partition and account of the caller."""
        caller = self.client("sts").get_caller_identity()
        return caller["Arn"].split(":")[1], caller["Account"]


@contextmanager
def in_words() -> Iterator[None]:
    """Raises DeployError or UsageError for what boto3 raises in the block."""
    from botocore import exceptions

    configuration = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.ProfileNotFound,
        exceptions.ConfigParseError,
        exceptions.InvalidRegionError,
    )
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error) from error
    except configuration as error:
        raise UsageError(f"the AWS configuration: {error}") from error
    except exceptions.ParamValidationError as error:
        raise UsageError(f"AWS does not take this: {error}") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise DeployError(f"AWS cannot be reached: {error}") from error
    except exceptions.BotoCoreError as error:
        raise DeployError(f"AWS: {error}") from error


def _plain(text: object) -> str:
    """A message for a terminal: a proxy or a wrong endpoint answers with a page of HTML."""
    words = re.sub(r"<[^<>]{0,1000}>", " ", str(text)).split()
    return " ".join(words)[:500]


def _refusal(error: Any) -> DeployError:
    code, message = error.response["Error"]["Code"], _plain(error.response["Error"].get("Message", ""))
    if code in BAD_CREDENTIALS:
        return UsageError(f"AWS does not take the credentials: {message}")
    if code in DENIED:
        return DeployError(f"these AWS credentials may not do {error.operation_name}: {message}")
    return DeployError(f"AWS refused {error.operation_name}: {code}: {message}")
