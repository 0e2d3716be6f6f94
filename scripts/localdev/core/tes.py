"""Token exchange service: AWS credentials for components over HTTP on the loopback interface.

Source: CredentialRequestHandler of aws-greengrass-nucleus.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

COMPONENT = "aws.greengrass.TokenExchangeService"
PATH = "/2016-11-01/credentialprovider/"
LIFETIME = timedelta(hours=1)
REQUEST_SECONDS = 5.0
TESTING = {"AccessKeyId": "testing", "SecretAccessKey": "testing", "Token": "testing"}


class TokenExchange:
    """Serves one set of credentials to whoever shows the IPC token of a component."""

    def __init__(self, credentials: Mapping[str, str] | None, known: Callable[[str], bool]) -> None:
        """`credentials`: AccessKeyId, SecretAccessKey, Token. `known` tells whether a token is a component's."""
        self._credentials = dict(credentials or TESTING)
        self._known = known
        self._server: asyncio.Server

    async def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Stops listening."""
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """What components get as AWS_CONTAINER_CREDENTIALS_FULL_URI."""
        return f"http://localhost:{self._server.sockets[0].getsockname()[1]}{PATH}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SECONDS)
            status, body = self._answer(head.decode("latin-1"))
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await asyncio.wait_for(writer.drain(), REQUEST_SECONDS)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client went away or does not speak HTTP
        finally:
            writer.close()

    def _answer(self, head: str) -> tuple[str, bytes]:
        request, *lines = head.split("\r\n")
        method, _, rest = request.partition(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not rest.startswith(PATH.rstrip("/")):
            return "404 Not Found", b""
        if method != "GET":
            return "405 Method Not Allowed", b""
        if not self._known(headers.get("authorization", "")):
            return "403 Forbidden", b""
        expiration = (datetime.now(UTC) + LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        return "200 OK", json.dumps({**self._credentials, "Expiration": expiration}).encode()
