"""A camera's URL as people write it, and how its user proves to be it: RFC 7617 (Basic) and RFC 7616 (Digest)."""

import base64
import hashlib
import re
import secrets
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from edgeml import redact
from edgeml.errors import SourceError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(frozen=True)
class Address:
    """`url` has neither user nor password, and only characters that HTTP allows."""

    scheme: str
    url: str = field(repr=False)
    user: str = field(repr=False, default="")
    password: str = field(repr=False, default="")

    @classmethod
    def of(cls, location: str) -> "Address":
        """Raises SourceError."""
        scheme, identity, place = split(location)
        if scheme not in ("http", "https"):
            raise SourceError(f"{redact.url(location)}: expected http:// or https://")
        host = re.split(r"[/?#]", place, maxsplit=1)[0]
        if not _HOST.fullmatch(host):
            raise SourceError(f"{redact.url(location)}: expected http://<host>")
        user, _, password = identity.partition(":")
        target = quote(place[len(host) :].partition("#")[0], safe="/?:@!$&'()*+,;=%-._~[]|")
        return cls(scheme, f"{scheme}://{host}{target}", unquote(user), unquote(password))

    @property
    def is_secret(self) -> bool:
        """Whether it must not be shown to other hosts."""
        return bool(self.user or self.password or urlsplit(self.url).query)

    def basic(self) -> str:
        """The Authorization header to begin with."""
        if not (self.user or self.password):
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def split(location: str) -> tuple[str, str, str]:
    """A URL's scheme, its user and password, and what follows them; without a scheme an empty one.

    Passwords may hold what ends an authority, as long as no host can be made of what stands before it.
    """
    scheme, found, rest = location.strip().partition("://")
    if not found:
        return "", "", location
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    whole = authority if "@" in authority or _HOST.fullmatch(authority) else rest
    identity, at, _ = whole.rpartition("@")
    return scheme.lower(), identity, rest[len(identity) + len(at) :]


def escaped(location: str) -> str:
    """A URL with the user and password that FFmpeg would not understand as people write them, as it does."""
    scheme, identity, place = split(location)
    if not identity:
        return location
    return f"{scheme}://{quote(identity, safe=':%!$&()*+,;=-._~')}@{place}"


def authorization(
    address: Address, challenges: Sequence[str], method: str = "GET", target: str | None = None
) -> str | None:
    """The answer to a server's challenges: Digest where it offers that, else Basic; None where there is none.

    `target` is what is asked for, as the request names it; by default the path of the address.
    """
    if not (address.user or address.password):
        return None
    for challenge in challenges:
        kind, _, rest = challenge.strip().partition(" ")
        if kind.lower() == "digest":
            said = [part for part in urllib.request.parse_http_list(rest) if part.partition("=")[2]]
            fields = urllib.request.parse_keqv_list(said)
            lowered = {name.lower(): value for name, value in fields.items()}
            answer = _digest(address, lowered, method, _path(address) if target is None else target)
            if answer is not None:
                return answer
    is_basic = any(challenge.strip().lower().startswith("basic") for challenge in challenges)
    return address.basic() if is_basic else None


def _path(address: Address) -> str:
    parts = urlsplit(address.url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _digest(address: Address, fields: dict[str, str], method: str, target: str) -> str | None:
    algorithm = fields.get("algorithm", "MD5").upper()
    hashed = _HASHES.get(algorithm.removesuffix("-SESS"))
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    if hashed is None or len(nonce) > 1024 or '"' in realm + nonce + address.user:
        return None

    def digest(*parts: str) -> str:
        return hashed(":".join(parts).encode()).hexdigest()

    client = secrets.token_hex(8)
    first = digest(address.user, realm, address.password)
    if algorithm.endswith("-SESS"):
        first = digest(first, nonce, client)
    second = digest(method, target)
    told = {"username": address.user, "realm": realm, "nonce": nonce, "uri": target}
    text = f", algorithm={algorithm}"
    if "auth" in [way.strip().lower() for way in fields.get("qop", "").split(",")]:
        told["response"] = digest(first, nonce, "00000001", client, "auth", second)
        told["cnonce"] = client
        text += ", qop=auth, nc=00000001"
    else:
        told["response"] = digest(first, nonce, second)
    if "opaque" in fields:
        told["opaque"] = fields["opaque"]
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in told.items()) + text
