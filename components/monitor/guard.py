"""What every request must say and every answer says, whatever is behind it."""

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor import signing
from monitor.access import Access

# Nothing inline, nothing from elsewhere; pictures of the page's own making are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
NAMES = frozenset({"127.0.0.1", "localhost"})


class Guard:
    """Refuses requests by another name than the device's (DNS rebinding) and those that another page makes.

    Whether a request is somebody's who may look is known behind it, and to the connection. HEADERS are on each answer.
    """

    def __init__(self, app: ASGIApp, access: Access | None, hosts: frozenset[str] = frozenset()) -> None:
        self._app, self._names = app, NAMES | {host.lower() for host in hosts}
        self._doorman = signing.Doorman(access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        status, words = await self._refusal(scope)
        if not status:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(f"{words}\n", status_code=status)(scope, receive, guarded)

    async def _refusal(self, scope: Scope) -> tuple[int, str]:
        """Status and words for a request that goes no further; 0 for one that does."""
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._names | _here(scope):
            return 421, f"Host: expected one of {', '.join(sorted(self._names))}"
        if not signing.same_origin(HTTPConnection(scope)):
            return 403, "Origin: expected the page's own"
        if not await self._doorman.looks(scope):
            return 429, "too many attempts"
        return 0, ""


def host_name(host: str) -> str:
    """The name of a Host header without its port, in lower case; of IPv6 with brackets. Empty if it is none."""
    bracket = host.find("]") + 1 if host.startswith("[") else 0
    name, colon, port = host[bracket:].partition(":")
    if (bracket and name) or (colon and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        return ""
    return (host[:bracket] or name).lower()


def _here(scope: Scope) -> set[str]:
    """The address that the client has reached, as Host headers write it: no name that another can give."""
    server = scope.get("server")
    if not server or server[1] is None:
        return set()
    try:
        address = ipaddress.ip_address(str(server[0]).partition("%")[0])
    except ValueError:
        return set()
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return {str(address.ipv4_mapped)}
    return {f"[{address}]" if address.version == 6 else str(address)}
