"""Signing with the AWS credentials of this process.

botocore is loaded with the first delivery: it costs 120 ms and 18 MB, and no client of it is ever made.
"""

from edgeml.credentials import Credentials
from edgeml.errors import CredentialsError
from log_shipper.errors import DeliveryError

_SERVICE = "logs"


class Signer:
    """Signs requests to CloudWatch Logs (SigV4). Thread-safe; temporary credentials are renewed before they expire."""

    def __init__(self, region: str, credentials: Credentials | None = None) -> None:
        self._region, self._credentials = region, credentials or Credentials()

    def sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers with the signature. Raises DeliveryError if there are no credentials."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        try:
            frozen = self._credentials.frozen()
        except CredentialsError as error:
            raise DeliveryError(str(error), "credentials") from error
        request = AWSRequest(method="POST", url=url, headers=headers, data=body)
        SigV4Auth(frozen, _SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    def forget(self) -> None:
        """Fetch credentials anew for the next request: the service said that these have expired."""
        self._credentials.forget()
