"""Signing with the AWS credentials of this process.

botocore is loaded with the first delivery: it costs 120 ms and 18 MB, and no client of it is ever made. It finds the
credentials; its own signing takes ten times as long as this one, as much for a batch as a hundred lines do.
"""

import hashlib
import hmac
import time
from urllib.parse import quote, urlsplit

from edgeml.credentials import Credentials
from edgeml.errors import CredentialsError
from log_shipper.errors import DeliveryError

_SERVICE = "logs"
_ALGORITHM = "AWS4-HMAC-SHA256"


class Signer:
    """Signs requests to CloudWatch Logs. Thread-safe; temporary credentials are renewed before they expire.

    AWS Signature Version 4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, region: str, credentials: Credentials | None = None) -> None:
        self._region, self._credentials = region, credentials or Credentials()

    def sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers of a POST, `Host` among them and no spaces in any, and its signature.

        Raises DeliveryError if there are no credentials.
        """
        try:
            frozen = self._credentials.frozen()
        except CredentialsError as error:
            raise DeliveryError(str(error), "credentials") from error
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        signed = {**headers, "X-Amz-Date": moment}
        if frozen.token:
            signed["X-Amz-Security-Token"] = frozen.token
        headers_by_name = sorted((name.lower(), value) for name, value in signed.items())
        names = ";".join(name for name, _ in headers_by_name)
        lines = [f"{name}:{value}" for name, value in headers_by_name]
        path = quote(urlsplit(url).path, safe="/~")
        request = "\n".join(["POST", path, "", *lines, "", names, hashlib.sha256(body).hexdigest()])
        scope = f"{moment[:8]}/{self._region}/{_SERVICE}/aws4_request"
        text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{frozen.secret_key}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        authorization = f"Credential={frozen.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        return {**signed, "Authorization": f"{_ALGORITHM} {authorization}"}

    def forget(self) -> None:
        """Fetch credentials anew for the next request: the service said that these have expired."""
        self._credentials.forget()
