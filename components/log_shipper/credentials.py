"""AWS credentials by botocore's chain (environment, profile, token exchange service, ...) and signing with them.

botocore is loaded with the first delivery: it costs 120 ms and 18 MB, and no client of it is ever made.
"""

import threading
from typing import Any

from log_shipper.errors import DeliveryError

_SERVICE = "logs"


class Signer:
    """Signs requests to CloudWatch Logs (SigV4). Thread-safe; temporary credentials are renewed before they expire."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._lock = threading.Lock()
        self._credentials: Any = None

    def sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers with the signature. Raises DeliveryError if there are no credentials."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method="POST", url=url, headers=headers, data=body)
        SigV4Auth(self._frozen(), _SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    def forget(self) -> None:
        """Fetch credentials anew for the next request: the service said that these have expired."""
        with self._lock:
            self._credentials = None

    def _frozen(self) -> Any:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials = Session().get_credentials()
                if self._credentials is not None:
                    return self._credentials.get_frozen_credentials()
            except (BotoCoreError, RuntimeError) as error:  # RuntimeError: what was fetched has expired already
                self._credentials = None
                raise DeliveryError(f"no AWS credentials: {error}") from error
        raise DeliveryError(
            "no AWS credentials: aws.greengrass.TokenExchangeService, AWS_ACCESS_KEY_ID or a profile must give some"
        )
