"""Why an RTSP camera gives no video: asked by ourselves, since FFmpeg within OpenCV does not say. Source: RFC 2326."""

import email
import socket
import threading
import time
from email.message import Message
from urllib.parse import urlsplit

from camera_capture.http_address import Address, authorization, split
from edgeml.errors import SourceError

PORT = 554
MAX_ANSWER = 64 << 10
MAX_ADDRESSES, MIN_S = 4, 0.1
WORDS = {
    401: "unauthorized (user or password)",
    403: "unauthorized (user or password)",
    404: "not found; is the path right?",
    454: "not found; is the path right?",
}


def trouble(location: str, limit_s: float) -> str:
    """What is wrong with the camera at an rtsp:// URL, in a few words without its secrets; empty if nothing is seen.

    Takes at most `limit_s` seconds. Raises nothing.
    """
    scheme, identity, place = split(location)
    if scheme != "rtsp":
        return ""
    try:
        address = Address.of(f"http://{identity}@{place}" if identity else f"http://{place}")
        url = "rtsp" + address.url.removeprefix("http")
        parts = urlsplit(url)
        deadline = time.monotonic() + limit_s
        addresses = _resolved(parts.hostname or "", parts.port or PORT, limit_s)
        if not addresses:
            return "its name is not resolved in time"
        with _connected(addresses, deadline) as sock:
            return _described(sock, address, url, deadline)
    except (SourceError, ValueError):
        return "expected rtsp://<host>"
    except socket.gaierror:
        return "no host of that name"
    except ConnectionRefusedError:
        return "connection refused; is it the right port?"
    except TimeoutError:
        return "timed out: nobody answers"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()


def _resolved(host: str, port: int, limit_s: float) -> list[tuple[str, int]]:
    """The addresses of a host; none where none came in time. The system's resolver cannot be interrupted."""
    found: list[list[tuple[str, int]] | OSError] = []

    def resolve() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.append([(str(address[0]), port) for *_, address in answers][:MAX_ADDRESSES])
        except (OSError, UnicodeError) as error:
            found.append(error if isinstance(error, OSError) else socket.gaierror(str(error)))

    resolver = threading.Thread(target=resolve, name="resolve", daemon=True)
    resolver.start()
    resolver.join(limit_s)
    answer = found[0] if found else []
    if isinstance(answer, OSError):
        raise answer
    return answer


def _connected(addresses: list[tuple[str, int]], deadline: float) -> socket.socket:
    """Raises OSError, that of the last address."""
    for number, address in enumerate(addresses, 1):
        try:
            return socket.create_connection(address, max(deadline - time.monotonic(), MIN_S))
        except OSError:
            if number == len(addresses):
                raise
    raise TimeoutError


def _described(sock: socket.socket, address: Address, url: str, deadline: float) -> str:
    header = ""
    for number in (1, 2):
        request = f"DESCRIBE {url} RTSP/1.0\r\nCSeq: {number}\r\nAccept: application/sdp\r\nUser-Agent: edgeml\r\n"
        try:
            sock.sendall((request + (f"Authorization: {header}\r\n" if header else "") + "\r\n").encode())
            status, reason, headers, body = _answer(sock, deadline)
        except ConnectionError:
            if not header:
                raise
            return WORDS[401]  # some hang up, and read no more, after they have refused a user
        if status is None:
            return WORDS[401] if header else "it does not speak RTSP"
        challenges = headers.get_all("WWW-Authenticate") or []
        answer = authorization(address, challenges, "DESCRIBE", url) if status == 401 and not header else None
        if answer is None:
            break
        header = answer
    if status == 200:
        return "" if b"m=video" in body else "it has no video"
    return WORDS.get(status or 0) or f"it says {status} {reason}".rstrip()


def _answer(sock: socket.socket, deadline: float) -> tuple[int | None, str, Message, bytes]:
    """(status, reason, headers, what there is of the body); no status where it is no answer of RTSP."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < MAX_ANSWER and (piece := _received(sock, deadline)):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    line, _, fields = head.decode("latin-1").partition("\r\n")
    headers = email.message_from_string(fields)
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("RTSP/") or not (code.isascii() and code.isdigit() and len(code) == 3):
        return None, "", headers, b""
    length = headers.get("Content-Length", "")
    size = min(int(length), MAX_ANSWER) if length.isascii() and length.isdigit() and len(length) < 9 else 0
    while len(body) < size and (piece := _received(sock, deadline)):
        body += piece
    return int(code), "".join(letter for letter in reason if letter.isprintable())[:60], headers, body


def _received(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    return sock.recv(65536)
