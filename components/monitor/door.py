"""Who comes in: connections are bounded in number, and nobody can take all of them for himself.

When they are too many, one goes that has not signed in, of the peer that has the most: who floods the door ends his
own connections. A TLS handshake is a connection like others, and ends in time.
"""

import asyncio
import ipaddress
import pwd
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_CONNECTIONS = 64
HANDSHAKE_S = 5.0  # for a TLS handshake
GOODBYE_S = 2.0  # for the end of TLS, which both sides say
PAUSE_S = 0.2  # without descriptors, until the next attempt
MAX_TABLE = 4 << 20  # bytes of the kernel's table of connections


@dataclass(eq=False)
class Visitor:
    """A connection, from its arrival. `signed_in` is what its last request was."""

    socket: socket.socket
    remote: tuple[Any, ...]
    local: tuple[Any, ...]
    signed_in: bool = False
    since: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None
    greeted: bool = False  # asyncio has the socket, and closes it
    transport: asyncio.BaseTransport | None = None
    _peer: str = ""

    @property
    def peer(self) -> str:
        """Whom the connection belongs to, as far as that can be known."""
        self._peer = self._peer or peer_of(self.remote, self.local)
        return self._peer

    @property
    def gone(self) -> bool:
        return self.socket.fileno() < 0

    def end(self) -> None:
        if not self.greeted:
            self.socket.close()
        if self.task is not None:
            self.task.cancel()
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()


class Door:
    """What uvicorn takes for a server of asyncio: takes connections from `listening` until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[Visitor], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listening, self._protocol, self._tls = listening, protocol, tls
        self._visitors: set[Visitor] = set()
        listening.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        self._accepting.cancel()
        for visitor in self._visitors:  # who is in asks to go, and is asked to; who is still at the handshake just goes
            if visitor.transport is None:
                visitor.end()

    async def wait_closed(self) -> None:
        await asyncio.wait([self._accepting])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, remote = await loop.sock_accept(self._listening)
                visitor = Visitor(connection, remote, connection.getsockname())
            except OSError:  # no descriptors are left, or it was gone at once
                await asyncio.sleep(PAUSE_S)
                continue
            if not await self._room():
                connection.close()
                continue
            self._visitors.add(visitor)
            visitor.task = loop.create_task(self._welcome(visitor))

    async def _room(self) -> bool:
        """Make room for one more; False where all are there by right."""
        self._visitors = {visitor for visitor in self._visitors if not visitor.gone}
        if len(self._visitors) < MAX_CONNECTIONS:
            return True
        crowd = await asyncio.to_thread(_crowd, list(self._visitors))
        strangers = [visitor for visitor in self._visitors if not visitor.signed_in]
        if not strangers:
            return False
        last = max(strangers, key=lambda visitor: (crowd[visitor.peer], -visitor.since))
        last.end()
        self._visitors.discard(last)
        return True

    async def _welcome(self, visitor: Visitor) -> None:
        times = {"ssl_handshake_timeout": HANDSHAKE_S} if self._tls else {}
        if self._tls and sys.version_info >= (3, 11):  # before, `BoundedProtocol` does it
            times["ssl_shutdown_timeout"] = GOODBYE_S
        visitor.greeted = True
        with suppress(OSError):  # no TLS, or none in time
            visitor.transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(visitor), visitor.socket, ssl=self._tls, **times
            )


def _crowd(visitors: list[Visitor]) -> Counter[str]:
    return Counter(visitor.peer for visitor in visitors)


def peer_of(remote: tuple[Any, ...], local: tuple[Any, ...]) -> str:
    """`user <name>` of a process on this machine, else `address <address>`; of IPv6 the network, which is one host's.

    Users without a name share one: a user may have many numbers of his own (subuid), and names are given by root.
    """
    here, there = _plain(local[0]), _plain(remote[0])
    if there.is_loopback or there == here:
        user = _user_of((there, remote[1]), (here, local[1]))
        if user is not None:
            try:
                return f"user {pwd.getpwuid(user).pw_name}"
            except KeyError:
                return "user"
    if isinstance(there, ipaddress.IPv6Address):
        return f"address {ipaddress.ip_network((there, 64), strict=False)}"
    return f"address {there}"


def _user_of(remote: tuple[Any, int], local: tuple[Any, int]) -> int | None:
    """The user whose socket is the other end of a connection within this machine; None if none can be named.

    A socket that its process has closed is root's in the kernel's table, and has no inode: it says nothing.
    """
    for table in ("tcp", "tcp6"):
        try:
            with Path("/proc/net", table).open(encoding="ascii") as file:
                lines = file.read(MAX_TABLE).splitlines()[1:]
        except OSError:
            continue
        for columns in (line.split(maxsplit=10) for line in lines):
            if len(columns) > 9 and _entry(columns[1]) == remote and _entry(columns[2]) == local:
                return int(columns[7]) if columns[9] != "0" else None
    return None


def _entry(text: str) -> tuple[Any, int]:
    """Address and port of an entry in the kernel's table: words in the machine's own order."""
    digits, _, port = text.partition(":")
    words = [int(digits[index : index + 8], 16) for index in range(0, len(digits), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return _plain(str(ipaddress.ip_address(packed))), int(port, 16)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Without zone; an IPv4 address that is written as IPv6 is what it is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped) or parsed
